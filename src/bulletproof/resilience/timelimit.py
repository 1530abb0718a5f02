"""A time limit for one call."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bulletproof.errors import ServiceTimeoutError
from bulletproof.resilience.deadlines import TimeBlock
from bulletproof.resilience.loop import Stack, protect

P = ParamSpec("P")
R = TypeVar("R")


class timeout(TimeBlock):  # noqa: N801  # reads as a statement, like asyncio.timeout
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

    __slots__ = ()

    def over(self) -> Exception:
        """Return the error that says that the time is over."""
        return ServiceTimeoutError(f"no answer within {self.seconds:g} s")

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature."""
        if self.seconds is None:
            return fn
        return protect(Stack(attempt_timeout=self.seconds, interrupts=True, clock=self._clock), fn)

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function within the limit; await the result of a coroutine function."""
        return self(fn)(*args, **kwargs)
