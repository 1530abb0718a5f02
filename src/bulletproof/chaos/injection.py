"""Putting the faults of a plan into calls."""

import asyncio
import functools
import inspect
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, overload

from bulletproof.chaos.plan import Plan, Rule
from bulletproof.errors import ServiceTimeoutError

F = TypeVar("F", bound=Callable[..., Any])
Sleep = Callable[[float], Any]


class Chaos:
    """Strikes calls as a plan says, and counts what it did. It serves threads and tasks alike.

    Chance is drawn for each rule and each call of a stage by itself, from the seed: whichever tasks run beside each
    other, the seventh call of a stage always meets the same faults.

    Args:
        plan: What goes wrong; without rules, nothing is touched and nothing is paid.
        clock: Monotonic seconds.
        sleep: What waits, sync or async; ``time.sleep`` and ``asyncio.sleep`` by default.
        rng: Draws in place of the plan's seed.

    Attributes:
        active: Set it to False and back at any time to stop and go on.

    Example:
        >>> from bulletproof.chaos import Chaos, Plan, Rule
        >>> chaos = Chaos(Plan([Rule("llm", error="rate_limited", calls=(2, 2))]))
        >>> @chaos.wrap(stage="llm")
        ... def ask(prompt):
        ...     return prompt.upper()
        >>> ask("hello")
        'HELLO'
        >>> ask("again")
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.RateLimitedError: llm fails because the chaos plan says so
        >>> chaos.report()["faults"]
        {'llm': {'error': 1}}
    """

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.plan = plan
        self.active = bool(plan.rules)
        self._clock, self._sleep, self._rng = clock, sleep, rng
        self._began = clock()
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._faults: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @overload
    def wrap(self, fn: F, *, stage: str) -> F: ...
    @overload
    def wrap(self, fn: None = None, *, stage: str) -> Callable[[F], F]: ...
    def wrap(self, fn: Any = None, *, stage: str) -> Any:
        """Have a function struck; also a decorator. What no rule is about is returned as it is.

        Args:
            fn: A plain or a coroutine function.
            stage: What rules call it.

        Raises:
            TypeError: It is a generator function, whose faults lie between its items: use ``point`` in there.
        """
        if fn is None:
            return functools.partial(self.wrap, stage=stage)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn.__qualname__} makes a generator; use chaos.point({stage!r}) inside")
        if not self._rules(stage):
            return fn
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with _Point(self._due(stage), self._sleep, stage) as point:
                    return point.spoil(await fn(*args, **kwargs))

            return awaited

        @functools.wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:
            with _Point(self._due(stage), self._sleep, stage) as point:
                return point.spoil(fn(*args, **kwargs))

        return called

    def point(self, stage: str) -> "_Point":
        """Return a place where a stage may be struck: ``with`` or ``async with``, at its beginning.

        There is no result to spoil here: rules with ``garbage`` do nothing.
        """
        return _Point(self._due(stage), self._sleep, stage) if self.active else _NOWHERE

    def report(self) -> dict[str, Any]:
        """Return ``seed``, ``active``, the ``calls`` of each stage, and its ``faults`` by kind."""
        with self._lock:
            faults = {stage: dict(found) for stage, found in self._faults.items()}
            return {"seed": self.plan.seed, "active": self.active, "calls": dict(self._calls), "faults": faults}

    def _rules(self, stage: str) -> list[tuple[int, Rule]]:
        return [(number, rule) for number, rule in enumerate(self.plan.rules) if rule.concerns(stage)]

    def _due(self, stage: str) -> Iterator[tuple[Rule, random.Random]]:
        """Count a call, and yield the rules that strike it."""
        if not self.active or not (rules := self._rules(stage)):
            return
        with self._lock:
            self._calls[stage] += 1
            call = self._calls[stage]
        now = self._clock() - self._began
        for number, rule in rules:
            rng = self._rng or random.Random(f"{self.plan.seed} {number} {stage} {call}")  # noqa: S311  # nosec B311
            in_calls = rule.calls is None or rule.calls[0] <= call <= rule.calls[1]
            in_time = rule.seconds is None or rule.seconds[0] <= now < rule.seconds[1]
            if in_calls and in_time and (rule.probability == 1 or rng.random() < rule.probability):
                with self._lock:
                    self._faults[stage][rule.kind] += 1
                yield rule, rng


class _Point:
    """One call of a stage: struck when it is entered; holds memory until it is left."""

    __slots__ = ("_due", "_garbage", "_held", "_sleep", "_stage")

    def __init__(self, due: Iterable[tuple[Rule, random.Random]], sleep: Sleep | None, stage: str) -> None:
        self._due, self._sleep, self._stage = due, sleep, stage
        self._garbage: list[Any] = []
        self._held: list[bytearray] = []

    def __enter__(self) -> "_Point":
        for seconds in self._strike():
            (self._sleep or time.sleep)(seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()

    async def __aenter__(self) -> "_Point":
        for seconds in self._strike():
            waiting = (self._sleep or asyncio.sleep)(seconds)
            if inspect.isawaitable(waiting):
                await waiting
        return self

    async def __aexit__(self, *_: object) -> None:
        self._held.clear()

    def spoil(self, result: Any) -> Any:
        for garbage in self._garbage:
            result = garbage(result) if callable(garbage) else garbage
        return result

    def _strike(self) -> Iterator[float]:
        """Do what the rules say; yields the seconds to wait."""
        for rule, rng in self._due:
            if isinstance(rule.latency, tuple):
                yield rng.uniform(*rule.latency)
            elif rule.hang is not None:
                yield rule.hang
                raise ServiceTimeoutError(f"{self._stage} hung for {rule.hang:g} s because the chaos plan says so")
            elif rule.error is not None:
                raise rule.make_error(self._stage)
            elif rule.memory is not None:
                self._held.append(bytearray(b"\1") * rule.memory)  # written, so that it is really taken
            else:
                self._garbage.append(rule.garbage)


_NOWHERE = _Point((), None, "")
