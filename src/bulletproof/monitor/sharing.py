"""One memory for all processes: what one of them saw, all report, and a restart forgets nothing."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from bulletproof.errors import classify
from bulletproof.monitor.monitor import AIErrorMonitor
from bulletproof.monitor.rows import Rows
from bulletproof.monitor.series import HOUR

logger = logging.getLogger(__name__)

_BATCH = 60.0
_FORGET_EVERY = HOUR


@dataclass(frozen=True, slots=True)
class ErrorBatch:
    """What one process counted in about a minute.

    Args:
        source: The process; another one after each start.
        sequence: 1, 2, 3 ... of this source.
        until: When it was last written (aware).
        payload: JSON that only the monitor needs to understand; nothing secret is in it.
    """

    source: str
    sequence: int
    until: datetime
    payload: str


class ErrorSink(Protocol):
    """Where batches are kept: one table with the primary key (source, sequence) and an index on ``until``."""

    async def save_errors(self, batch: ErrorBatch) -> None:
        """Insert the batch, or replace the one with the same source and sequence, in one transaction."""
        ...

    async def load_errors(self, after: Mapping[str, int], since: datetime) -> Sequence[ErrorBatch]:
        """Return the batches with ``until >= since`` whose source is not in ``after`` or whose ``sequence`` is
        ``after[source]`` or higher, ordered by source and sequence."""  # fmt: skip
        ...

    async def forget_errors(self, before: datetime) -> None:
        """Delete the batches with ``until < before``."""
        ...


class _Known(NamedTuple):
    """How far another process has been read: its last batch, which may still grow, and when it did."""

    batch: ErrorBatch
    rows: Rows
    changed: float


class MonitorSharing:
    """Exchanges the counts of a monitor with those of other processes through a store.

    Runs in a task of its own; nobody who records or asks ever waits for it. While the store is away everything is kept
    here and handed over when it is back. A batch is written again as it grows and read again until it is complete, and
    only the difference counts: nothing is lost or doubled, whoever crashes when.

    Args:
        monitor: The monitor of this process.
        sink: The store.
        interval: Seconds from one exchange to the next.
        clock: Gives monotonic seconds.
        now: Gives the present moment (aware).
    """

    def __init__(
        self,
        monitor: AIErrorMonitor,
        sink: ErrorSink,
        *,
        interval: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.source = uuid.uuid4().hex
        self.interval = interval
        self._monitor = monitor
        self._sink = sink
        self._clock = clock
        self._now = now
        self._rows = Rows()
        self._sequence = 1
        self._opened = clock()
        self._saved = True
        self._known: dict[str, _Known] = {}
        self._forgot = float("-inf")
        monitor.start_sharing()

    async def run(self) -> None:
        """Exchange for ever; an exchange that fails is reported once and repeated. Ends when cancelled."""
        failing = False
        while True:
            try:
                await self.exchange()
                if failing:
                    logger.info("error counts are shared again")
                failing = False
            except Exception as error:  # noqa: BLE001 -- whatever the store does, monitoring goes on here
                if not failing:
                    diagnosis = classify(error)
                    logger.warning(
                        "error counts cannot be shared for now: %s; each process reports its own", diagnosis.details,
                        extra={"code": diagnosis.code},
                    )  # fmt: skip
                failing = True
            await asyncio.sleep(self.interval)

    async def exchange(self) -> None:
        """Write what this process counted and read what others did; once more at the end, before the store closes."""
        await self._write()
        await self._read()
        if self._clock() - self._forgot >= _FORGET_EVERY:
            await self._sink.forget_errors(self._oldest())
            self._forgot = self._clock()
            lately = self._forgot - self._monitor.retention_hours * HOUR - _FORGET_EVERY
            self._known = {source: known for source, known in self._known.items() if known.changed > lately}

    async def _write(self) -> None:
        counted = self._monitor.take_unshared()
        if counted:
            self._rows.add(counted)
            self._saved = False
        if not self._saved:
            batch = ErrorBatch(self.source, self._sequence, self._now(), self._rows.to_json())
            await self._sink.save_errors(batch)
            self._saved = True
        if self._rows and self._clock() - self._opened >= _BATCH:
            self._rows = Rows()
            self._sequence += 1
        if not self._rows:
            self._opened = self._clock()

    async def _read(self) -> None:
        after = {source: known.batch.sequence for source, known in self._known.items()}
        after[self.source] = self._sequence + 1
        more = Rows()
        for batch in await self._sink.load_errors(after, self._oldest()):
            known = self._known.get(batch.source)
            before = known.rows if known is not None and known.batch.sequence == batch.sequence else None
            if before is not None and known is not None and known.batch.payload == batch.payload:
                continue
            try:
                rows = Rows.from_json(batch.payload)
            except ValueError as error:
                logger.warning("error counts of %s/%d are left out: %s", batch.source, batch.sequence, error)
                rows = Rows()
            more.add(rows if before is None else rows.beyond(before))
            self._known[batch.source] = _Known(batch, rows, self._clock())
        if more:
            await asyncio.to_thread(self._monitor.merge, more)

    def _oldest(self) -> datetime:
        return self._now() - timedelta(hours=self._monitor.retention_hours)
