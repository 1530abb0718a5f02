"""Batches of URLs that survive the processes that work on them.

The contract, for the doors::

    jobs = BatchJobs(settings, store=BatchStore(results.access), make_pipeline=..., monitor=...)
    await jobs.start()                  # returns at once; a database that is down is waited for in the background
    batch = await jobs.submit(urls, owner="alice", key="import-7", options={"priority": 2})   # a store.Batch
    batch = await jobs.pause(batch.id)  # likewise resume, cancel, retry (the failed ones again)
    report = await jobs.status(batch.id)            # a dict, see ``status``
    async for report in jobs.events(batch.id): ...  # whenever something changed, until it is finished or we stop
    jobs.end_streams()                  # events() ends: call it when the process is told to stop
    await jobs.aclose(drain_seconds=20)

Everything raises ``StoreError`` when the database cannot be used, ``NotFoundError`` for a batch that there is none of
or that belongs to somebody else (``owner=``), and ``InputValidationError`` (``conflict``) for what is not possible in
the present state. Items, results and lists of batches are read from ``jobs.store``.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import CODES, ConfigurationError, InputValidationError, NotFoundError, StoreError
from bulletproof.fetch import normalize_url
from bulletproof.jobs.chunk import work_on
from bulletproof.jobs.executor import TICK_SECONDS, Executor, Handler
from bulletproof.jobs.lease import leases_of
from bulletproof.jobs.options import DEFAULT_PRIORITY, checked
from bulletproof.jobs.progress import FRESH_SECONDS, Progress
from bulletproof.jobs.system import LIVE, Job, JobTables
from bulletproof.jobs.uploads import KIND, Uploads
from bulletproof.monitor import AIErrorMonitor
from bulletproof.pipeline import AIProcessingPipeline
from bulletproof.pipeline.rows import GOES_ON as ACTIVE
from bulletproof.pipeline.rows import PLAIN
from bulletproof.settings import Settings
from bulletproof.store import Batch, BatchStore, ItemRow
from bulletproof.store.batch_records import FINISHED
from bulletproof.store.tables import batches

CHUNKS, WAITING = "batches", "waiting"
_WAITING_AT_ONCE = 500  # chunks of which nothing is left but items that wait
_SPAN = 2**24  # chunks of a batch that have a priority of their own
_EVENT_SECONDS, _QUIET_EVENT_SECONDS = 0.5, 5.0
_IDLE_SECONDS = 30.0
_MAX_BATCHES = 1000
_ABANDONED_SECONDS = 3600.0
_TIDY_EVERY, _ENDED_KEPT = timedelta(minutes=1), timedelta(days=1)
_SHOWN_FAILURES, _COUNTED = 20, 100_000
_OF_FAILED = ("url", "stage", "code", "error", "hint", "attempts")
_log = logging.getLogger("bulletproof.jobs")


class BatchJobs:
    """Runs batches: each chunk of a batch's items is a durable job, taken by any process that shares the database.

    An item's row in the store is the truth. A job that is run twice skips what is done; a chunk without a job is found
    and gets one; so whatever dies, each item ends up with one result that shows.

    Args:
        settings: ``batch_chunk_items`` and ``batch_concurrency`` are used; with a concurrency of 0 nothing is worked on
            here, only submitted and watched.
        store: Keeps batches and items.
        make_pipeline: Makes what takes the items through, with the same store: by default as the settings
            say. It is closed when nothing was done for a while.
        monitor: Told of every failure by the default pipeline.
        uploads: Processes uploads, likewise as jobs.
        tick: Seconds between two looks for what was left behind.
        now: The present moment (aware UTC).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: BatchStore,
        make_pipeline: Callable[[], AIProcessingPipeline] | None = None,
        monitor: AIErrorMonitor | None = None,
        uploads: Uploads | None = None,
        tick: float = TICK_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.store = store
        self.tables = JobTables(store.access.address)
        self.progress = Progress(store, self._breakers)
        self._settings = settings
        self._make_pipeline = make_pipeline or partial(default_pipeline, settings, store, monitor)
        self._now = now
        self._pipeline: AIProcessingPipeline | None = None
        self._using = 0
        self._idle: asyncio.TimerHandle | None = None
        self._tidy_at = now()
        self._ending = asyncio.Event()
        self.uploads = uploads
        handlers: dict[str, Handler] = {"chunk": self._chunk}
        queues = {CHUNKS: (4, 0.25), WAITING: (_WAITING_AT_ONCE, 1.0)}
        if uploads is not None:
            uploads.tables = self.tables
            handlers[KIND], queues[KIND] = uploads.run, (2, 0.5)
        self.executor = Executor(
            self.tables,
            leases_of(store.access.address),
            handlers,
            queues=queues if settings.batch_concurrency else {},
            sweep=self._sweep,
            tick=tick,
        )

    async def start(self) -> None:
        """Begin to take jobs, in the background; a database that is down is tried again and again."""
        self._loop = asyncio.get_running_loop()
        try:
            await self.executor.start()
        except ConfigurationError as error:
            _log.warning("batches are submitted and watched here, but not worked on: %s", error)

    def end_streams(self) -> None:
        """Have ``events`` end; safe in signal handlers."""
        self._loop.call_soon_threadsafe(self._ending.set)

    async def aclose(self, drain_seconds: float = 10.0) -> None:
        """Take no more jobs, save what is done, hand the rest back, and close.

        Args:
            drain_seconds: Most seconds for what is under way.
        """
        self._ending.set()
        await self.executor.aclose(drain_seconds)
        await self._close_pipeline()
        self.tables.close()

    async def submit(
        self,
        urls: Iterable[str] | AsyncIterable[str],
        *,
        owner: str | None = None,
        key: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Make a batch, to be worked on from now on.

        Args:
            urls: Any number; each distinct page is an item, however its address is spelt.
            owner: Whose it is.
            key: An idempotency key: given again with the same URLs, it leads to the batch that was made first.
            options: ``priority``, from 1 (first) to 10, by default 5, and ``max_retries`` of an item, by default 3: a
                number for all stages together, or one for each stage, such as ``{"download": 5, "analyze": 2}``; the
                waits are those of the pipeline's policies. Chunks of batches with the same priority take turns.

        Returns:
            The batch. It is safe from then on, whatever dies.

        Raises:
            InputValidationError: An option makes no sense, or the key was used for something else (``conflict``).
        """
        chosen = checked(options or {})
        batch = await self.store.create(
            urls, owner=owner, key=key, options=chosen, chunk_size=self._settings.batch_chunk_items,
            spelling=_spelling,
        )  # fmt: skip
        return await self._enqueued(batch)

    async def pause(self, batch_id: str, *, owner: str | None = None) -> Batch:
        """Stop working on a batch until it is resumed; what is under way is broken off and done again then."""
        return await self._halt(batch_id, owner, "paused")

    async def cancel(self, batch_id: str, *, owner: str | None = None) -> Batch:
        """Stop working on a batch for good; what is done stays."""
        return await self._halt(batch_id, owner, "cancelled")

    async def resume(self, batch_id: str, *, owner: str | None = None) -> Batch:
        """Go on with a batch that was paused."""
        batch = await self.store.batch(batch_id, owner=owner)
        if batch.status not in ACTIVE:
            batch = await self.store.set_status(batch_id, "queued")
        return await self._enqueued(batch)

    async def retry(self, batch_id: str, *, owner: str | None = None, codes: Iterable[str] | None = None) -> Batch:
        """Do the failed items of a batch again; with ``codes``, those that failed with one of them."""
        await self.store.batch(batch_id, owner=owner)
        await self.store.retry_failed(batch_id, codes=codes)
        return await self._enqueued(await self.store.batch(batch_id))

    async def status(self, batch_id: str, *, owner: str | None = None) -> dict[str, Any]:
        """Return how a batch stands.

        Returns:
            ``batch_id``, ``status``, ``owner``, ``options``, ``given``, ``total``, ``duplicates``, ``done``, each
            status of items with its count (also as ``by_status``), ``by_stage`` (items that are not successful),
            ``by_code`` and ``by_error_type`` of the failed ones, ``retrying_by_code``; ``stages`` (for each the
            ``attempts``, ``succeeded``, ``retried``, ``failed``, and ``p50``, ``p95``, ``p99`` in seconds),
            ``slowest_hosts``, ``retried_by_code``, ``retries``, ``parked``, ``degraded`` and ``truncated`` (texts that
            were cut at their bound), as all processes together measured them; ``breakers`` that are not closed or have
            failed in any of the ``workers`` (processes) that worked on it within the last seconds; while it is queued
            or running ``idle_seconds`` since one did and, when none seems to live, a ``notice`` of how to go on;
            ``items_per_second``, of late while it is worked on, else since it was made; ``seconds_left`` (None when it
            cannot be told, as when nobody seems to work on it), ``elapsed_seconds``, ``created_at``,
            ``updated_at``, ``finished_at``; ``failed_items`` (the first 20: ``url``, ``stage``, ``code``, ``error``,
            ``hint``, and ``attempts`` by stage), ``failed_items_left_out``, and ``attempts``: tries of all items and
            stages, of a batch of more than 100,000 as they were measured.
        """
        report = await self._stands(batch_id, owner)
        failed = await self.store.items(batch_id, status="failed", limit=_SHOWN_FAILURES) if report["failed"] else []
        told = [{name: getattr(item, name) for name in _OF_FAILED} for item in failed]
        if report["given"] <= _COUNTED:
            report["attempts"] = await self.store.attempts(batch_id)
        left_out = max(0, report["failed"] - len(told))
        return report | {"failed_items": told, "failed_items_left_out": left_out}

    async def _stands(self, batch_id: str, owner: str | None) -> dict[str, Any]:
        batch = await self.store.batch(batch_id, owner=owner)
        counts = await self.store.counts(batch_id)
        by_type: dict[str, int] = {}
        for code, number in counts.by_code.items():
            kind = str(CODES[code].error_type) if code in CODES else "resource_error"
            by_type[kind] = by_type.get(kind, 0) + number
        measured = await self.progress.report(batch_id)
        rate, age = measured.pop("rate"), measured.pop("age")
        elapsed = max(0.0, ((batch.finished_at or self._now()) - batch.created_at).total_seconds())
        report = {
            "batch_id": batch.id, "status": batch.status, "owner": batch.owner, "options": batch.options,
            "given": batch.given, "total": batch.total, "duplicates": batch.duplicates, "done": counts.done,
            **counts.by_status, "by_status": counts.by_status, "by_stage": counts.by_stage, "by_code": counts.by_code,
            "by_error_type": by_type, "retrying_by_code": counts.retrying_by_code,
            "elapsed_seconds": round(elapsed, 3), "created_at": batch.created_at, "updated_at": batch.updated_at,
            "finished_at": batch.finished_at, **measured,
        }  # fmt: skip
        lately = rate if batch.status in ACTIVE else 0.0
        if batch.status in ACTIVE:
            own = PLAIN.items() <= batch.options.items()  # nobody measures it
            age = await self.store.idle_for(batch_id) if own else age
            report |= _idle(batch.id, max(0.0, min(age, (self._now() - batch.updated_at).total_seconds())), own)
        return report | _pace(report, lately or (counts.done / elapsed if elapsed else 0.0))

    async def events(self, batch_id: str, *, owner: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield the status whenever it changed, with the present pace, until the batch is finished or we stop.

        It is without ``failed_items``, which cost more than it may each time, as does counting ``attempts``.
        While the database is down there is nothing to yield, and it goes on when it is back.
        """
        before: dict[str, Any] = {}
        wait, rate, seen = _EVENT_SECONDS, 0.0, asyncio.get_running_loop().time()
        while True:
            try:
                report = await self._stands(batch_id, owner)
            except StoreError:
                if not before:
                    raise
                report = before
            now = asyncio.get_running_loop().time()
            if before and now > seen and report["status"] in ACTIVE:
                share = min(1.0, (now - seen) / 10)
                rate += share * ((report["done"] - before["done"]) / (now - seen) - rate)
                report |= _pace(report, rate)
            changed = any(report[name] != before.get(name) for name in ("status", "by_status", "retrying_by_code"))
            if changed:
                yield report
            if report["status"] in FINISHED or self._ending.is_set():
                return
            if not before:
                rate = report["items_per_second"]
            before, seen = report, now
            wait = _EVENT_SECONDS if changed else min(wait * 1.5, _QUIET_EVENT_SECONDS)
            try:
                async with asyncio.timeout(wait):
                    await self._ending.wait()
            except TimeoutError:
                continue

    async def _halt(self, batch_id: str, owner: str | None, status: str) -> Batch:
        await self.store.batch(batch_id, owner=owner)
        batch = await self.store.set_status(batch_id, status)
        await self.store.release(batch_id)
        try:
            # Its chunks would end at once, but only when it is their turn.
            waiting = await self.tables.find(workflow_id_prefix=f"{batch_id}:", status="ENQUEUED")
            await self.tables.forget([job.workflow_id for job in waiting])
        except StoreError as error:
            _log.info("jobs of batch %s end when it is their turn: %s", batch_id, error)
        return batch

    async def _enqueued(self, batch: Batch) -> Batch:
        try:
            await self._fill(batch)
        except StoreError as error:
            _log.warning("batch %s is kept; whoever looks around next enqueues its jobs: %s", batch.id, error)
        return batch

    async def _fill(self, batch: Batch) -> None:
        """Give each chunk that has something left to do a job, unless it has one."""
        if batch.status not in ACTIVE or await self.store.finish(batch.id):
            return
        alive: set[int] = set()
        last: dict[int, int] = {}
        for job in await self.tables.find(workflow_id_prefix=f"{batch.id}:"):
            chunk, turn = (int(part) for part in job.workflow_id.split(":")[1:3])
            last[chunk] = max(turn, last.get(chunk, 0))
            if job.status in LIVE:
                alive.add(chunk)
        left = [chunk for chunk in await self.store.open_chunks(batch.id) if chunk not in alive]
        # Whoever does the same at this moment comes to the same ids, and an id is enqueued once.
        await self.tables.enqueue(_job(batch, chunk, last.get(chunk, 0) + 1) for chunk in left)

    async def _sweep(self) -> None:
        tidy = self._now() >= self._tidy_at
        for status in ACTIVE:
            for batch in await self.store.batches(status=status, limit=_MAX_BATCHES):
                if PLAIN.items() <= batch.options.items() and not await self.tables.find(
                    workflow_id_prefix=f"{batch.id}:", limit=1
                ):  # the pipeline that made it works on it, or did
                    if tidy and await self.store.idle_for(batch.id) > _ABANDONED_SECONDS:
                        await self.store.finish(batch.id)
                elif not await self._alive(batch.id):
                    await self._fill(batch)
        if self.uploads is not None:
            await self.uploads.enqueue_lost()
        if tidy:
            self._tidy_at = self._now() + _TIDY_EVERY
            days = self._settings.retention_days
            await self.store.sweep(retention=None if days is None else timedelta(days=days))
            if self.uploads is not None:
                await self.uploads.remove_old()
            await self.tables.forget_ended(before=self._now() - _ENDED_KEPT)

    async def _chunk(self, batch_id: str, chunk: int, turn: int, waiting: bool = False) -> None:
        """Do a job: what is left of a chunk."""
        try:
            await self._begin(batch_id)
            batch = await self.store.batch(batch_id)
            if batch.status not in ACTIVE:
                await self.store.release(batch_id)  # what a process that died had under way
                return
            rows = await self.store.chunk_items(batch_id, chunk)
            if rows and await self._work_on(batch, rows, waiting):
                await self.tables.enqueue([_job(batch, chunk, turn, waiting=True)])
                return
            if len(await self._alive(batch_id)) <= 1 and await self.store.finish(batch_id):
                _log.info("batch %s is complete", batch_id)
        except NotFoundError:
            _log.info("batch %s was deleted; its chunk %d is dropped", batch_id, chunk)

    async def _work_on(self, batch: Batch, rows: Sequence[ItemRow], waiting: bool) -> bool:
        if self._idle is not None:
            self._idle.cancel()
        self._using += 1
        try:
            if self._pipeline is None:
                self._pipeline = self._make_pipeline()
                await self._pipeline.__aenter__()
            return await work_on(
                rows, batch, store=self.store, pipeline=self._pipeline, progress=self.progress,
                going=lambda: self.executor.taking, may_wait=waiting,
            )  # fmt: skip
        finally:
            self._using -= 1
            if not self._using:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(_IDLE_SECONDS, lambda: loop.create_task(self._close_pipeline()))

    async def _close_pipeline(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._pipeline is not None and not self._using:
            pipeline, self._pipeline = self._pipeline, None
            await pipeline.__aexit__(None, None, None)

    async def _begin(self, batch_id: str) -> None:
        # Only from queued: a pause that comes in between must stand.
        values = {"status": "running", "updated_at": self._now()}
        change = sa.update(batches).where(batches.c.batch_id == batch_id, batches.c.status == "queued").values(values)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        if (await self.store.batch(batch_id)).status == "queued":
            await self.store.access.write("begin a batch in", work)

    async def _alive(self, batch_id: str) -> list[Any]:
        return await self.tables.find(workflow_id_prefix=f"{batch_id}:", status=LIVE, limit=2)

    def _breakers(self) -> dict[str, Any]:
        return dict(self._pipeline.get_status_report()["breakers"]) if self._pipeline is not None else {}


def default_pipeline(settings: Settings, store: BatchStore, monitor: AIErrorMonitor | None) -> AIProcessingPipeline:
    """Make a pipeline as the settings say."""
    return AIProcessingPipeline(
        max(1, settings.batch_concurrency), allow_hosts=settings.fetch_allow_hosts,
        allow_ports=settings.fetch_allow_ports, respect_robots=settings.fetch_respect_robots,
        store=store, settings=settings, monitor=monitor,
    )  # fmt: skip


def _spelling(url: str) -> str:
    try:
        return normalize_url(url)
    except InputValidationError:
        return url  # it becomes an item that fails, with the reason


def _job(batch: Batch, chunk: int, turn: int, *, waiting: bool = False) -> Job:
    # The n-th chunks of all batches before the next ones of any: a short batch need not wait for a long one.
    priority = batch.options.get("priority", DEFAULT_PRIORITY) * _SPAN + min(chunk, _SPAN - 1)
    args = ("chunk", batch.id, chunk, turn, waiting)
    suffix = ":waiting" if waiting else ""
    return Job(f"{batch.id}:{chunk}:{turn}{suffix}", WAITING if waiting else CHUNKS, args, priority)


def _idle(batch_id: str, seconds: float, own: bool) -> dict[str, Any]:
    how = f"pipeline.resume({batch_id!r})" if own else f"bulletproof batch resume {batch_id}, or bulletproof worker"
    told = f"no process has worked on it for {seconds:,.0f} s; if none is about to, go on with: {how}"
    return {"idle_seconds": round(seconds, 1), "notice": told if seconds > FRESH_SECONDS else None}


def _pace(report: Mapping[str, Any], rate: float) -> dict[str, Any]:
    left = report["total"] - report["done"]
    going = report["status"] in ACTIVE and rate > 0 and not report.get("notice")
    return {"items_per_second": round(rate, 3), "seconds_left": round(left / rate, 1) if going else None}
