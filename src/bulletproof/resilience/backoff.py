"""How long to wait before the next try: the plain arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Strategy = Literal["exponential", "constant", "decorrelated"]
Jitter = Literal["full", "equal", "additive", "none"]

FOREVER = 1e9
"""Seconds that no wait exceeds (31 years); ``time.sleep`` refuses larger numbers than about nine times that."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between tries.

    Jitter stays under the cap: at the cap the waits are still spread, so that a thousand clients do not
    come back in step. The kinds of jitter are those of M. Brooker, "Exponential Backoff And Jitter"
    (AWS Architecture Blog, 2015); ``additive`` is a whole step plus up to a second.

    Args:
        base: Seconds of the first step, before jitter.
        cap: Most seconds of any wait; None for no cap.
        factor: What each step is longer than the one before; at least 1.
        strategy: ``exponential``, ``constant``, or ``decorrelated`` (each wait between ``base`` and three times
            the one before, whatever ``jitter`` says).
        jitter: ``full``: U(0, step). ``equal``: step / 2 + U(0, step / 2). ``additive``: step + U(0, 1).
            ``none``: step.

    Raises:
        ValueError: A number is negative or not finite, or a word is not one of those above.

    Example:
        >>> [Backoff(base=0.5, cap=3, jitter="none").wait(step, 0.0, lambda: 0.0) for step in range(4)]
        [0.5, 1.0, 2.0, 3]
    """

    base: float = 0.5
    cap: float | None = 8
    factor: float = 2
    strategy: Strategy = "exponential"
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        require("base_delay", self.base, self.base >= 0, "at least 0 seconds")
        require("factor", self.factor, self.factor >= 1, "at least 1")
        if self.cap is not None:
            require("max_delay", self.cap, self.cap >= 0, "at least 0 seconds, or None for no cap")
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"backoff={self.strategy!r} is unknown: use one of {', '.join(get_args(Strategy))}")
        if self.jitter not in get_args(Jitter):
            raise ValueError(f"jitter={self.jitter!r} is unknown: use one of {', '.join(get_args(Jitter))}")

    def wait(self, step: int, previous: float, draw: Callable[[], float]) -> float:
        """Return the wait before a retry.

        Args:
            step: 0 before the first retry.
            previous: Seconds of the wait before this one; 0 when there was none.
            draw: Gives a random number in [0, 1).

        Returns:
            Seconds, at least 0 and at most the cap.
        """
        cap = FOREVER if self.cap is None else self.cap
        if self.base == 0:
            return 0.0
        if self.strategy == "decorrelated":
            low = min(self.base, cap)
            high = max(low, min(cap, 3 * (previous or self.base)))
            return low + (high - low) * draw()
        nominal = min(cap, self._nominal(step))
        match self.jitter:
            case "full":
                return nominal * draw()
            case "equal":
                return nominal / 2 + nominal / 2 * draw()
            case "additive":
                added = min(1.0, cap)
                return min(nominal, cap - added) + added * draw()
            case _:
                return nominal

    def _nominal(self, step: int) -> float:
        if self.strategy == "constant":
            return self.base
        try:
            return self.base * float(self.factor) ** step
        except OverflowError:
            return FOREVER


def require(name: str, value: float, right: bool, expected: str) -> None:
    """Refuse a number that is not ``right``; ``expected`` says in words what would be.

    Raises:
        ValueError: It is not in its range or not finite.
        TypeError: It is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, {expected}, not {value!r}")
    if not right or value - value != 0:  # infinite and NaN differ from themselves
        raise ValueError(f"{name}={value!r} must be {expected}")


def drawer(rng: Any) -> Callable[[], float]:
    """Turn what a caller gave as ``rng=`` into a function that gives numbers in [0, 1).

    Raises:
        TypeError: It is neither.
    """
    method = getattr(rng, "random", rng)
    if not callable(method) and callable(getattr(rng, "uniform", None)):
        return lambda: rng.uniform(0.0, 1.0)
    if not callable(method):
        raise TypeError(f"rng must be a random.Random or a function that gives numbers in [0, 1), not {rng!r}")
    return method  # type: ignore[no-any-return]
