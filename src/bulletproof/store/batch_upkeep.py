"""What goes with batches: figures, what stages made, and the removal of all of it."""

import math
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import NotFoundError
from bulletproof.store.access import StoreAccess
from bulletproof.store.batch_made import MadeParts
from bulletproof.store.batch_records import FINISHED, ItemRow
from bulletproof.store.bulk import BulkInsert, replace
from bulletproof.store.removal import remove_rows
from bulletproof.store.tables import ABANDONED, CREATING, batch_figures, batch_items, batch_made, batches, pages
from bulletproof.store.values import clean, is_id

ORPHAN_AGE = timedelta(hours=1)
VISIBLE = batches.c.status.not_in((CREATING, ABANDONED))


class BatchUpkeep:
    """The part of ``BatchStore`` that says little of single items."""

    def __init__(self, access: StoreAccess, now: Callable[[], datetime]) -> None:
        self.access = access
        self._now = now
        kind = access.address.kind
        self._parts = MadeParts(kind)
        self._put_figures = BulkInsert(
            batch_figures, kind, lambda insert: replace(insert, where=insert.excluded.at >= batch_figures.c.at)
        )

    async def made(self, batch_id: str, items: Sequence[ItemRow]) -> list[dict[str, Any] | None]:
        """Return for each of these items what the stages before the one that failed made of it, as it was saved.

        From then on their rows know that something is kept, which goes when they are saved as successful.
        """
        if not items:
            return []
        positions = [item.position for item in items]

        async def work(connection: AsyncConnection) -> dict[int, dict[str, Any]]:
            found = await self._find(connection, batch_id)
            return await self._parts.load(connection, found.id, min(positions), max(positions))

        kept = await self.access.read("read what was made of items from", work)
        for item in items:
            item.made = {} if item.position in kept else None
        return [kept.get(position) for position in positions]

    async def idle_for(self, batch_id: str) -> float:
        """Return the seconds since an item of a batch was saved; infinity when it has none."""

        async def work(connection: AsyncConnection) -> float | None:
            found = await self._find(connection, batch_id)
            last = sa.select(sa.func.max(batch_items.c.updated_at)).where(batch_items.c.batch == found.id)
            moment: float | None = await connection.scalar(last)
            return moment

        last = await self.access.read("look at items in", work)
        return math.inf if last is None else self._now().timestamp() - last

    async def release(self, batch_id: str) -> None:
        """Make items pending that nobody works on any more: those of a batch that was stopped."""
        c, values = batch_items.c, {"status": "pending", "updated_at": self._now().timestamp()}

        async def work(connection: AsyncConnection) -> None:
            found = await self._find(connection, batch_id)
            left = sa.update(batch_items).where(c.batch == found.id, c.status == "in_progress")
            await connection.execute(left.values(values))

        await self.access.write("release items in", work)

    async def save_figures(self, batch_id: str, source: str, figures: dict[str, Any]) -> None:
        """Keep what one process measured of a batch, in place of what it said before.

        Args:
            batch_id: The batch.
            source: The process, or what it did in one go.
            figures: JSON, all of what it measured so far.
        """
        data = zlib.compress(orjson.dumps(clean(figures)), 1)

        async def work(connection: AsyncConnection) -> None:
            found = await self._find(connection, batch_id)
            await self._put_figures(connection, [(found.id, source, self._now().timestamp(), data)])

        await self.access.write("save figures in", work)

    async def figures(self, batch_id: str) -> list[tuple[str, float, dict[str, Any]]]:
        """Return source, seconds since they were saved, and figures of each process that worked on a batch."""
        c = batch_figures.c

        async def work(connection: AsyncConnection) -> list[Any]:
            found = await self._find(connection, batch_id)
            return list(await connection.execute(sa.select(c.source, c.at, c.data).where(c.batch == found.id)))

        rows, now = await self.access.read("read figures from", work), self._now().timestamp()
        return [(row.source, now - row.at, orjson.loads(zlib.decompress(row.data))) for row in rows]

    async def delete(self, batch_id: str) -> None:
        """Remove a batch with its items, whatever its status; nobody sees it from the first moment on."""

        async def work(connection: AsyncConnection) -> int:
            found = await self._find(connection, batch_id)
            await connection.execute(
                sa.update(batches).where(batches.c.id == found.id).values(status=ABANDONED, key_of_owner=None)
            )
            return int(found.id)

        await self._remove(await self.access.write("remove a batch from", work))

    async def sweep(self, *, orphan_age: timedelta = ORPHAN_AGE, retention: timedelta | None = None) -> int:
        """Remove what is of no use any more: batches whose maker died, and what is too old.

        Args:
            orphan_age: How long nothing must have been heard of the maker of a batch.
            retention: How long finished batches, and what is known of pages, are kept; for ever when None.

        Returns:
            How many batches were removed.
        """
        now = self._now()
        gone = (batches.c.status == CREATING) & (batches.c.updated_at < now - orphan_age)
        if retention is not None:
            gone |= batches.c.status.in_(FINISHED) & (batches.c.updated_at < now - retention)

        async def work(connection: AsyncConnection) -> Sequence[int]:
            await connection.execute(sa.update(batches).where(gone).values(status=ABANDONED, key_of_owner=None))
            if retention is not None:
                await connection.execute(sa.delete(pages).where(pages.c.checked_at < (now - retention).timestamp()))
            return (await connection.scalars(sa.select(batches.c.id).where(batches.c.status == ABANDONED))).all()

        numbers = await self.access.write("sweep batches in", work)
        for number in numbers:
            await self._remove(number)
        return len(numbers)

    async def _remove(self, number: int) -> None:
        for table in (batch_made, batch_items):
            await remove_rows(self.access, table.c.batch == number, table.c.position)
        figures = sa.delete(batch_figures).where(batch_figures.c.batch == number)
        gone = sa.delete(batches).where(batches.c.id == number, batches.c.status == ABANDONED)
        await self.access.execute("remove a batch from", figures, gone)

    async def _find(self, connection: AsyncConnection, batch_id: str) -> Any:
        columns = (batches.c.id, batches.c.status, batches.c.owner, batches.c.chunk_size, batches.c.given)
        query = sa.select(*columns).where(batches.c.batch_id == batch_id, VISIBLE)
        row = (await connection.execute(query)).first() if is_id(batch_id) else None
        if row is None:
            raise unknown(batch_id)
        return row


def unknown(batch_id: str) -> NotFoundError:
    return NotFoundError(f"there is no batch {batch_id!r:.80}")
