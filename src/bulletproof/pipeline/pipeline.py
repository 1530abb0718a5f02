"""A batch of URLs: downloaded, read, analysed and stored, whatever fails on the way."""

import logging
import time
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

from bulletproof.analysis import Analyzer
from bulletproof.errors import AIError, InputValidationError, classify
from bulletproof.errors.text import one_line
from bulletproof.fetch import Fetcher
from bulletproof.monitor import AIErrorMonitor, default_monitor
from bulletproof.pipeline.arguments import check_counts, check_seconds
from bulletproof.pipeline.batch import Batch
from bulletproof.pipeline.figures import Figures
from bulletproof.pipeline.handing import Carried, Content, Score, Text, take_up
from bulletproof.pipeline.intake import Intake, given_url
from bulletproof.pipeline.items import STAGES, ProcessingItem, ProcessingStatus
from bulletproof.pipeline.parts import Parts
from bulletproof.pipeline.queue import Kind, WorkQueue
from bulletproof.pipeline.report import StatusReport
from bulletproof.pipeline.retries import checked_policies, retries_allowed
from bulletproof.pipeline.rows import PLAIN, RowKey
from bulletproof.pipeline.runner import Runner, current
from bulletproof.pipeline.scheduler import OnDone, Scheduler, Wait
from bulletproof.pipeline.source import UrlSource, each, expected
from bulletproof.pipeline.steps import Steps
from bulletproof.resilience import BreakerRegistry, CircuitConfig, CircuitState, RetryPolicy
from bulletproof.resilience.pausing import Sleep, pause_async
from bulletproof.settings import Settings
from bulletproof.store import BatchStore, ResultStore

# Soon asked again, then more and more rarely; one success is enough. Twenty failures in a row are no bad luck.
HOST_CIRCUIT = CircuitConfig(
    failure_threshold=20, success_threshold=1, timeout=5, mode="consecutive", timeout_factor=2, max_timeout=60
)
SERVICE_CIRCUIT = replace(HOST_CIRCUIT, failure_threshold=50)
_KEPT_CHARS = 64 * 2**20
_SHOWN_BREAKERS, _ASK_AGAIN = 50, 2.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _StoppedError(Exception):
    """Somebody paused or cancelled the batch."""


