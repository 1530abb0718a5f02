"""A time limit for one call."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from bulletproof.errors import ServiceTimeoutError
from bulletproof.resilience.backoff import require
from bulletproof.resilience.deadlines import Clock, Limit, current, hand_down
from bulletproof.resilience.loop import Stack, protect

P = ParamSpec("P")
R = TypeVar("R")


class timeout:  # noqa: N801  # reads as a statement, like asyncio.timeout
    """Give one call, or one block, a time limit.

    A coroutine is interrupted when its time is over. Plain code cannot be interrupted from outside: it is told
    how much time it has through ``remaining()``, and what it calls in this package keeps to that. Our own expiry is
    an error of the service (``ServiceTimeoutError``, worth a retry); a cancellation from outside stays one.

    Args:
        seconds: Seconds allowed, above 0; None for no limit, which costs nothing.
        clock: Gives monotonic seconds; for what is told to plain code.

    Raises:
        ValueError: ``seconds`` is not above 0.

    Example:
        >>> import asyncio
        >>> from bulletproof.resilience import timeout
        >>> @timeout(0.01)
        ... async def ask():
        ...     await asyncio.sleep(3600)
        >>> asyncio.run(ask())
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.ServiceTimeoutError: ask did not answer within 0.01 s
    """

    __slots__ = ("_clock", "_scope", "_token", "seconds")

    def __init__(self, seconds: float | None, *, clock: Clock = time.monotonic) -> None:
        if seconds is not None:
            require("seconds", seconds, seconds > 0, "above 0 seconds, or None for no limit")
        self.seconds = seconds
        self._clock = clock
        self._token: Token[Limit | None] | None = None
        self._scope: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"timeout({self.seconds!r})"

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature."""
        if self.seconds is None:
            return fn
        return protect(Stack(attempt_timeout=self.seconds, interrupts=True, clock=self._clock), fn)

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function within the limit; await the result of a coroutine function."""
        return self(fn)(*args, **kwargs)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("this timeout is in use already: make one for each block")
        if self.seconds is not None:
            self._token = hand_down(self.seconds, self._clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            current.reset(token)

    async def __aenter__(self) -> Self:
        self.__enter__()
        if self.seconds is not None:
            self._scope = asyncio.timeout(self.seconds)
            await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
        scope, self._scope = self._scope, None
        if scope is not None:
            try:
                await scope.__aexit__(kind, error, trace)
            except TimeoutError as expiry:
                raise ServiceTimeoutError(f"no answer within {self.seconds:g} s") from expiry
