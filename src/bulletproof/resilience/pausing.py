"""Waiting, in threads and in tasks, and a way to leave it out in tests."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

Sleep = Callable[[float], Any]
"""Waits so many seconds; may be plain or give an awaitable."""

_recorders: tuple[list[float], ...] = ()
_lock = Lock()


@contextmanager
def no_waits() -> Iterator[list[float]]:
    """Leave out every wait of this process, for tests of code that retries.

    It holds for all threads and tasks, whatever ``sleep=`` they were given.

    Yields:
        The waits that were left out, in seconds, in order.

    Example:
        >>> from bulletproof.resilience import ai_api_retry, no_waits
        >>> @ai_api_retry(max_retries=3, base_delay=10)
        ... def ask():
        ...     raise ConnectionError("unplugged")
        >>> with no_waits() as waits:
        ...     ask()
        Traceback (most recent call last):
        ConnectionError: unplugged
        ...
        >>> [wait >= 10 for wait in waits]
        [True, True]
    """
    global _recorders
    waits: list[float] = []
    with _lock:
        _recorders = (*_recorders, waits)
    try:
        yield waits
    finally:
        with _lock:
            _recorders = tuple(recorder for recorder in _recorders if recorder is not waits)


def pause(seconds: float, sleep: Sleep | None = None) -> None:
    """Wait in a thread; with ``time.sleep`` by default.

    Raises:
        TypeError: ``sleep`` wants to wait on an event loop, which plain code has none of.
    """
    if _left_out(seconds):
        return
    if sleep is None or sleep is asyncio.sleep:
        time.sleep(seconds)
        return
    result = sleep(seconds)
    if inspect.isawaitable(result):
        _finish(result)


async def pause_async(seconds: float, sleep: Sleep | None = None) -> None:
    """Wait in a task, with ``asyncio.sleep`` by default; a cancellation ends it at once."""
    await (asyncio.sleep(0) if _left_out(seconds) else sleep_async(seconds, sleep))


async def sleep_async(seconds: float, sleep: Sleep | None = None) -> None:
    """Do as ``pause_async``, inside ``no_waits`` too."""
    if sleep is None or sleep is time.sleep:
        await asyncio.sleep(seconds)
    else:
        result = sleep(seconds)
        if inspect.isawaitable(result):
            await result


def _left_out(seconds: float) -> bool:
    recorders = _recorders
    for recorder in recorders:
        recorder.append(seconds)
    return bool(recorders)


def _finish(awaitable: Awaitable[Any]) -> None:
    # A fake clock's `async def sleep` never really waits, so one step ends it.
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration:
        return
    steps.close()
    raise TypeError("sleep= of a plain function must not wait on an event loop: give a plain sleep, such as time.sleep")
