"""Removing runs, in pieces so small that nobody waits for it."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.store.access import StoreAccess
from bulletproof.store.tables import ABANDONED, rejections, results, runs
from bulletproof.store.values import MAX_ROW

_ROWS = 5000


async def remove_run(access: StoreAccess, run_id: int) -> None:
    """Remove a run that is marked as abandoned, with its rows; what is gone already does not matter.

    Args:
        access: The database.
        run_id: Its number.

    Raises:
        StoreError: The database cannot be used; the run stays marked, and a sweep goes on with it.
    """
    for table in (results, rejections):
        last: int | None = -MAX_ROW - 1
        while last is not None:
            last = await access.write("remove rows from", _Piece(table, run_id, last))

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.delete(runs).where(runs.c.id == run_id, runs.c.status == ABANDONED))

    await access.write("remove a run from", work)


class _Piece:
    """Removes the rows that follow one; returns the last of them, None when there are no more."""

    def __init__(self, table: sa.Table, run_id: int, after: int) -> None:
        self._of_run = table.c.run_id == run_id
        self._table = table
        self._after = after

    async def __call__(self, connection: AsyncConnection) -> int | None:
        row = self._table.c.row
        piece = sa.select(row).where(self._of_run, row > self._after).order_by(row).limit(_ROWS).subquery()
        last: int | None = await connection.scalar(sa.select(sa.func.max(piece.c.row)))
        if last is not None:
            await connection.execute(sa.delete(self._table).where(self._of_run, row <= last))
        return last
