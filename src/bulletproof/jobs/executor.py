"""Takes jobs off their queues in this process, for as long as it holds a lease."""

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from bulletproof.errors import ConfigurationError, classify
from bulletproof.jobs.lease import Leases, take_slot
from bulletproof.jobs.system import WORKFLOW, JobTables
from bulletproof.resilience import Backoff

if TYPE_CHECKING:
    from dbos import DBOS

Handler = Callable[..., Awaitable[None]]
"""Does a job, whatever part of it was done before; an exception means that it has to be tried again."""

TICK_SECONDS = 5.0
_STOP_SECONDS = 20.0
_LOST_SECONDS = 5.0
_SWEEPER = "sweep"
_BACKOFF = Backoff(base=1, cap=60, jitter="equal")
_log = logging.getLogger("bulletproof.jobs")
_current: "Executor | None" = None


class Executor:
    """Runs the jobs of some queues, and takes up those of executors that died.

    Its id is a slot that no living process shares. What a dead process had under way is found by its id once its
    slot is free, and put back into the queues; a process that is only slow has its slot still. DBOS allows one a
    process.

    Args:
        tables: The tables of the engine.
        leases: The locks.
        handlers: What does a job, for each kind.
        queues: For each queue, how many of its jobs run here at the same time, and the seconds between two looks into
            it. Without any, nothing is run but for the dead.
        sweep: Called now and then by one executor of all.
        tick: Seconds between two looks around.
        pause: Waits so many seconds.
        rng: Randomness of the waits.
    """

    def __init__(
        self,
        tables: JobTables,
        leases: Leases,
        handlers: Mapping[str, Handler],
        *,
        queues: Mapping[str, tuple[int, float]],
        sweep: Callable[[], Awaitable[None]],
        tick: float = TICK_SECONDS,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._tables, self._leases, self._handlers, self._queues = tables, leases, handlers, queues
        self._sweep, self._tick, self._pause = sweep, tick, pause
        self._rng = rng if rng is not None else random.Random()  # noqa: S311
        self._running: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[str, float] = {}
        self._serving: asyncio.Task[None] | None = None
        self._started, self._stopping = asyncio.Event(), asyncio.Event()
        self._idle = asyncio.Event()
        self._open = False
        self._drain_seconds = 0.0
        self._engine: DBOS | None = None
        self.id: str | None = None

    async def start(self) -> None:
        """Begin to serve; returns at once, whether or not the database can be used yet.

        Raises:
            ConfigurationError: There is one in this process already.
        """
        global _current
        if _current is not None:
            raise ConfigurationError("jobs are run by this process already")
        _current = self
        self.loop = asyncio.get_running_loop()
        self._serving = asyncio.create_task(self._serve(), name="bulletproof jobs")

    async def ready(self) -> None:
        """Wait until jobs are taken."""
        await self._started.wait()

    async def aclose(self, drain_seconds: float) -> None:
        """Take no more jobs, give those under way some time, and hand back what is not done.

        Args:
            drain_seconds: Seconds for those under way.
        """
        global _current
        self._drain_seconds = drain_seconds
        self._stopping.set()
        try:
            if self._serving is not None:
                await asyncio.wait((self._serving,), timeout=drain_seconds + _STOP_SECONDS)
                self._serving.cancel()
                await asyncio.gather(self._serving, return_exceptions=True)
        finally:
            if _current is self:
                _current = None

    @property
    def taking(self) -> bool:
        """Whether jobs are to be done here; jobs under way ask it between their parts."""
        return self._open and not self._stopping.is_set()

    async def work(self, job_id: str, kind: str, args: tuple[Any, ...]) -> None:
        """Do a job; does not return before it is done, nor when it is to be handed back."""
        task = asyncio.current_task()
        if self.taking and task is not None:
            self._running[job_id] = task
            try:
                await self._persist(lambda: self._handlers[kind](*args), f"job {job_id}", logging.WARNING)
            finally:
                self._running.pop(job_id, None)
                if not self._running:
                    self._idle.set()
            if self.taking:
                return
        await asyncio.Event().wait()  # until the engine is stopped, which leaves the job as it is: under way

    async def _persist(self, work: Callable[[], Awaitable[None]], name: str, level: int) -> None:
        """Do something until it succeeds: no failure of ours may end a job that is not done."""
        failures = 0
        while not self._stopping.is_set():
            try:
                return await work()
            except Exception as error:  # noqa: BLE001 -- classified and told
                diagnosis = classify(error)
                wait = max(_BACKOFF.wait(failures, 0.0, self._rng.random), diagnosis.retry_after or 0)
                extra = {"code": diagnosis.code, "hint": diagnosis.hint}
                _log.log(level, "%s: tried again in %.0f s: %s", name, wait, diagnosis.details, extra=extra)
                failures += 1
                await self._wait(wait)
        return None

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            await self._persist(self._session, "taking jobs", logging.ERROR)

    async def _session(self) -> None:
        """Serve under one lease, until it is lost or all ends."""
        try:
            slot = await take_slot(self._leases)
            self.id = f"executor-{slot}"
            try:
                self._open = True
                self._engine = await asyncio.to_thread(_make, self._tables, self.id)
                await asyncio.to_thread(_launch, self._queues)
                self._started.set()
                _log.info("jobs are taken by %s", self.id)
                looking = asyncio.create_task(self._look_around())
                try:
                    while await self._leases.holds(slot) and self.taking:
                        await self._wait(self._tick)
                finally:
                    looking.cancel()
                    await asyncio.gather(looking, return_exceptions=True)
                if self.taking:
                    _log.warning("%s lost its lease: others take up what it had under way", self.id)
                elif self._running:
                    self._idle.clear()
                    with suppress(TimeoutError):  # not for the tasks: those of jobs to hand back do not end
                        await asyncio.wait_for(self._idle.wait(), self._drain_seconds)
            finally:
                self._started.clear()
                self._open = False
                await self._stop(slot)
        finally:
            self.id = None
            await self._leases.aclose()

    async def _stop(self, slot: str) -> None:
        under_way = list(self._running.values())
        for task in under_way:
            task.cancel()
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(_destroy, engine)
        await asyncio.gather(*under_way, return_exceptions=True)
        # Handed back at once, rather than found by others when the slot is free.
        if await self._leases.holds(slot):
            try:
                await self._tables.take_up(await self._pending(self.id))
            except Exception as error:  # noqa: BLE001 -- others will find it
                _log.info("jobs under way are left to others: %s", classify(error).details)

    async def _look_around(self) -> None:
        """Find jobs that nobody does any more, again and again."""
        while True:
            try:
                for executor_id in {job.executor_id for job in await self._tables.find(status="PENDING")}:
                    await (self._find_own() if executor_id == self.id else self._take_up_from(executor_id))
                if await self._leases.take(_SWEEPER):
                    try:
                        await self._sweep()
                    finally:
                        await self._leases.free(_SWEEPER)
            except Exception as error:  # noqa: BLE001 -- it is done again soon
                diagnosis = classify(error)
                _log.warning("cannot look for jobs left behind: %s", diagnosis.details, extra={"code": diagnosis.code})
            await self._wait(self._tick * (0.8 + 0.4 * self._rng.random()))

    async def _take_up_from(self, executor_id: str) -> None:
        slot = executor_id.rpartition("-")[2]
        if not await self._leases.take(slot):
            return  # it lives
        try:
            # Read again: now nobody else can take them up, nor can a new process use that id.
            jobs = await self._pending(executor_id)
            await self._tables.take_up(jobs)
            _log.warning("%s is gone; %d jobs of it are taken up", executor_id, len(jobs))
        finally:
            await self._leases.free(slot)

    async def _find_own(self) -> None:
        """Take up what the engine took off a queue for us but did not start for long."""
        now = self.loop.time()
        missing = {job.workflow_id: job for job in await self._pending(self.id) if job.workflow_id not in self._running}
        self._missed = {name: self._missed.get(name, now) for name in missing}
        await self._tables.take_up([job for name, job in missing.items() if now - self._missed[name] > _LOST_SECONDS])

    async def _pending(self, executor_id: str | None) -> list[Any]:
        return await self._tables.find(status="PENDING", executor_id=executor_id)

    async def _wait(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._pause(seconds)), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


@cache
def _register() -> None:
    from dbos import DBOS

    # Counted attempts would end a job that has survived many crashes.
    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
    async def work(kind: str, *args: Any) -> None:
        executor, job_id = _current, DBOS.workflow_id
        if executor is None or job_id is None:
            await asyncio.Event().wait()
        else:
            # Back to the loop of the process, where its connections are.
            done = asyncio.run_coroutine_threadsafe(executor.work(job_id, kind, args), executor.loop)
            await asyncio.wrap_future(done)


def _make(tables: JobTables, executor_id: str) -> "DBOS":
    from dbos import DBOS

    _register()
    return DBOS(config=tables.config(executor_id))


def _launch(queues: Mapping[str, tuple[int, float]]) -> None:
    from dbos import DBOS

    DBOS.listen_queues(list(queues))
    DBOS.launch()
    for name, (at_once, seconds) in queues.items():
        DBOS.register_queue(name, worker_concurrency=at_once, polling_interval_sec=seconds, on_conflict="always_update")


def _destroy(engine: "DBOS") -> None:
    for event in engine.background_thread_stop_events:
        event.set()
    # DBOS stops the loop that jobs are started on before it waits for the threads that take them off the queues.
    for thread in threading.enumerate():
        if thread.name.startswith("queue-worker-"):
            thread.join(_LOST_SECONDS)
    engine.destroy()
