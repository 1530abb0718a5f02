"""Places handed out first come, first served, to threads and to tasks of any event loop alike."""

import asyncio
from collections import deque
from threading import Event, RLock
from typing import Any, TypeVar

from bulletproof.errors import DeadlineExceededError, OverloadedError
from bulletproof.resilience.deadlines import remaining


class _Thread:
    """A thread that waits."""

    __slots__ = ("event", "granted")

    def __init__(self) -> None:
        self.event = Event()
        self.granted = False

    def wake(self) -> bool:
        self.event.set()
        return True


class _Task:
    """A task that waits."""

    __slots__ = ("future", "granted", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.granted = False

    def wake(self) -> bool:
        try:
            self.loop.call_soon_threadsafe(self._done)
        except RuntimeError:
            return False  # its loop was closed: nobody waits any more
        return True

    def _done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


W = TypeVar("W", _Thread, _Task)


class Slots:
    """So many places, and a bounded queue before them.

    Args:
        name: What they are for; named in errors.
        limit: Places.
        max_queued: Callers that may wait; any more are refused at once.
        max_wait: Seconds one may wait; None for as long as its deadline allows.
        retry_after: Seconds that a refused caller is told to wait.
    """

    __slots__ = ("_lock", "_queue", "limit", "max_queued", "max_wait", "name", "retry_after", "used")

    def __init__(self, name: str, limit: int, max_queued: int, max_wait: float | None, retry_after: float) -> None:
        self.name = name
        self.limit = limit
        self.max_queued = max_queued
        self.max_wait = max_wait
        self.retry_after = retry_after
        self.used = 0
        self._queue: deque[_Thread | _Task] = deque()
        self._lock = RLock()  # a waiting coroutine may be closed by the garbage collector at any allocation

    @property
    def queued(self) -> int:
        """Callers that wait."""
        return len(self._queue)

    def enter(self) -> None:
        """Take a place, waiting in this thread if need be.

        Raises:
            OverloadedError: The queue is full, or the wait was too long, or it would block an event loop.
            DeadlineExceededError: The caller's deadline came first.
        """
        waiter = self._take(_Thread)
        if waiter is None:
            return
        if asyncio._get_running_loop() is not None:  # noqa: SLF001
            self._abandon(waiter)
            raise OverloadedError(
                f"{self.name}: no place is free, and plain code must not wait for one in the thread of an event loop",
                hint="Use it with a coroutine function or `async with`, or call from another thread.",
                retry_after=self.retry_after,
            )
        allowed, last = self._patience()
        try:
            waiter.event.wait(allowed)
        except BaseException:  # such as KeyboardInterrupt
            self._abandon(waiter)
            raise
        if not self._in_time(waiter):
            raise self._too_late(last)

    async def enter_async(self) -> None:
        """Take a place, waiting in this task if need be; see ``enter``."""
        waiter = self._take(_Task)
        if waiter is None:
            return
        allowed, last = self._patience()
        try:
            async with asyncio.timeout(allowed):
                await waiter.future
        except TimeoutError as expiry:
            if not self._in_time(waiter):
                raise self._too_late(last) from expiry
        except BaseException:
            self._abandon(waiter)
            raise

    def leave(self, entry: Any = None, error: BaseException | None = None) -> None:  # noqa: ARG002 -- as a guard does
        """Give the place to whoever has waited longest, or free it."""
        with self._lock:
            self._pass_on()

    def resize(self, limit: int) -> None:
        """Change the number of places; those taken beyond it are not given out again."""
        with self._lock:
            self.limit = limit
            while self._queue and self.used < limit:
                self.used += 1
                self._pass_on()

    def _take(self, kind: type[W]) -> W | None:
        with self._lock:
            if self.used < self.limit and not self._queue:
                self.used += 1
                return None
            if len(self._queue) >= self.max_queued:
                raise OverloadedError(
                    f"{self.name}: all {self.limit} places and all {self.max_queued} places in the queue are taken",
                    retry_after=self.retry_after,
                )
            waiter = kind()
            self._queue.append(waiter)
            return waiter

    def _pass_on(self) -> None:
        while self._queue and self.used <= self.limit:
            waiter = self._queue.popleft()
            if waiter.wake():
                waiter.granted = True
                return
        self.used -= 1

    def _in_time(self, waiter: _Thread | _Task) -> bool:
        with self._lock:
            if not waiter.granted and waiter in self._queue:
                self._queue.remove(waiter)
            return waiter.granted

    def _abandon(self, waiter: _Thread | _Task) -> None:
        with self._lock:
            if waiter.granted:
                self._pass_on()
            elif waiter in self._queue:
                self._queue.remove(waiter)

    def _patience(self) -> tuple[float | None, bool]:
        left = remaining()
        if left is None or (self.max_wait is not None and self.max_wait < left):
            return self.max_wait, False
        return left, True

    def _too_late(self, last: bool) -> OverloadedError | DeadlineExceededError:
        if last:
            return DeadlineExceededError(f"{self.name}: the deadline came before a free place")
        return OverloadedError(
            f"{self.name}: no place became free within {self.max_wait:g} s", retry_after=self.retry_after
        )
