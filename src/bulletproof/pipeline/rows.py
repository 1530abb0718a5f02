"""Items as rows of a batch in the store: saved together, and read back to go on with them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from bulletproof.errors import NotFoundError
from bulletproof.pipeline.batch import Batch
from bulletproof.pipeline.batching import Batcher
from bulletproof.pipeline.handing import made_of
from bulletproof.pipeline.items import DONE, STAGES, ProcessingItem, ProcessingStatus
from bulletproof.store import BatchStore, ItemRow
from bulletproof.store.batch_records import host_of

_SIZE = 200  # items in one transaction
PLAIN = {"made_by": "process_batch"}
"""Options of a batch that a pipeline works on by itself."""
GOES_ON = ("queued", "running")
"""Statuses of a batch that is worked on."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """Which row an item is."""

    batch_id: str
    row: ItemRow


async def items_of(
    store: BatchStore,
    batch_id: str,
    rows: Sequence[ItemRow],
    *,
    max_retries: int,
    stage_retries: Mapping[str, int] | None = None,
) -> list[ProcessingItem]:
    """Make the items of rows that are not done; each begins with the stage that failed, if what it needs was kept.

    Raises:
        NotFoundError: There is no such batch.
        StoreError: The database cannot be used.
    """
    return [
        ProcessingItem(
            row.url, retry_count=row.retry_count, max_retries=max_retries, stage_retries=stage_retries,
            retries=dict(row.retries), priority=row.priority, key=RowKey(batch_id, row), carry=made,
            stage=made["stage"] if made is not None else STAGES[0],
        )
        for row, made in zip(rows, await store.made(batch_id, rows), strict=True)
    ]  # fmt: skip


def so_far(item: ProcessingItem) -> ItemRow:
    """Return the row of an item as it is now, before its end."""
    row: ItemRow = item.key.row
    return replace(
        row, status=item.status.value, stage=item.stage, attempts=_attempts(item, row), retry_count=item.retry_count,
        code=item.code, error=item.error, hint=item.hint, not_before=item.not_before or row.not_before,
        retries=dict(item.retries), _made=None,
    )  # fmt: skip


class Rows:
    """Saves items, as many in one transaction as there are at the moment; see ``Batcher`` for ``ready`` and ``linger``.

    ``stopped`` are the batches that were found paused, cancelled, complete or deleted when an item was saved.
    """

    def __init__(self, store: BatchStore, *, ready: int = 1, linger: float = 0.0) -> None:
        self._store = store
        self._batcher: Batcher[tuple[str, ItemRow], str] = Batcher(self._save, size=_SIZE, ready=ready, linger=linger)
        self._making = asyncio.Lock()
        self.stopped: set[str] = set()

    async def save(self, item: ProcessingItem, batch: Batch, status: ProcessingStatus) -> None:
        """Save an item with a status; its ``key`` says which row it is, or at least where it stood in its list.

        The batch of items that have no row yet is made in the store when the first of them is saved.
        """
        key = item.key
        if not isinstance(key, RowKey):
            position = key if isinstance(key, int) else next(batch.positions)
            async with self._making:
                if batch.batch_id is None:
                    made = await self._store.create([], options=PLAIN)
                    batch.own = True
                    batch.batch_id = (await self._store.set_status(made.id, "running")).id
            key = RowKey(batch.batch_id, ItemRow(position=position, url=item.url, host=host_of(item.url)))
        row = replace(
            key.row,
            status=status.value,
            stage=DONE if status is ProcessingStatus.SUCCESS else item.stage,
            attempts=_attempts(item, key.row),
            retry_count=item.retry_count, code=item.code, error=item.error, hint=item.hint, result=item.result,
            seconds=dict(item.seconds), not_before=None, retries=item.retries, _made=made_of(item),
        )  # fmt: skip
        if status is ProcessingStatus.SUCCESS:
            row.code = row.error = row.hint = None
            row.made = None if key.row.made is None else {}
        try:
            goes_on = await self._batcher.submit((key.batch_id, row)) in GOES_ON
        except NotFoundError:
            self.stopped.add(key.batch_id)
            raise
        if not goes_on:
            self.stopped.add(key.batch_id)

    async def open_items(
        self, batch_id: str, chunks: Collection[int] | None, max_retries: int
    ) -> AsyncIterator[list[ProcessingItem]]:
        """Yield the items of a batch that are not done, chunk by chunk."""
        self.stopped.discard(batch_id)
        for chunk in await self._store.open_chunks(batch_id):
            if chunks is None or chunk in chunks:
                rows = await self._store.chunk_items(batch_id, chunk)
                yield await items_of(self._store, batch_id, rows, max_retries=max_retries)

    async def aclose(self) -> None:
        """Break off what is under way."""
        await self._batcher.aclose()

    async def _save(self, entries: list[tuple[str, ItemRow]]) -> list[str]:
        rows: dict[str, list[ItemRow]] = {}
        for batch_id, row in entries:
            rows.setdefault(batch_id, []).append(row)
        statuses = {batch_id: await self._store.save(batch_id, some) for batch_id, some in rows.items()}
        return [statuses[batch_id] for batch_id, _ in entries]


def _attempts(item: ProcessingItem, row: ItemRow) -> dict[str, int]:
    return row.attempts | {stage: row.attempts.get(stage, 0) + count for stage, count in item.attempts.items()}
