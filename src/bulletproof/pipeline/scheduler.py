"""Runs what the queue hands out: so much at the same time, woken by events and never by looking again and again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from bulletproof.pipeline.batch import Batch
from bulletproof.pipeline.items import ProcessingItem
from bulletproof.pipeline.queue import Kind, WorkQueue
from bulletproof.resilience.pausing import Sleep, pause_async

OnDone = Callable[[ProcessingItem], Awaitable[Any]]
_BREATH = 64  # items taken in before others on the event loop get their turn


class Wait(NamedTuple):
    """What becomes of an item that is not done: it waits in a lane until it is due; so much is kept for it."""

    lane: str
    kind: Kind
    due: float = 0.0
    size: int = 0


def raised_inside(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Tell whether what a task runs raised this of itself, and not somebody who ends the task or the process."""
    if isinstance(error, asyncio.CancelledError):
        return task is not None and not task.cancelling()
    if isinstance(error, GeneratorExit):  # also thrown into a coroutine that is thrown away, from outside of its task
        try:
            return task is not None and asyncio.current_task() is task
        except RuntimeError:  # no loop runs any more
            return False
    return not isinstance(error, KeyboardInterrupt | SystemExit)


@dataclass(slots=True, eq=False)
class _Job:
    """One call of ``Scheduler.process``."""

    batch: Batch
    on_done: OnDone | None
    over: asyncio.Future[None]
    room: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    live: int = 0
    fed: bool = False

    def settle(self, error: BaseException | None = None) -> None:
        if self.over.done():
            return
        if error is not None:
            if not isinstance(error, Exception) or isinstance(error, StopIteration):
                # No future takes the one, and the others would look as if somebody had ended the caller.
                error, cause = RuntimeError(f"the source of items or on_done raised {type(error).__name__}"), error
                error.__cause__ = cause
            self.over.set_exception(error)
        elif self.fed and not self.live:
            self.over.set_result(None)


_WAITING = 6  # times as many as may run


@dataclass(slots=True, eq=False)
class _Work:
    job: _Job
    item: ProcessingItem
    lane: str | None = None  # where it holds a place
    size: int = 0
    waits: bool = False  # for work that is done for many together, and takes no place of those that run


@dataclass(kw_only=True, slots=True, eq=False)
class Scheduler:
    """Takes items from any number of sources through ``run``, over and over until each is done.

    ``run`` takes an item as far as it gets now, and a function that gives back its place in its lane early, and its
    place among those that run if it is told that only waiting is left; ``admit`` prepares a new one. Both return where
    it waits, or None when it is done. When more than ``max_kept`` is kept for
    items that wait, only ``LATER`` work is started.
    """

    run: Callable[[Batch, ProcessingItem, Callable[[bool], None]], Awaitable[Wait | None]]
    admit: Callable[[Batch, ProcessingItem], Wait | None]
    queue: WorkQueue[Any]
    limit: Callable[[], int]
    max_kept: int
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep | None = None
    running: int = 0
    waiting: int = 0
    _kept: int = 0
    _jobs: set[_Job] = field(default_factory=set)
    _timer: tuple[float, asyncio.Task[None]] | None = None
    _floor: float = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._jobs)

    def now(self) -> float:
        """Return the time: never before a moment that was waited for, however the waiting was done."""
        return max(self.clock(), self._floor)

    async def process(
        self,
        source: AsyncIterator[ProcessingItem],
        batch: Batch,
        *,
        on_done: OnDone | None = None,
        max_pending: int = 10_000,
    ) -> None:
        """Take every item of a source to its end; one is only asked for when fewer than ``max_pending`` are held.

        What the source or ``on_done``, which is awaited with each item that is done, raises is raised here; what was
        under way is then broken off.
        """
        job = _Job(batch, on_done, asyncio.get_running_loop().create_future())
        self._jobs.add(job)
        feeder = asyncio.create_task(self._feed(job, source, max_pending))
        try:
            await job.over
        finally:
            self._jobs.discard(job)
            self.queue.discard(partial(self._drop, job), self.now())
            tasks = {feeder, *job.tasks}
            if not self._jobs and self._timer is not None:
                tasks.add(self._timer[1])
                self._timer = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not self._jobs:
                self.queue.clear()

    def pump(self) -> None:
        """Start what may be started, and see to it that the next one that is due is not forgotten."""
        now = self.now()
        while self.running < self.limit():
            entry = self.queue.pop(now, later_only=self._kept > self.max_kept)
            if entry is None:
                break
            work: _Work = entry.item
            self._kept -= work.size
            work.lane, work.size, work.waits = entry.lane, 0, False
            self.running += 1
            task = asyncio.create_task(self._work(work))
            work.job.tasks.add(task)
            task.add_done_callback(work.job.tasks.discard)
        self._set_timer(now)

    async def _feed(self, job: _Job, source: AsyncIterator[ProcessingItem], max_pending: int) -> None:
        number = 0
        task = asyncio.current_task()
        try:
            async for item in source:
                while job.live >= max_pending:
                    job.room.clear()
                    await job.room.wait()
                job.live += 1
                wait = self.admit(job.batch, item)
                if wait is None:
                    await self._end(job, item)
                else:
                    self._put(_Work(job, item), wait)
                number += 1
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
        except BaseException as error:
            if not raised_inside(error, task):
                raise
            job.settle(error)  # raised by process()
        else:
            job.fed = True
            job.settle()

    async def _work(self, work: _Work) -> None:
        job = work.job
        task = asyncio.current_task()
        try:
            wait = await self.run(job.batch, work.item, partial(self._release, work))
            self._leave(work)
            if wait is not None and job in self._jobs:
                self._put(work, wait, pump=False)
            elif wait is not None:
                return
            else:
                await self._end(job, work.item)
        except BaseException as error:
            if not raised_inside(error, task):
                raise
            job.settle(error)  # raised by process()
        finally:
            self.running -= not work.waits
            self.waiting -= work.waits
            self._leave(work)
            if self._jobs:
                self.pump()

    async def _end(self, job: _Job, item: ProcessingItem) -> None:
        if job.on_done is not None:
            await job.on_done(item)
        job.live -= 1
        job.room.set()
        job.settle()

    def _drop(self, job: _Job, work: _Work) -> bool:
        if work.job is not job:
            return False
        self._kept -= work.size
        return True

    def _put(self, work: _Work, wait: Wait, *, pump: bool = True) -> None:
        priority, work.size = work.item.priority, wait.size
        self._kept += wait.size
        self.queue.put(work, wait.lane, now=self.now(), kind=wait.kind, due=wait.due, priority=priority)
        if pump:
            self.pump()

    def _leave(self, work: _Work) -> None:
        lane, work.lane = work.lane, None
        if lane is not None:
            self.queue.leave(lane, self.now())

    def _release(self, work: _Work, waits: bool) -> None:
        held = work.lane is not None
        self._leave(work)
        if waits and not work.waits and self.waiting < _WAITING * self.limit():
            work.waits = held = True
            self.running -= 1
            self.waiting += 1
        if held:
            self.pump()

    def _set_timer(self, now: float) -> None:
        when = self.queue.wakes_at()
        if when is None or self.running >= self.limit() or (self._timer is not None and self._timer[0] <= when):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (when, asyncio.create_task(self._wake(when, max(0.0, when - now))))

    async def _wake(self, when: float, seconds: float) -> None:
        await pause_async(seconds, self.sleep)
        self._floor = max(self._floor, when)
        self._timer = None
        self.pump()
