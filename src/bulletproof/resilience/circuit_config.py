"""What can be set on a circuit breaker, checked at once."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, get_args

Mode = Literal["window", "consecutive", "rate"]
WindowType = Literal["time", "count"]

_DEFAULT_MINIMUM = 10
_LONGEST_OPEN = 86_400.0


@dataclass(frozen=True, slots=True)
class CircuitConfig:
    """When a circuit opens, how long it stays open, and what closes it again.

    Args:
        failure_threshold: Failures that open it: inside ``monitor_window``, or in a row with ``mode="consecutive"``.
        success_threshold: Successful probes that close it again.
        timeout: Seconds it stays open before a probe is admitted.
        monitor_window: Seconds that a failure counts; the length of the window when ``window_type`` is ``"time"``.
        mode: ``"window"`` counts failures in a time window, ``"consecutive"`` failures in a row, ``"rate"`` the share
            of calls that fail.
        failure_rate_threshold: Share of failed calls, in (0, 1], that opens it; only with ``mode="rate"``.
        slow_call_duration: Seconds from which a call is slow. None: slowness is not watched. In every mode.
        slow_call_rate_threshold: Share of slow calls, in (0, 1], that opens it.
        minimum_calls: Calls in the window below which no rate is known. None: 10, or the size of a smaller window.
        window_type: What rates look back on: ``"time"`` over ``monitor_window``, ``"count"`` over ``window_size``.
        window_size: Calls that a count window holds.
        half_open_max_calls: Probes that may run at the same time.
        half_open_timeout: Seconds after which a probe that has not ended loses its place and its say. None: the longer
            of ``timeout`` and ``monitor_window``.
        timeout_factor: What the open time is multiplied with each time a probe fails; 1 or more.
        max_timeout: Longest open time in seconds, growth and ``Retry-After`` included. None: a day.
        is_failure: Judges an exception: True counts as failure, False as success, None as neither. None: the verdict
            of ``bulletproof.errors.classify``.
        is_failure_result: Judges a returned value: True counts as failure (the caller gets the value all the same).

    Raises:
        ValueError: A value makes no sense; says which and why.

    Example:
        >>> CircuitConfig(failure_threshold=3, timeout=30).timeout
        30
        >>> CircuitConfig(failure_threshold=0)
        Traceback (most recent call last):
        ...
        ValueError: failure_threshold must be a whole number of at least 1, not 0
    """

    failure_threshold: int = 5
    success_threshold: int = 3
    timeout: float = 60
    monitor_window: float = 300
    _: KW_ONLY
    mode: Mode = "window"
    failure_rate_threshold: float = 0.5
    slow_call_duration: float | None = None
    slow_call_rate_threshold: float = 1.0
    minimum_calls: int | None = None
    window_type: WindowType = "time"
    window_size: int = 100
    half_open_max_calls: int = 1
    half_open_timeout: float | None = None
    timeout_factor: float = 1.0
    max_timeout: float | None = None
    is_failure: Callable[[BaseException], bool | None] | None = None
    is_failure_result: Callable[[Any], bool] | None = None
    rated: bool = field(init=False, repr=False, compare=False, default=False)
    plain: bool = field(init=False, repr=False, compare=False, default=True)

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, values in (("mode", get_args(Mode)), ("window_type", get_args(WindowType))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        for name in ("is_failure", "is_failure_result"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function or None, not {getattr(self, name)!r}")
        if self.max_timeout is not None and self.max_timeout < self.timeout:
            raise ValueError(f"max_timeout must not be below timeout ({self.timeout}), not {self.max_timeout}")
        if self.minimum_calls is not None and self.window_type == "count" and self.minimum_calls > self.window_size:
            raise ValueError(
                f"minimum_calls must not be above window_size ({self.window_size}), or no rate is ever known, "
                f"not {self.minimum_calls}"
            )
        rated = self.mode == "rate" or self.slow_call_duration is not None
        object.__setattr__(self, "rated", rated)
        object.__setattr__(self, "plain", not rated and self.is_failure_result is None)

    def _check_numbers(self) -> None:
        for name in ("failure_threshold", "success_threshold", "window_size", "half_open_max_calls", "minimum_calls"):
            if name != "minimum_calls" or self.minimum_calls is not None:
                _check_count(name, getattr(self, name))
        _check_seconds("timeout", self.timeout, zero=True)
        _check_seconds("monitor_window", self.monitor_window)
        for name in ("slow_call_duration", "half_open_timeout", "max_timeout"):
            if getattr(self, name) is not None:
                _check_seconds(name, getattr(self, name))
        for name in ("failure_rate_threshold", "slow_call_rate_threshold"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value <= 1:
                raise ValueError(f"{name} must be a share above 0 and at most 1, not {value!r}")
        if not _is_number(self.timeout_factor) or not 1 <= self.timeout_factor < math.inf:
            raise ValueError(f"timeout_factor must be a finite number of 1 or more, not {self.timeout_factor!r}")

    @property
    def least_calls(self) -> int:
        """Calls below which no rate is known."""
        if self.minimum_calls is not None:
            return self.minimum_calls
        return min(_DEFAULT_MINIMUM, self.window_size) if self.window_type == "count" else _DEFAULT_MINIMUM

    @property
    def longest_open(self) -> float:
        """The longest time, in seconds, that the circuit is ever open without a probe."""
        return self.max_timeout if self.max_timeout is not None else max(self.timeout, _LONGEST_OPEN)

    @property
    def longest_probe(self) -> float:
        """Seconds after which a probe is taken for hung."""
        return self.half_open_timeout if self.half_open_timeout is not None else max(self.timeout, self.monitor_window)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def _check_seconds(name: str, value: Any, *, zero: bool = False) -> None:
    if not _is_number(value) or not (0 <= value < math.inf if zero else 0 < value < math.inf):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} must be a finite number of seconds, {least}, not {value!r}")
