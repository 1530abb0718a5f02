"""How much time is left, handed down from caller to callee through the context."""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from bulletproof.errors import DeadlineExceededError
from bulletproof.resilience.backoff import require

Clock = Callable[[], float]
"""Gives monotonic seconds."""


Limit = tuple[float, Clock]
"""A moment on a clock at which the time is over."""

current: ContextVar[Limit | None] = ContextVar("bulletproof_deadline", default=None)
"""The nearest deadline of the running call."""


def remaining() -> float | None:
    """Return the seconds left to the running call.

    Returns:
        Seconds, 0 when the time is over; None when there is no deadline.

    Example:
        >>> from bulletproof.resilience import deadline, remaining
        >>> with deadline(5, clock=lambda: 100.0):
        ...     remaining()
        5.0
    """
    limit = current.get()
    return None if limit is None else max(0.0, limit[0] - limit[1]())


def check_deadline() -> None:
    """Stop when the time is over; for loops of plain code, which nothing can interrupt.

    Raises:
        DeadlineExceededError: It is over.
    """
    if remaining() == 0:
        raise DeadlineExceededError("the time allowed for this work is over")


def hand_down(seconds: float, clock: Clock) -> Token[Limit | None]:
    """Set the deadline of everything called from here, never later than the one that holds; returns how to reset it.

    Raises:
        DeadlineExceededError: The time is over already.
    """
    outer = current.get()
    if outer is not None:
        left = outer[0] - outer[1]()
        if left <= 0:
            raise DeadlineExceededError("the time allowed for this work is over")
        if left <= seconds:
            return current.set(outer)
    return current.set((clock() + seconds, clock))


class TimeBlock:
    """A block of code with a time limit: what ``deadline`` and ``timeout`` share.

    Args:
        seconds: Seconds allowed, above 0; None for no limit.
        clock: Gives monotonic seconds.

    Raises:
        ValueError: ``seconds`` is not above 0.
    """

    __slots__ = ("_clock", "_scope", "_token", "seconds")

    def __init__(self, seconds: float | None, *, clock: Clock = time.monotonic) -> None:
        if seconds is not None:
            require("seconds", seconds, seconds > 0, "above 0 seconds")
        self.seconds = seconds
        self._clock = clock
        self._token: Token[Limit | None] | None = None
        self._scope: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.seconds!r})"

    def over(self) -> Exception:
        """Return the error that says that the time is over."""
        return DeadlineExceededError(f"the {self.seconds:g} s allowed for this work are over")

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError(f"this {type(self).__name__} is in use already: make one for each block")
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
            self._scope = asyncio.timeout(remaining())
            await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
        scope, self._scope = self._scope, None
        if scope is None:
            return
        try:
            await scope.__aexit__(kind, error, trace)
        except TimeoutError as expiry:
            raise self.over() from expiry


class deadline(TimeBlock):  # noqa: N801  # reads as a statement
    """Allow a block of code so much time in all, and everything called in it.

    ``async with`` interrupts the block when the time is over. ``with`` cannot interrupt: what is called in it asks
    ``remaining()`` or ``check_deadline()``, as every primitive of this package does. A deadline inside another one
    never allows more than the outer one has left.

    Args:
        seconds: Seconds allowed, above 0; None for no deadline of its own.
        clock: Gives monotonic seconds.

    Raises:
        ValueError: ``seconds`` is not above 0.
        DeadlineExceededError: From ``async with``, when the time is over; from either, when it was over before.

    Example:
        >>> from bulletproof.resilience import deadline, remaining
        >>> with deadline(30), deadline(60):
        ...     remaining() <= 30
        True
    """

    __slots__ = ()