class AIProcessingPipeline:
    """Takes URLs through download, text extraction, sentiment analysis and storage; one that fails stops no other.

    An error that may pass is tried again later, with backoff and only the stage that failed; one that will not fails
    its item at once. A host or service that keeps failing is left alone for a while, and its items wait. The stage
    methods can be overridden, by coroutine functions or by plain ones, which then run in threads.

    Args:
        max_concurrent: Items under way at the same time; up to six times as many more wait for the analysis and the
            store, which work on many together.
        allow_hosts: Hosts that may be private, use any port, and need no robots.txt; by default those of the settings.
        allow_ports: Ports that other hosts may use; likewise.
        respect_robots: Whether robots.txt is obeyed; likewise.
        retry_policies: By stage (``download``, ``extract``, ``analyze``, ``store``).
        store: Keeps the results; by default the database of the settings.
        analyzer: By default the chain of the LLM, if one is configured, and the local model.
        fetcher: Downloads; by default one made of the options here and the settings.
        durable: Whether every item is a row of the store before it is worked on, so that ``resume`` can go on.
        languages: ISO 639-1 codes; a text that is known to be in another language fails (``unsupported_language``).
        host_concurrency: Downloads from one host at the same time; by default as many as ``max_concurrent``.
        host_delay: Seconds between the starts of two downloads from one host.
        circuits: When a host, the analysis or the store is left alone; a config for all.
        patience: Seconds after which items no longer wait for a host or service that stays down, but fail; a tenth of
            it where it never worked. For the default store there is no such limit.
        max_pending: Items that are held at the same time; more are taken from the source when there is room.
        settings: By default those of the environment.
        monitor: Told of every failure, under the name of the stage; by default the one of this process.
        clock: Monotonic seconds.
        now: The present moment (aware UTC).
        sleep: Waits so many seconds.

    Example:
        >>> import asyncio
        >>> class Canned(AIProcessingPipeline):
        ...     async def download_content(self, url):
        ...         return "<p>I love this shop, everything was perfect.</p>"
        ...     async def extract_text(self, content):
        ...         return content.removeprefix("<p>").removesuffix("</p>")
        ...     async def store_result(self, item):
        ...         return True
        >>> report = asyncio.run(Canned(max_concurrent=3).process_batch(["https://example.com/1", "not a url"]))
        >>> report["success"], report["failed"], report["by_code"]
        (1, 1, {'invalid_input': 1})
    """

    def __init__(
        self,
        max_concurrent: int = 5,
        *,
        allow_hosts: Iterable[str] = (),
        allow_ports: Iterable[int] = (80, 443),
        respect_robots: bool = True,
        retry_policies: Mapping[str, RetryPolicy] | None = None,
        store: BatchStore | ResultStore | None = None,
        analyzer: Analyzer | None = None,
        fetcher: Fetcher | None = None,
        durable: bool = False,
        languages: Collection[str] | None = None,
        host_concurrency: int | None = None,
        host_delay: float = 0.0,
        circuits: CircuitConfig | None = None,
        patience: float = 300.0,
        max_pending: int = 10_000,
        settings: Settings | None = None,
        monitor: AIErrorMonitor | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
        sleep: Sleep | None = None,
    ) -> None:
        own = max_concurrent if host_concurrency is None else host_concurrency
        check_counts(max_concurrent=max_concurrent, max_pending=max_pending, host_concurrency=own)
        check_seconds(host_delay=host_delay, patience=patience)
        self.max_concurrent = max_concurrent
        self.logger = logging.getLogger("bulletproof.pipeline")
        self.monitor = monitor if monitor is not None else default_monitor()
        self.retry_policies = checked_policies(retry_policies)
        self.durable = durable
        self.breakers = BreakerRegistry(
            lambda name: circuits or (HOST_CIRCUIT if name.startswith("host:") else SERVICE_CIRCUIT), clock=clock
        )
        self._max_pending = max(max_pending, max_concurrent)
        self._clock, self._now = clock, now
        # What is left as it is here is as the settings say.
        fetching: dict[str, Any] = {"per_host": 0}
        fetching |= {"allow_hosts": hosts} if (hosts := tuple(allow_hosts)) else {}
        fetching |= {"allow_ports": ports} if (ports := tuple(allow_ports)) != (80, 443) else {}
        fetching |= {} if respect_robots else {"respect_robots": False}
        self._parts = Parts(
            settings=settings,
            monitor=self.monitor,
            fetcher=fetcher,
            analyzer=analyzer,
            store=store,
            fetching=fetching,
            concurrency=max_concurrent,
            careful=lambda: not self.overrides("analyze_sentiment"),
            clock=clock,
        )
        self._queue: WorkQueue[Any] = WorkQueue(lane_limit=own, lane_delay=host_delay)
        self._scheduler = Scheduler(
            run=lambda batch, item, leave: self._runner.run(batch, item, leave),
            admit=self._admit,
            queue=self._queue,
            limit=lambda: self.max_concurrent,
            max_kept=_KEPT_CHARS,
            clock=clock,
            sleep=sleep,
        )
        steps = Steps(self, self._parts, languages)
        self._runner = Runner(
            stages={stage: getattr(steps, stage) for stage in STAGES},
            policies=self.retry_policies,
            breakers=self.breakers,
            queue=self._queue,
            patience=patience,
            is_shared=self._is_shared,
            monitor=self.monitor,
            logger=self.logger,
            clock=clock,
            time=self._scheduler.now,
            now=now,
        )
        self._sleep = sleep
        self._intake = Intake(
            self._parts,
            any_scheme=lambda: self.overrides("download_content"),
            max_retries=retries_allowed(retry_policies),
            logger=self.logger,
        )
        self._users = 0
        self._batch = Batch(Figures(clock))

    @property
    def items(self) -> list[ProcessingItem]:
        """The items of the batch that was begun last: the first 10,000, and the first 10,000 that failed."""
        return self._batch.items

    @items.setter
    def items(self, items: Iterable[ProcessingItem]) -> None:
        self._batch = Batch(Figures(self._clock))
        for item in items:
            self._batch.add(item)

    # The stages.

    async def download_content(self, url: str) -> str:
        """Download a page.

        Args:
            url: Its address.

        Returns:
            Its content as text; ``.page`` is the whole answer.

        Raises:
            AIError: It cannot be had, or must not be.
        """
        _, item = current.get() or (None, None)
        previous = item.carry.previous if item is not None and item.url == url else None
        async with self:
            return Content.of(await self._parts.get(url, previous))

    async def extract_text(self, content: str) -> str:
        """Get the text out of a page.

        Args:
            content: What ``download_content`` returned, or any HTML, text or JSON.

        Returns:
            The text; ``.extract`` says what else was found.

        Raises:
            AIError: There is no text in it, or it cannot be read.
        """
        _, item = current.get() or (None, None)
        async with self:
            return Text.of(await self._parts.extract(content, item.url if item is not None else ""))

    async def analyze_sentiment(self, text: str) -> float:
        """Analyse a text, together with those of other items.

        Args:
            text: The text.

        Returns:
            From -1 (most negative) to 1 (most positive); ``.analysis`` says more.

        Raises:
            AIError: It cannot be analysed.
        """
        async with self:
            return Score.of(*await self._parts.analyze(text))

    async def store_result(self, item: ProcessingItem) -> bool:
        """Store the result of an item; storing it again changes nothing.

        Args:
            item: With its ``result``.

        Returns:
            True.

        Raises:
            StoreError: The database cannot be used.
        """
        batch, under_way = current.get() or (self._batch, item)
        batch = batch if under_way is item else self._batch
        async with self:
            await self._parts.rows.save(item, batch, ProcessingStatus.SUCCESS)
        return True

    # Items and batches.

    async def process_single_item(self, item: ProcessingItem) -> ProcessingItem:
        """Take one item to its end.

        Args:
            item: The item; it is changed in place.

        Returns:
            The same item; it never raises for what goes wrong with it.
        """
        await self.process_items([item])
        return item

    async def process_items(
        self,
        items: Iterable[ProcessingItem] | AsyncIterable[ProcessingItem],
        *,
        on_done: OnDone | None = None,
        batch: Batch | None = None,
    ) -> None:
        """Take items to their end; they are changed in place.

        Args:
            items: Any number; at most ``max_pending`` are held at the same time. Those that are done are passed on.
            on_done: Awaited with each item when it is done.
            batch: Where they are counted; by default with the latest batch.

        Raises:
            Exception: Whatever ``items`` or ``on_done`` raised; what was under way is broken off.
        """
        batch = batch if batch is not None else self._batch

        async def done(item: ProcessingItem) -> None:
            await self._keep(batch, item)
            item.carry = None
            if on_done is not None:
                await on_done(item)

        async with self:
            await self._scheduler.process(each(items), batch, on_done=done, max_pending=self._max_pending)

    async def process_batch(self, urls: UrlSource) -> StatusReport:
        """Process URLs. One that is invalid is an item that failed; one that came before is not fetched again.

        Several batches may be under way at the same time, and each has a report of its own.
        Of a list or a file, pages that an earlier batch stored are only asked for what has changed.

        Args:
            urls: A list, an iterator, an async iterator, or the path of a file with one URL a line. It is read on the
                event loop, except for a file.

        Returns:
            The report; see ``StatusReport``.

        Raises:
            InputValidationError: They are nothing of the kind, or the file of URLs cannot be read.
            StoreError: A durable batch cannot be stored.
        """
        if self.durable:
            async with self:
                made = await self._parts.store.create(self._intake.spelt(urls), options=PLAIN)
                return await self.resume(made.id)
        batch = self._begin(expected(urls))
        async with self:
            await self.process_items(self._intake.items(urls, recall=self._may_recall), batch=batch)
            await self._finish(batch)
        return self._ended(batch)

    async def resume(self, batch_id: str, *, chunks: Collection[int] | None = None) -> StatusReport:
        """Go on with a batch of the store: with all of its items that are not done.

        It stops early when the batch is paused or cancelled meanwhile; what is under way then is broken off, to be done
        again.

        Args:
            batch_id: The batch.
            chunks: Only the items of these chunks.

        Returns:
            The report on this run; under ``stored`` the items of the whole batch by status.

        Raises:
            NotFoundError: There is no such batch.
            InputValidationError: The batch is cancelled (``conflict``).
            StoreError: The database cannot be used.
        """
        batch = self._begin(None, batch_id)
        async with self:
            store = self._parts.store
            if chunks is None:
                left = await store.counts(batch_id)
                batch.figures.expected = sum(left.by_status.values()) - left.done
            if (await store.batch(batch_id)).status != "complete":
                await store.set_status(batch_id, "running")
            items = self._intake.open_items(batch_id, chunks, recall=self._may_recall)
            with suppress(_StoppedError):
                await self.process_items(items, on_done=self._check, batch=batch)
            await self._finish(batch)
            counts = await store.counts(batch_id)
        report = self._ended(batch)
        report["stored"] = counts.by_status
        return report

    async def recall(self, items: Sequence[ProcessingItem], *, owner: str | None = None) -> None:
        """Give items what earlier runs made of their pages, to be asked whether it still holds.

        Args:
            items: Items that are not begun.
            owner: Whose runs.
        """
        if self._may_recall:
            async with self:
                await self._intake.recall(items, owner=owner)

    def overrides(self, method: str) -> bool:
        """Tell whether a stage method is not the one of this class."""
        return getattr(getattr(self, method), "__func__", None) is not getattr(AIProcessingPipeline, method)

    def get_status_report(self) -> StatusReport:
        """Return how the batch that was begun last stands, at any time.

        Returns:
            The figures; ``str()`` of it is a table to read.
        """
        return self._report(self._batch)

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._users == 1 and self._batch.own and self._batch.finished != self._batch.figures.total:
            await self._finish(self._batch)
        self._users -= 1
        if not self._users:
            await self._parts.aclose()

    # Inside.

    def _is_shared(self, stage: str) -> bool:
        """Tell whether all that is left is done for many items together, and by nobody else."""
        left = {"analyze": ("analyze_sentiment", "store_result"), "store": ("store_result",)}.get(stage, ())
        return bool(left) and not any(map(self.overrides, left))

    def _report(self, batch: Batch) -> StatusReport:
        breakers = {
            metrics["service"]: metrics
            for metrics in sorted(
                (breaker.get_metrics() for breaker in (*self._runner.troubled.values(), *self._parts.breakers())),
                key=lambda metrics: (metrics["state"] == CircuitState.CLOSED.value, -metrics["failures"]),
            )[:_SHOWN_BREAKERS]
            if metrics["failures"]
        }
        waiting = self._queue.parked(self._scheduler.now())
        return batch.report(concurrency=self._parts.limit.limit, waiting=waiting, breakers=breakers)

    @property
    def _may_recall(self) -> bool:
        """Whether earlier results were made as they would be made now."""
        return not any(self.overrides(name) for name in ("download_content", "extract_text", "analyze_sentiment"))

    def _begin(self, total: int | None, batch_id: str | None = None) -> Batch:
        if not self._scheduler.busy:
            self._runner.begin()
        self._batch = Batch(Figures(self._clock, total), batch_id)
        return self._batch

    def _ended(self, batch: Batch) -> StatusReport:
        batch.figures.end()
        report = self._report(batch)
        self.logger.info("batch done: %s", str(report).partition("\n")[0])
        return report

    async def _finish(self, batch: Batch) -> None:
        batch.finished = batch.figures.total
        try:
            if batch.batch_id is not None:
                await self._parts.store.finish(batch.batch_id, given=batch.finished if batch.own else 0)
        except AIError as error:
            self.logger.warning("batch %s is not marked as complete: %s", batch.batch_id, classify(error).code)

    def _admit(self, batch: Batch, item: ProcessingItem) -> Wait | None:
        if item.code == "duplicate":
            batch.figures.duplicates += 1
            item.move(ProcessingStatus.SUCCESS, self._now())
        elif not item.is_done:
            item.stage = item.carry["stage"] if isinstance(item.carry, dict) else STAGES[0]
            item.move(ProcessingStatus.PENDING, self._now())
        given = given_url(item)
        batch.add(item)
        if item.is_done:
            return None
        if not isinstance(item.carry, Carried):
            try:
                lane = self._intake.place(given)[0]
            except InputValidationError as error:
                self._runner.report(item, classify(error))
                self._runner.fail(batch, item, classify(error))
                return None
            if isinstance(item.carry, dict):  # as earlier tries left it
                return Wait(item.stage, Kind.LATER, size=take_up(item, lane).size)
            item.carry = Carried(lane)
        item.carry.previous, item.result = item.result, None
        return Wait(item.carry.lane, Kind.FRESH)

    async def _check(self, item: ProcessingItem) -> None:
        if isinstance(item.key, RowKey) and item.key.batch_id in self._parts.rows.stopped:
            raise _StoppedError(item.key.batch_id)

    async def _keep(self, batch: Batch, item: ProcessingItem) -> None:
        """Save how an item ended, where the store stage did not."""
        ours, stored = not self.overrides("store_result"), item.status is ProcessingStatus.SUCCESS
        if item.code == "duplicate" or (stored if ours else not isinstance(item.key, RowKey)):
            return
        while True:
            try:
                await self._parts.rows.save(item, batch, item.status)
            except AIError as error:
                found = classify(error)
                self.logger.warning("how %s ended is not stored yet: %s", one_line(item.url, limit=200), found.code)
                if not found.retryable:
                    return
                await pause_async(found.retry_after or _ASK_AGAIN, self._sleep)
            else:
                return
