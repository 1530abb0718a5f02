"""Works on a chunk: takes its items through the pipeline, which saves each as soon as it is done."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from bulletproof.errors import StoreError
from bulletproof.jobs.options import retries_in
from bulletproof.jobs.progress import Progress
from bulletproof.pipeline import STAGES, AIProcessingPipeline, ProcessingItem, ProcessingStatus
from bulletproof.pipeline.batch import Batch as Counted
from bulletproof.pipeline.handing import Carried, made_of
from bulletproof.pipeline.rows import GOES_ON, items_of, so_far
from bulletproof.resilience import CircuitState
from bulletproof.store import Batch, BatchStore, ItemRow

_LOOK_SECONDS = 1.0
_WAITING_SECONDS = 2.0
_LAST_SECONDS = 2.0  # for saving what is broken off when the process ends


async def work_on(
    rows: Sequence[ItemRow],
    batch: Batch,
    *,
    store: BatchStore,
    pipeline: AIProcessingPipeline,
    progress: Progress,
    going: Callable[[], bool],
    may_wait: bool,
) -> bool:
    """Take items to their end, or as far as they get before the batch is paused or the process stops.

    What is under way then is broken off, to be done again later, each item from the stage on that it was at.

    Args:
        rows: The items, none of them terminal.
        batch: Their batch.
        store: Says whether the batch is still worked on.
        pipeline: Shared by all chunks of this process; saves what is done.
        progress: Measures.
        going: Whether to go on.
        may_wait: Whether to wait for items that only wait: for a host that is down, or until they may be tried again.

    Returns:
        Whether items are left that only wait, because ``may_wait`` is False.

    Raises:
        NotFoundError: The batch was deleted.
        StoreError: What is left cannot be saved.
    """
    items = await items_of(store, batch.id, rows, **retries_in(batch.options))
    await pipeline.recall(items, owner=batch.owner)
    shown = _Shown(items, batch.id, store)
    with progress.part(batch.id) as part:
        counted = Counted(part.figures, batch.id)
        processing = asyncio.ensure_future(pipeline.process_items(_when_due(items), batch=counted))
        waiting_since: float | None = None
        waits = False
        try:
            while not waits:
                await asyncio.wait((processing,), timeout=_LOOK_SECONDS)
                if processing.done():
                    await processing
                    break
                if not going() or not await _goes_on(store, batch.id):
                    break
                await shown.keep_up()
                left = [item for item in items if not item.is_done]
                part.lanes.update(_lane(item) for item in left)
                await progress.save(part)
                if may_wait or not _only_waits(left, pipeline):
                    waiting_since = None
                elif waiting_since is None:
                    waiting_since = time.monotonic()
                waits = waiting_since is not None and time.monotonic() - waiting_since >= _WAITING_SECONDS
        except asyncio.CancelledError:
            await _last(processing, shown)
            raise
        finally:
            await _end(processing)
        await shown.put_back()
        await progress.save(part, at_end=True)
    return waits


async def _end(processing: "asyncio.Future[None]") -> None:
    processing.cancel()
    await asyncio.gather(processing, return_exceptions=True)


async def _last(processing: "asyncio.Future[None]", shown: "_Shown") -> None:
    """Put items back in a task that was cancelled, and may be once more while it does so."""

    async def do() -> None:
        await _end(processing)
        await shown.put_back()

    doing, end = asyncio.ensure_future(do()), time.monotonic() + _LAST_SECONDS
    while not doing.done() and time.monotonic() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.wait((doing,), timeout=_LAST_SECONDS)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)


class _Shown:
    """What the rows say of items that are not done, while they are worked on and afterwards."""

    def __init__(self, items: Sequence[ProcessingItem], batch_id: str, store: BatchStore) -> None:
        self._items = items
        self._batch_id = batch_id
        self._store = store
        self._said: dict[int, tuple[str, str]] = {id(item): (item.key.row.status, item.key.row.stage) for item in items}
        self._kept = {id(item): item.stage for item in items if item.carry is not None}

    async def keep_up(self) -> None:
        """Save what is under way or waits for another try, once for each change; what is fast is never seen here."""
        with suppress(StoreError):  # it is seen again soon
            await self._save([item for item in self._items if not item.is_done and self._differs(item)])

    async def put_back(self) -> None:
        """Save all that was begun and is not done, now that nothing is under way."""
        begun = [item for item in self._items if not item.is_done and (item.attempts or self._differs(item))]
        await self._save(begun, at_end=True)

    def _differs(self, item: ProcessingItem) -> bool:
        if item.status is ProcessingStatus.PENDING:  # what was never begun stays as it is in the store
            return self._said[id(item)][0] == ProcessingStatus.IN_PROGRESS.value
        return self._said[id(item)] != (item.status.value, item.stage)

    async def _save(self, items: Sequence[ProcessingItem], *, at_end: bool = False) -> None:
        rows, said, kept = [], {}, {}
        for item in items:
            said[id(item)] = (item.status.value, item.stage)
            row = so_far(item)
            if at_end and item.status is ProcessingStatus.PENDING and item.code is not None:
                row.status = ProcessingStatus.RETRYING.value  # a try of what failed before was broken off
            failed = at_end or item.status is ProcessingStatus.RETRYING
            if failed and self._kept.get(id(item)) != item.stage and (made := made_of(item)) is not None:
                row.made, kept[id(item)] = made, item.stage
                item.key.row.made = {}
            rows.append(row)
        if rows:
            await self._store.save(self._batch_id, rows)
            self._said |= said
            self._kept |= kept


async def _goes_on(store: BatchStore, batch_id: str) -> bool:
    with suppress(StoreError):  # it is asked again soon
        return (await store.batch(batch_id)).status in GOES_ON
    return True


async def _when_due(items: Sequence[ProcessingItem]) -> AsyncIterator[ProcessingItem]:
    """Yield items that may be worked on at once, then those that must not yet."""
    for item in sorted(items, key=_seconds_left):
        await asyncio.sleep(_seconds_left(item))
        yield item


def _seconds_left(item: ProcessingItem) -> float:
    row: ItemRow = item.key.row
    due, now = row.not_before, datetime.now(UTC)
    if due is None:
        return 0.0
    # At most as long as was said: the clock may have been set back since.
    return max(0.0, (due - max(now, row.updated_at or now)).total_seconds())


def _only_waits(items: Sequence[ProcessingItem], pipeline: AIProcessingPipeline) -> bool:
    """Tell whether none of these items can be worked on now, be it for its host's sake or for its own."""
    parked = pipeline.get_status_report()["waiting"]

    def is_down(lane: str) -> bool:
        # Between two looks at whether a service is back its lane is not parked.
        known = lane in pipeline.breakers
        return lane in parked or (known and pipeline.breakers.get(lane).state is not CircuitState.CLOSED)

    down = {lane for lane in set(map(_lane, items)) if is_down(lane)}
    return all(_waits(item, down) for item in items)


def _waits(item: ProcessingItem, down: Collection[str]) -> bool:
    if item.status is ProcessingStatus.PENDING:
        return _seconds_left(item) > 0 or _lane(item) in down
    carried = item.carry
    probes = item.status is ProcessingStatus.IN_PROGRESS and isinstance(carried, Carried) and carried.probing
    return probes or item.status is ProcessingStatus.RETRYING


def _lane(item: ProcessingItem) -> str:
    """Return where an item waits; empty when it was not taken in yet."""
    if item.stage != STAGES[0]:
        return item.stage
    return item.carry.lane if isinstance(item.carry, Carried) else ""
