"""Try again what is worth trying again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, ParamSpec, TypeVar

from bulletproof.errors import AIError, classify
from bulletproof.resilience.attempts import RetryEvent, Wanted, check_wanted
from bulletproof.resilience.backoff import Backoff, Strategy, drawer, require
from bulletproof.resilience.budget import RetryBudget
from bulletproof.resilience.deadlines import Clock
from bulletproof.resilience.gate import Gate, utc_now
from bulletproof.resilience.loop import Stack, bind, protect
from bulletproof.resilience.pausing import Sleep

P = ParamSpec("P")
R = TypeVar("R")

Hook = Callable[[RetryEvent], Any]


@dataclass(frozen=True, repr=False)
class RetryPolicy:
    """Try a call again while that is worth it, waiting longer each time.

    A decorator for plain and coroutine functions, generators and async generators (these are tried again only
    before their first item). It keeps no state between calls, so one policy serves any number of functions,
    threads and tasks. The last error is raised as it is; the earlier ones stay reachable through ``__context__``,
    and its notes say how many tries there were and why no more.

    Args:
        max_attempts: Calls in all, the first one included.
        base_delay: Seconds of the first wait, before jitter.
        max_delay: Most seconds of a computed wait; None for no cap.
        factor: What each wait is longer than the one before.
        jitter: ``full``, ``equal``, ``additive``, ``none`` or ``decorrelated``; see ``Backoff``.
        deadline: Seconds for everything, waits included. A wait that would not end in time is not begun, and each
            try is told what is left.
        attempt_timeout: Seconds for each try. A coroutine is interrupted (``ServiceTimeoutError``); plain code
            cannot be, and finds its limit in ``remaining()``.
        retry_on: Which errors: a type, several, or a predicate. By default those ``classify`` calls retryable.
        budget: Share of calls that may be retrying at the same time.
        max_retry_after: Longest ``Retry-After`` in seconds that is waited for; beyond it there is no retry.
        backoff: ``exponential``, ``constant`` or ``decorrelated``.
        retry_on_result: Tells of a result that it is not wanted. The last result is returned when no tries are left.
        gate: What holds all callers of the service together when it says ``Retry-After``.
        on_retry: Called with a ``RetryEvent`` before each wait.
        on_giveup: Called with a ``RetryEvent`` when an error is raised, or an unwanted result returned, at last.
        clock: Gives monotonic seconds.
        now: Gives the UTC time, for a ``Retry-After`` that is a date.
        sleep: Waits so many seconds, plain or async.
        rng: A ``random.Random``, or a function that gives numbers in [0, 1).

    Raises:
        ValueError: A number or a word makes no sense.

    Example:
        >>> tries = iter([ConnectionError("unplugged"), ConnectionError("still"), "hello"])
        >>> @RetryPolicy(max_attempts=3, base_delay=0)
        ... def ask():
        ...     answer = next(tries)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> ask()
        'hello'
    """

    max_attempts: int = 3
    base_delay: float = 0.5
    max_delay: float | None = 8
    factor: float = 2
    jitter: Literal["full", "equal", "additive", "none", "decorrelated"] = "full"
    deadline: float | None = None
    attempt_timeout: float | None = None
    retry_on: Wanted | None = None
    budget: RetryBudget | None = None
    max_retry_after: float = 120
    backoff: Strategy = field(default="exponential", kw_only=True)
    retry_on_result: Callable[[Any], bool] | None = field(default=None, kw_only=True)
    gate: Gate | None = field(default=None, kw_only=True)
    on_retry: Hook | None = field(default=None, kw_only=True)
    on_giveup: Hook | None = field(default=None, kw_only=True)
    clock: Clock = field(default=time.monotonic, kw_only=True, repr=False)
    now: Callable[[], datetime] = field(default=utc_now, kw_only=True, repr=False)
    sleep: Sleep | None = field(default=None, kw_only=True, repr=False)
    rng: Any = field(default=random, kw_only=True, repr=False)
    waits: Backoff = field(init=False, repr=False, compare=False)
    draw: Callable[[], float] = field(init=False, repr=False, compare=False)
    stack: Stack = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise TypeError(f"max_attempts must be a whole number of at least 1, not {self.max_attempts!r}")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts={self.max_attempts} must be at least 1: the first call is one of them")
        for name, seconds in (("deadline", self.deadline), ("attempt_timeout", self.attempt_timeout)):
            if seconds is not None:
                require(name, seconds, seconds > 0, "above 0 seconds, or None for no limit")
        if self.max_retry_after != float("inf"):
            require("max_retry_after", self.max_retry_after, self.max_retry_after >= 0, "at least 0 seconds")
        if self.retry_on is not None:
            check_wanted("retry_on", self.retry_on)
        strategy, jitter = self.backoff, self.jitter
        if jitter == "decorrelated":
            strategy, jitter = "decorrelated", "full"
        keep = object.__setattr__
        keep(self, "waits", Backoff(self.base_delay, self.max_delay, self.factor, strategy, jitter))
        keep(self, "draw", drawer(self.rng))
        timed = self.deadline is not None or self.attempt_timeout is not None
        keep(self, "stack", Stack(self.deadline, self, self.gate, None, self.attempt_timeout, timed, self.clock))

    def __repr__(self) -> str:
        shown = [one for one in fields(self) if one.repr and getattr(self, one.name) != one.default]
        return f"RetryPolicy({', '.join(f'{one.name}={getattr(self, one.name)!r}' for one in shown)})"

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature, and a coroutine function stays one.

        Raises:
            TypeError: What is decorated is no function.
        """
        return protect(self.stack, fn)

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function, again if need be.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What it returned; to be awaited when it is a coroutine function.
        """
        result: R = bind(self.stack, fn)(*args, **kwargs)
        return result

    def replace(self, **changes: Any) -> "RetryPolicy":
        """Return a policy that differs in the arguments given."""
        return replace(self, **changes)

    @property
    def watches_every_call(self) -> bool:
        """Whether there is something to do even when a call succeeds at once."""
        return self.budget is not None or self.retry_on_result is not None


def ai_api_retry(
    max_retries: int = 3,
    base_delay: float = 1,
    *,
    sleep: Sleep | None = None,
    rng: Any = random,
    clock: Clock = time.monotonic,
    now: Callable[[], datetime] = utc_now,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Retry a call to an AI service on connection errors, timeouts and whatever is worth another try.

    The waits are ``base_delay * 2**i + U(0, 1)`` seconds, without a cap; a ``Retry-After`` of the service wins over
    them. With ``base_delay=0`` there is no wait at all.

    Args:
        max_retries: Calls in all, the first one included.
        base_delay: Seconds of the first wait.
        sleep: Waits so many seconds, plain or async.
        rng: A ``random.Random``, or a function that gives numbers in [0, 1).
        clock: Gives monotonic seconds.
        now: Gives the UTC time, for a ``Retry-After`` that is a date.

    Returns:
        The decorator.

    Raises:
        ValueError: ``max_retries`` is below 1, or ``base_delay`` below 0.

    Example:
        >>> @ai_api_retry(max_retries=3)
        ... def ask(prompt):
        ...     return f"answer to {prompt}"
        >>> ask("hello")
        'answer to hello'
    """
    if not isinstance(max_retries, int):
        raise TypeError(f"max_retries must be a whole number, not {max_retries!r}: write @ai_api_retry() with brackets")
    if max_retries < 1:
        raise ValueError(f"max_retries={max_retries} must be at least 1: the first call is one of them")
    return RetryPolicy(
        max_attempts=max_retries,
        base_delay=base_delay,
        max_delay=None,
        jitter="additive",
        retry_on=_api_error,
        sleep=sleep,
        rng=rng,
        clock=clock,
        now=now,
    )


def _api_error(error: Exception) -> bool:
    # An error of ours says itself whether it is worth a retry, even where it is a TimeoutError too.
    if isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, AIError):
        return True
    return classify(error).retryable
