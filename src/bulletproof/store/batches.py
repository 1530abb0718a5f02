"""Where batches of URLs are kept: what is to be done, how far each item is, what came of it."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import InputValidationError
from bulletproof.store import batch_records as records
from bulletproof.store.access import StoreAccess
from bulletproof.store.batch_made import packed
from bulletproof.store.batch_making import BatchMaker
from bulletproof.store.batch_records import FINISHED, STATUSES, TERMINAL, Batch, Counts, ItemRow
from bulletproof.store.batch_upkeep import VISIBLE, BatchUpkeep, unknown
from bulletproof.store.bulk import BulkInsert
from bulletproof.store.page_memory import PageMemory
from bulletproof.store.tables import batch_items, batch_made, batches
from bulletproof.store.values import MAX_ROW, checked_limit, clean, is_id

CHUNK_SIZE = 500
_PIECE = 5000  # rows changed in one transaction
_PAGE = 1000
_PART = 2_000_000  # items counted at once

_COUNTED = sa.select(sa.func.count()).where(batch_items.c.batch == batches.c.id).scalar_subquery()
# Of a batch that was made empty, and whose items come as they are saved, the numbers are known at its end.
_NUMBERS = {
    name: sa.case((batches.c.given == 0, _COUNTED), else_=batches.c[name]).label(name) for name in ("given", "total")
}
_BATCH = sa.select(
    batches.c.batch_id.label("id"),
    *(_NUMBERS.get(name, batches.c[name]) for name in Batch.__dataclass_fields__ if name != "id"),
).where(VISIBLE)
_ITEM = sa.select(*(column for column in batch_items.c if column.name not in ("batch", "tries")))
_UNSUCCESSFUL = (*records.OPEN, "failed")
_OPEN = batch_items.c.status.in_(records.OPEN)  # said so that an index leads to them


def _newest_wins(insert: Any) -> Any:
    """Let the later round of an item count, and within a round the first terminal status."""
    there, new = batch_items.c, insert.excluded
    terminal = there.status.in_([sa.literal_column(f"'{status}'") for status in TERMINAL])
    fixed = ("batch", "position", "url_key", "url", "host")
    return insert.on_conflict_do_update(
        index_elements=["batch", "url_key"],
        set_={column.name: new[column.name] for column in there if column.name not in fixed},
        where=(new.round > there.round) | ((new.round == there.round) & (new.tries >= there.tries) & ~terminal),
    )


class BatchStore(BatchUpkeep):
    """Keeps batches of URLs beside the results, in SQLite or PostgreSQL.

    Each item's row is the truth about it. Every operation may be repeated, takes a bounded time, and is safe against
    other processes that do the same. Each raises a ``StoreError`` when the database cannot be used, and a
    ``NotFoundError`` when there is no batch of the id.

    Args:
        access: The database; ``ResultStore.access`` is one.
        now: Gives the present moment (aware).

    Example:
        >>> import asyncio, tempfile
        >>> from bulletproof.store import ResultStore
        >>> async def main(folder):
        ...     results = ResultStore(data_dir=folder)
        ...     store = BatchStore(results.access)
        ...     batch = await store.create(["https://example.com/1", "https://example.com/2", "https://example.com/1"])
        ...     items = await store.chunk_items(batch.id, 0)
        ...     items[0].status, items[0].result = "success", {"score": 0.5}
        ...     await store.save(batch.id, items[:1])
        ...     counts = await store.counts(batch.id)
        ...     await results.aclose()
        ...     return batch.total, batch.duplicates, counts.by_status["success"], counts.by_status["pending"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        (2, 1, 1, 1)
    """

    def __init__(self, access: StoreAccess, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(access, now)
        kind = access.address.kind
        self._save = BulkInsert(batch_items, kind, _newest_wins)
        self._maker = BatchMaker(access, now)
        self._pages = PageMemory(kind)

    async def create(
        self,
        urls: Iterable[str] | AsyncIterable[str],
        *,
        owner: str | None = None,
        key: str | None = None,
        options: dict[str, Any] | None = None,
        chunk_size: int = CHUNK_SIZE,
        schema_version: int = 1,
        spelling: Callable[[str], str] = str,
    ) -> Batch:
        """Make a batch; nobody sees it before all of it is there.

        Args:
            urls: The URLs, as many as there are; they are read once and never held all at once. A URL that came before
                is left out.
            owner: Whose batch it is.
            key: An idempotency key: given again by the same owner with the same URLs and options, it leads to the batch
                that was made first.
            options: What the maker wants; JSON.
            chunk_size: Items are worked on in chunks of so many positions.
            schema_version: Version of the workflow that will work on it.
            spelling: Gives the one spelling of a URL: those with the same one are the same item, which keeps the URL
                that came first as it was given.

        Returns:
            The batch, ``queued``.

        Raises:
            InputValidationError: The key was used for something else (``conflict``), or makes no sense.
        """
        found = await self._maker.make(
            urls, owner=owner, key=key, options=options or {}, chunk_size=chunk_size, schema_version=schema_version,
            spelling=spelling,
        )  # fmt: skip
        return await self.batch(found)

    async def batch(self, batch_id: str, *, owner: str | None = None) -> Batch:
        """Return a batch.

        Args:
            batch_id: Its id.
            owner: Whose it must be; anybody's when None.

        Raises:
            NotFoundError: It is somebody else's, too.
        """
        query = _BATCH.where(batches.c.batch_id == batch_id)
        if owner is not None:
            query = query.where(batches.c.owner == clean(owner))

        async def work(connection: AsyncConnection) -> Batch:
            row = (await connection.execute(query)).mappings().first() if is_id(batch_id) else None
            if row is None:
                raise unknown(batch_id)
            return Batch(**row)

        return await self.access.read("read a batch from", work)

    async def batches(
        self, *, owner: str | None = None, status: str | None = None, limit: int = 50, offset: int = 0
    ) -> list[Batch]:
        """Return batches, the last one first.

        Args:
            owner: Only those of this owner.
            status: Only those of this status.
            limit: At most so many.
            offset: So many are left out at the beginning.

        Raises:
            InputValidationError: ``limit`` is below 1.
        """
        query = _BATCH.order_by(batches.c.id.desc()).limit(checked_limit(limit)).offset(max(0, offset))
        if owner is not None:
            query = query.where(batches.c.owner == clean(owner))
        if status is not None:
            query = query.where(batches.c.status == status)
        return [Batch(**row._asdict()) for row in await self.access.rows("read batches from", query)]

    async def chunk_items(self, batch_id: str, chunk: int) -> list[ItemRow]:
        """Return the items of a chunk that are not terminal, by position.

        Args:
            batch_id: The batch.
            chunk: Number of the chunk, from 0.
        """

        async def work(connection: AsyncConnection) -> list[ItemRow]:
            found = await self._find(connection, batch_id)
            first = chunk * found.chunk_size
            here = batch_items.c.position
            query = _ITEM.where(batch_items.c.batch == found.id, here >= first, here < first + found.chunk_size, _OPEN)
            return [records.from_row(row) for row in (await connection.execute(query.order_by(here))).mappings()]

        return await self.access.read("read items from", work)

    async def open_chunks(self, batch_id: str) -> list[int]:
        """Return the numbers of the chunks that hold items which are not terminal."""

        def query(found: Any, part: sa.ColumnElement[bool]) -> sa.Select[Any]:
            chunk = batch_items.c.position.op("/")(sa.literal_column(str(found.chunk_size)))
            return sa.select(chunk).where(part, _OPEN).distinct()

        return sorted({int(row[0]) for row in await self._over_all(batch_id, "read items from", query)})

    async def items(
        self,
        batch_id: str,
        *,
        status: str | None = None,
        code: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[ItemRow]:
        """Return items, by position.

        Args:
            batch_id: The batch.
            status: Only those of this status.
            code: Only those whose last error has this code.
            after: Only those behind this position: for the next page, that of the last item of this one.
            limit: At most so many.

        Raises:
            InputValidationError: ``limit`` is below 1, or there is no such status.
        """
        if status is not None and status not in STATUSES:
            raise InputValidationError(
                f"there is no status {status!r:.40}", hint=f"Use one of: {', '.join(STATUSES)}.", field="status"
            )
        query = _ITEM.order_by(batch_items.c.position).limit(checked_limit(limit))
        if after is not None:
            query = query.where(batch_items.c.position > min(after, MAX_ROW))
        if status is not None:
            query = query.where(batch_items.c.status == status)
        if code is not None:
            query = query.where(batch_items.c.code == clean(code), batch_items.c.status.in_(_UNSUCCESSFUL))

        async def work(connection: AsyncConnection) -> list[ItemRow]:
            found = await self._find(connection, batch_id)
            rows = await connection.execute(query.where(batch_items.c.batch == found.id))
            return [records.from_row(row) for row in rows.mappings()]

        return await self.access.read("read items from", work)

    async def stream_results(self, batch_id: str, *, status: str | None = None) -> AsyncIterator[ItemRow]:
        """Yield all items by position, read a page at a time; the arguments and errors are those of ``items``."""
        after: int | None = None
        while page := await self.items(batch_id, status=status, after=after, limit=_PAGE):
            for item in page:
                yield item
            after = page[-1].position

    async def save(self, batch_id: str, items: Sequence[ItemRow]) -> str:
        """Save items in one transaction, each in place of what was known of its URL; new ones are added.

        What a stale writer says does not count: in the round of an item its first terminal status is final, and one
        with fewer attempts does not replace one with more. So anything may be saved twice. With it goes what its stages
        made, if it is not done.

        Args:
            batch_id: The batch.
            items: The items.

        Returns:
            The status of the batch, which tells whether to go on.

        Raises:
            InputValidationError: An item has no such status.
        """
        latest = {item.key: item for item in items}.values()
        ordered = sorted(latest, key=lambda item: item.position)  # in one order, so that no two writers lock each other
        made = await packed(ordered)

        async def work(connection: AsyncConnection) -> str:
            found = await self._find(connection, batch_id)
            now = self._now().timestamp()
            await self._save(connection, [records.to_row(found.id, item, now) for item in ordered])
            await self._pages.remember(connection, found.owner, ordered, now)
            await self._parts.keep(connection, found.id, ordered, made)
            return str(found.status)

        return await self.access.write("save items in", work)

    async def earlier_results(self, urls: Iterable[str], *, owner: str | None = None) -> dict[str, dict[str, Any]]:
        """Return what earlier runs of this owner made of pages that can be revalidated.

        Args:
            urls: The URLs.
            owner: Whose runs.

        Returns:
            The last result by URL, with ``etag`` or ``last_modified``, for those that there is one of.
        """
        wanted = list(urls)

        async def work(connection: AsyncConnection) -> dict[str, dict[str, Any]]:
            return await self._pages.recall(connection, owner, wanted)

        return await self.access.read("read pages from", work) if wanted else {}

    async def counts(self, batch_id: str) -> Counts:
        """Count the items of a batch."""
        columns = (batch_items.c.status, batch_items.c.stage, batch_items.c.code)

        def query(_: Any, part: sa.ColumnElement[bool]) -> sa.Select[Any]:
            return sa.select(*columns, sa.func.count()).where(part).group_by(*columns)

        counts = Counts(dict.fromkeys(STATUSES, 0), {}, {}, {})
        for status, stage, code, number in await self._over_all(batch_id, "count items in", query):
            counts.by_status[status] += number
            if status != "success":
                counts.by_stage[stage] = counts.by_stage.get(stage, 0) + number
            if code is not None and status in ("failed", "retrying"):
                by_code = counts.by_code if status == "failed" else counts.retrying_by_code
                by_code[code] = by_code.get(code, 0) + number
        return counts

    async def attempts(self, batch_id: str) -> int:
        """Add up the tries of all items and stages; unlike ``counts`` it reads each row."""
        tries = sa.func.coalesce(sa.func.sum(batch_items.c.tries), 0)
        parts = await self._over_all(batch_id, "count tries in", lambda _, part: sa.select(tries).where(part))
        return sum(int(part[0]) for part in parts)

    async def set_status(self, batch_id: str, status: str) -> Batch:
        """Change the status of a batch; the one that it has already is no change.

        Args:
            batch_id: The batch.
            status: What ``NEXT`` of ``bulletproof.store.batch_records`` allows.

        Returns:
            The batch as it is now.

        Raises:
            InputValidationError: It cannot become that from what it is (``conflict``).
        """
        before = [old for old, allowed in records.NEXT.items() if status in allowed]

        async def work(connection: AsyncConnection) -> None:
            now = self._now()
            change = sa.update(batches).where(batches.c.batch_id == batch_id, batches.c.status.in_(before))
            finished = now if status in FINISHED else None
            done = await connection.execute(change.values(status=status, updated_at=now, finished_at=finished))
            if done.rowcount:
                return
            found = await self._find(connection, batch_id)
            if found.status != status:
                raise InputValidationError(
                    f"the batch is {found.status} and cannot become {status}", code="conflict", batch=batch_id
                )

        await self.access.write("change a batch in", work)
        return await self.batch(batch_id)

    async def finish(self, batch_id: str, *, given: int = 0) -> bool:
        """Mark a batch as complete if all its items are terminal and nobody paused or cancelled it.

        Args:
            batch_id: The batch.
            given: URLs that it was made of, duplicates among them, where it was made before they were known; a batch
                that is complete takes more of them.

        Returns:
            Whether it is complete.
        """

        async def work(connection: AsyncConnection) -> bool:
            found = await self._find(connection, batch_id)
            left = sa.select(batch_items.c.position).where(batch_items.c.batch == found.id, _OPEN).limit(1)
            before = ("queued", "running", "complete") if given else ("queued", "running")
            change = sa.update(batches).where(batches.c.id == found.id, batches.c.status.in_(before), ~sa.exists(left))
            now = self._now()
            values: dict[str, Any] = {"status": "complete", "updated_at": now, "finished_at": now}
            if given or not found.given:  # it was made empty, and its items came as they were saved
                values["total"] = _COUNTED
                values["given"] = sa.case((given > _COUNTED, given), else_=_COUNTED)
            await connection.execute(change.values(values))
            return bool((await self._find(connection, batch_id)).status == "complete")

        return await self.access.write("finish a batch in", work)

    async def retry_failed(self, batch_id: str, *, codes: Iterable[str] | None = None) -> int:
        """Make failed items pending again, and a complete batch queued.

        What is kept of an item's earlier stages stays, and says where it begins.

        Args:
            batch_id: The batch.
            codes: Only those that failed with one of these codes.

        Returns:
            How many.

        Raises:
            InputValidationError: The batch is cancelled (``conflict``).
        """
        wanted = batch_items.c.status == "failed"
        if codes is not None:
            wanted &= batch_items.c.code.in_([clean(code) for code in codes])
        kept = sa.select(batch_made.c.stage).where(
            batch_made.c.batch == batch_items.c.batch, batch_made.c.position == batch_items.c.position
        )
        fresh: dict[str, Any] = {
            "status": "pending", "stage": sa.func.coalesce(kept.scalar_subquery(), records.FIRST_STAGE),
            "round": batch_items.c.round + 1, "retry_count": 0, "retries": None,
            "code": None, "error": None, "hint": None, "not_before": None,
        }  # fmt: skip

        async def piece(connection: AsyncConnection) -> tuple[int, bool]:
            found = await self._find(connection, batch_id)
            if found.status == "cancelled":
                raise InputValidationError("the batch is cancelled; make a new one", code="conflict", batch=batch_id)
            mine = batch_items.c.batch == found.id
            some = sa.select(batch_items.c.position).where(mine, wanted).order_by(batch_items.c.position).limit(_PIECE)
            now = self._now()
            done = await connection.execute(
                sa.update(batch_items)
                .where(mine, wanted, batch_items.c.position.in_(some))
                .values(fresh | {"updated_at": now.timestamp()})
            )
            if done.rowcount:
                # In the same transaction: at no moment is a complete batch one with something left to do.
                reopened = sa.update(batches).where(batches.c.id == found.id, batches.c.status == "complete")
                await connection.execute(reopened.values(status="queued", updated_at=now, finished_at=None))
            return done.rowcount, done.rowcount < _PIECE

        total, last = 0, False
        while not last:
            count, last = await self.access.write("retry items of a batch in", piece)
            total += count
        return total

    async def _over_all(
        self, batch_id: str, doing: str, query: Callable[[Any, sa.ColumnElement[bool]], sa.Select[Any]]
    ) -> list[Any]:
        """Run a query over all items, a part at a time, so that none takes long however many they are."""
        found = await self.access.read(doing, lambda connection: self._find(connection, batch_id))
        rows: list[Any] = []
        mine, here = batch_items.c.batch == found.id, batch_items.c.position
        for first in range(0, max(found.given, 1), _PART):
            # All in one, the planner chooses a smaller index.
            part = mine & (here >= first) if found.given > _PART else mine
            part &= here < first + _PART if first + _PART < found.given else sa.true()

            async def work(connection: AsyncConnection, part: sa.ColumnElement[bool] = part) -> list[Any]:
                return list(await connection.execute(query(found, part)))

            rows += await self.access.read(doing, work)
        return rows
