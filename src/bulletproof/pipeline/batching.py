"""Many small calls at the same time made into few large ones."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bulletproof.errors import InvalidModelOutputError, classify

SHARED = "_bulletproof_batch"
"""Attribute of an error that went to several callers: one object for each batch that failed."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Batcher(Generic[T, R]):
    """Collects what single callers hand in and works on it together.

    A batch of at most ``size`` begins when ``ready`` entries wait, at the latest ``linger`` seconds after the first,
    and not while ``parallel`` others are worked on; what comes meanwhile makes the next one larger.

    When a batch fails for good because of what is in it, its halves are tried by themselves, and theirs: one bad entry
    does not fail the others. An error that may pass goes to all callers, who try again when they want to.
    """

    work: Callable[[list[T]], Awaitable[Sequence[R]]]
    size: int = 64
    ready: int = 64
    linger: float = 0.002
    parallel: int = 1
    _waiting: list[tuple[T, asyncio.Future[R]]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timer: asyncio.TimerHandle | None = None

    async def submit(self, entry: T) -> R:
        """Have one entry worked on and return its result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        self._look()
        return await future

    async def aclose(self) -> None:
        """Break off what is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _look(self) -> None:
        """Begin a batch if that is worth it, or see to it that one begins in time."""
        if len(self._tasks) >= self.parallel or not self._waiting:
            return
        if len(self._waiting) >= min(self.ready, self.size):
            self._start()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.linger, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._tasks) < self.parallel:
            batch = [one for one in self._waiting[: self.size] if not one[1].done()]
            del self._waiting[: self.size]
            if batch:
                task = asyncio.create_task(self._run(batch))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._look()

    async def _run(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self.work([entry for entry, _ in batch])
            if len(results) != len(batch):
                raise InvalidModelOutputError(f"{len(batch)} results were due, and {len(results)} came")
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 -- raised by submit()
            if len(batch) > 1 and not classify(error).retryable:
                middle = len(batch) // 2
                await self._run(batch[:middle])
                await self._run(batch[middle:])
                return
            error.__dict__[SHARED] = object()
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
