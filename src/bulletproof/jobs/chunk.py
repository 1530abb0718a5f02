"""Works on a chunk: takes its items through the pipeline, which saves each as soon as it is done."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from bulletproof.errors import StoreError
from bulletproof.pipeline import AIProcessingPipeline, ProcessingItem, ProcessingStatus
from bulletproof.pipeline.rows import GOES_ON, RowKey
from bulletproof.resilience import CircuitState
from bulletproof.store import Batch, BatchStore, ItemRow

_LOOK_SECONDS = 1.0
_WAITING_SECONDS = 2.0
_log = logging.getLogger("bulletproof.jobs")


async def work_on(
    rows: Sequence[ItemRow],
    batch: Batch,
    *,
    store: BatchStore,
    pipeline: AIProcessingPipeline,
    going: Callable[[], bool],
    may_wait: bool,
) -> bool:
    """Take items to their end, or as far as they get before the batch is paused or the process stops.

    What is under way then is broken off, to be done again later.

    Args:
        rows: The items, none of them terminal.
        batch: Their batch.
        store: Says whether the batch is still worked on.
        pipeline: Shared by all chunks of this process; saves what is done.
        going: Whether to go on.
        may_wait: Whether to wait for items that only wait: for a host that is down, or until they may be tried again.

    Returns:
        Whether items are left that only wait, because ``may_wait`` is False.

    Raises:
        NotFoundError: The batch was deleted.
        StoreError: What is left cannot be saved.
    """
    retries = batch.options.get("max_retries", 3)
    items = [
        ProcessingItem(
            row.url, retry_count=row.retry_count, max_retries=retries, priority=row.priority, key=RowKey(batch.id, row)
        )
        for row in rows
    ]
    await pipeline.recall(items, owner=batch.owner)
    processing = asyncio.ensure_future(pipeline.process_items(_when_due(items)))
    waiting_since: float | None = None
    try:
        while True:
            await asyncio.wait((processing,), timeout=_LOOK_SECONDS)
            if processing.done():
                await processing
                return False
            if not going() or not await _goes_on(store, batch.id):
                return False
            left = [item for item in items if not item.is_done]
            if may_wait or not _only_waits(left, pipeline):
                waiting_since = None
            elif waiting_since is None:
                waiting_since = time.monotonic()
            elif time.monotonic() - waiting_since >= _WAITING_SECONDS:
                break
    finally:
        processing.cancel()
        await asyncio.gather(processing, return_exceptions=True)
    # What was never begun stays as it is in the store.
    begun = [item for item in left if item.attempts or item.status is ProcessingStatus.RETRYING]
    await store.save(batch.id, [_so_far(item) for item in begun if not item.is_done])
    return True


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

    lanes = {item.carry.lane for item in items if item.carry is not None}
    down = {lane for lane in lanes if is_down(lane)}
    return all(_waits(item, down) for item in items)


def _waits(item: ProcessingItem, down: Collection[str]) -> bool:
    if item.status is ProcessingStatus.PENDING:
        return _seconds_left(item) > 0 or (item.carry is not None and item.carry.lane in down)
    probes = item.status is ProcessingStatus.IN_PROGRESS and item.carry is not None and item.carry.probing
    return probes or item.status is ProcessingStatus.RETRYING


def _so_far(item: ProcessingItem) -> ItemRow:
    row: ItemRow = item.key.row
    attempts = {stage: row.attempts.get(stage, 0) + count for stage, count in item.attempts.items()}
    return replace(
        row, status=ProcessingStatus.RETRYING.value, attempts=row.attempts | attempts, retry_count=item.retry_count,
        code=item.code, error=item.error, hint=item.hint, not_before=item.not_before or row.not_before,
    )  # fmt: skip
