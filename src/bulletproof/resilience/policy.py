"""Any stack of the primitives in one object, in the right order."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from bulletproof.resilience.adaptive_limit import AdaptiveLimit
from bulletproof.resilience.backoff import require
from bulletproof.resilience.breaker import AIServiceCircuitBreaker
from bulletproof.resilience.bulkhead import Bulkhead
from bulletproof.resilience.deadlines import Clock
from bulletproof.resilience.fallback import Fallback
from bulletproof.resilience.gate import Gate
from bulletproof.resilience.hedge import Hedge
from bulletproof.resilience.loop import Stack, bind, protect
from bulletproof.resilience.rate_limit import RateLimit
from bulletproof.resilience.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")

_WHY = {
    "fallback": "takes the next way when all that follows has failed",
    "deadline": "{0:g} s for everything that follows, queues and waits included",
    "bulkhead": "a place is held for the whole call, its waits between tries included",
    "retry": "each try goes through everything that follows; stops at once when the circuit is open",
    "gate": "each try waits while the service has asked everybody to wait",
    "rate_limit": "each try takes a token; waiting for it is not counted as slowness of the service",
    "adaptive_limit": "each try takes a place, and its time tells how many the service bears",
    "breaker": "each try is admitted and counted, a timeout as a failure",
    "timeout": "{0:g} s for each try, at most what is left of the deadline",
    "hedge": "a late try is made a second time; to the breaker both are one",
}


@dataclass(frozen=True, repr=False)
class Policy:
    """A stack of primitives around a call: one object, one decorator, one order.

    Whatever is given stands, from the outside in, in the order of the arguments: fallback, deadline, bulkhead, retry,
    gate, rate limit, adaptive limit, breaker, timeout, hedge. ``describe()`` says what each does there, and why.
    Deadline, retry, gate, breaker and timeout are fused into one frame. A decorator, and ``call``, for plain and
    coroutine functions, generators and async generators.

    Args:
        fallback: Other ways to an answer, or one function that gives it.
        deadline: Seconds for everything; ``retry.deadline`` holds too, the shorter one wins.
        bulkhead: Bounds the calls under way.
        retry: Tries again.
        gate: Holds all callers of the service together.
        rate_limit: Bounds the tries per second.
        adaptive_limit: Bounds the tries at the same time by what the service bears.
        breaker: Stops calling a service that keeps failing.
        timeout: Seconds for each try; ``retry.attempt_timeout`` holds too, the shorter one wins.
        hedge: Makes late tries twice.
        name: For people; shown by ``repr`` and ``describe``.
        clock: Gives monotonic seconds.

    Raises:
        ValueError: A time is not above 0.
        TypeError: An argument is not of the kind that its name says.

    Example:
        >>> policy = Policy(deadline=30, retry=RetryPolicy(max_attempts=4), timeout=10, name="chat")
        >>> @policy
        ... def ask(prompt: str) -> str:
        ...     return f"answer to {prompt}"
        >>> ask("why")
        'answer to why'
        >>> print(policy.describe())
        chat, from the outside in:
        1. deadline: 30 s for everything that follows, queues and waits included
        2. retry RetryPolicy(max_attempts=4): each try goes through everything that follows; ...
        3. timeout: 10 s for each try, at most what is left of the deadline
    """

    fallback: Fallback | Callable[..., Any] | None = field(default=None, kw_only=True)
    deadline: float | None = field(default=None, kw_only=True)
    bulkhead: Bulkhead | None = field(default=None, kw_only=True)
    retry: RetryPolicy | None = field(default=None, kw_only=True)
    gate: Gate | None = field(default=None, kw_only=True)
    rate_limit: RateLimit | None = field(default=None, kw_only=True)
    adaptive_limit: AdaptiveLimit | None = field(default=None, kw_only=True)
    breaker: AIServiceCircuitBreaker | None = field(default=None, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    hedge: Hedge | None = field(default=None, kw_only=True)
    name: str = field(default="policy", kw_only=True)
    clock: Clock = field(default=time.monotonic, kw_only=True, repr=False)
    _core: Stack = field(init=False, repr=False, compare=False)
    _fused: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kinds = {
            "fallback": Fallback, "bulkhead": Bulkhead, "retry": RetryPolicy, "gate": Gate, "rate_limit": RateLimit,
            "adaptive_limit": AdaptiveLimit, "breaker": AIServiceCircuitBreaker, "hedge": Hedge,
        }  # fmt: skip
        if callable(self.fallback) and not isinstance(self.fallback, Fallback):
            object.__setattr__(self, "fallback", Fallback(self.fallback))
        for name, kind in kinds.items():
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {given!r:.80}")
        for name, seconds in (("deadline", self.deadline), ("timeout", self.timeout)):
            if seconds is not None:
                require(name, seconds, seconds > 0, "above 0 seconds, or None for no limit")
        retry = self.retry
        if retry is not None and self.gate is not None and retry.gate is not self.gate:
            retry = replace(retry, gate=self.gate)
        deadline, timeout, gate = self.deadline, self.timeout, self.gate
        if retry is not None:
            deadline = _shorter(deadline, retry.deadline)
            timeout = _shorter(timeout, retry.attempt_timeout)
            gate = retry.gate
        timed = deadline is not None or timeout is not None
        core = Stack(deadline, retry, gate, self.breaker, timeout, timed, self.clock)
        others = (self.fallback, self.bulkhead, self.rate_limit, self.adaptive_limit, self.hedge)
        object.__setattr__(self, "_core", core)
        object.__setattr__(self, "_fused", all(other is None for other in others))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given())
        return f"Policy({given}, name={self.name!r})" if given else f"Policy(name={self.name!r})"

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature, and a coroutine function stays one.

        Raises:
            TypeError: What is decorated is no function.
        """
        if self._fused:
            return protect(self._core, fn)
        return self._composed(fn)

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function through the stack.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What it returned; to be awaited when it is a coroutine function.
        """
        wrapper = bind(self._core, fn) if self._fused else self._composed(fn)
        result: R = wrapper(*args, **kwargs)
        return result

    def replace(self, **changes: Any) -> "Policy":
        """Return a policy that differs in the arguments given."""
        return replace(self, **changes)

    def describe(self) -> str:
        """Say in words what stands around a call, from the outside in."""
        lines = [f"{self.name}, from the outside in:"]
        for number, (name, value) in enumerate(self._given(), start=1):
            what = name if isinstance(value, int | float) else f"{name} {value!r}"
            lines.append(f"{number}. {what}: {_WHY[name].format(value)}")
        return "\n".join(lines) if len(lines) > 1 else f"{self.name}: nothing stands around the call"

    def _given(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _WHY if getattr(self, name) is not None]

    def _composed(self, fn: Callable[P, R]) -> Callable[P, R]:
        core = self._core
        inner: Callable[P, R] = fn if self.hedge is None else self.hedge(fn)
        if self.rate_limit is not None or self.adaptive_limit is not None:
            # These stand between retry and breaker, which therefore cannot share a frame.
            inner = protect(
                Stack(
                    breaker=core.breaker,
                    attempt_timeout=core.attempt_timeout,
                    interrupts=core.interrupts,
                    clock=core.clock,
                ),
                inner,
            )
            inner = inner if self.adaptive_limit is None else self.adaptive_limit(inner)
            inner = inner if self.rate_limit is None else self.rate_limit(inner)
            core = replace(core, breaker=None, attempt_timeout=None, interrupts=False)
        deadline = core.deadline
        if self.bulkhead is not None:
            inner = self.bulkhead(protect(replace(core, deadline=None), inner))
            core = Stack(deadline, clock=core.clock)
        inner = protect(core, inner)
        return inner if self.fallback is None else self.fallback(inner)


def _shorter(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
