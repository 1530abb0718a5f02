"""Removing runs, in pieces so small that nobody waits for it."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.store.access import StoreAccess
from bulletproof.store.tables import ABANDONED, rejections, results, runs
from bulletproof.store.values import MAX_ROW

_ROWS = 5000


async def remove_run(access: StoreAccess, run_id: int) -> None:
    """Remove a run that is marked as abandoned, with its rows; what is gone already does not matter.

    Broken off by a ``StoreError`` the run stays marked, and a sweep goes on with it.
    """
    for table in (results, rejections):
        await remove_rows(access, table.c.run_id == run_id, table.c.row)
    run = sa.delete(runs).where(runs.c.id == run_id, runs.c.status == ABANDONED)
    await access.execute("remove a run from", run)


async def remove_rows(access: StoreAccess, which: sa.ColumnElement[bool], number: sa.Column[int]) -> None:
    """Remove rows of one table in pieces, in the order of the column that tells them apart."""
    last: int | None = -MAX_ROW - 1

    async def remove_piece(connection: AsyncConnection) -> int | None:
        piece = sa.select(number).where(which, number > last).order_by(number).limit(_ROWS).subquery()
        end: int | None = await connection.scalar(sa.select(sa.func.max(piece.c[0])))
        if end is not None:
            await connection.execute(sa.delete(number.table).where(which, number <= end))
        return end

    while last is not None:
        last = await access.write("remove rows from", remove_piece)
