"""What the stages of an item made before the one that failed, so that only that one is done again."""

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.store.batch_records import ItemRow
from bulletproof.store.bulk import BulkInsert, replace
from bulletproof.store.tables import batch_items, batch_made
from bulletproof.store.values import clean

_ROWS = 500  # looked at in one query
_READ_BYTES = 64 * 2**20  # of JSON that is read at once; what is beyond that begins anew

Packed = dict[int, tuple[str, bytes]]


async def packed(items: Iterable[ItemRow]) -> Packed:
    """Compress what is to be kept of items, off the event loop; by position."""
    found = [(item.position, item.stage, item.made) for item in items if item.made]
    return await asyncio.to_thread(_pack, found) if found else {}


class MadeParts:
    """Keeps, for items that are not done, what earlier stages made of them."""

    def __init__(self, kind: str) -> None:
        self._put = BulkInsert(batch_made, kind, replace)

    async def keep(self, connection: AsyncConnection, batch: int, items: Sequence[ItemRow], made: Packed) -> None:
        """Keep or remove what belongs to items that were just saved; of those whose row stayed another, nothing.

        It belongs into the transaction that saved them; an item whose ``made`` is empty says that what is kept may go.
        """
        touched = [item for item in items if item.made is not None]
        for start in range(0, len(touched), _ROWS):
            some = {item.position: item for item in touched[start : start + _ROWS]}
            c = batch_items.c
            rows = await connection.execute(
                sa.select(c.position, c.round, c.status, c.stage, c.tries).where(
                    c.batch == batch, c.position.in_(list(some))
                )
            )
            # The others were saved by somebody who knows better.
            ours = {row.position for row in rows if tuple(row[1:]) == _state(some[row.position])}
            gone = [at for at, item in some.items() if at in ours and not item.made]
            if gone:
                mine = (batch_made.c.batch == batch) & batch_made.c.position.in_(gone)
                await connection.execute(sa.delete(batch_made).where(mine))
            await self._put(connection, [(batch, at, *made[at]) for at in sorted(ours & made.keys())])

    async def load(self, connection: AsyncConnection, batch: int, first: int, last: int) -> dict[int, dict[str, Any]]:
        c = batch_made.c
        query = sa.select(c.position, c.data).where(c.batch == batch, c.position.between(first, last))
        found, size = {}, 0
        for position, data in await connection.execute(query.order_by(c.position)):
            try:
                text = zlib.decompress(data)
                size += len(text)
                if size > _READ_BYTES:
                    break
                found[position] = orjson.loads(text)
            except (zlib.error, orjson.JSONDecodeError):
                continue  # it begins anew
        return found


def _state(item: ItemRow) -> tuple[Any, ...]:
    return (item.round, item.status, clean(item.stage), sum(item.attempts.values()))


def _pack(found: list[tuple[int, str, dict[str, Any]]]) -> Packed:
    return {at: (stage, zlib.compress(orjson.dumps(clean(made), default=str), 1)) for at, stage, made in found}
