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
        await remove_rows(access, table.c.run_id == run_id, table.c.row)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(sa.delete(runs).where(runs.c.id == run_id, runs.c.status == ABANDONED))

    await access.write("remove a run from", work)


async def remove_rows(access: StoreAccess, which: sa.ColumnElement[bool], number: sa.Column[int]) -> None:
    """Remove rows of one table in pieces.

    Args:
        access: The database.
        which: Which rows.
        number: Tells them apart; they go in its order.

    Raises:
        StoreError: The database cannot be used; some may be gone.
    """
    last: int | None = -MAX_ROW - 1
    while last is not None:
        last = await access.write("remove rows from", _Piece(which, number, last))


class _Piece:
    """Removes the rows that follow one; returns the last of them, None when there are no more."""

    def __init__(self, which: sa.ColumnElement[bool], number: sa.Column[int], after: int) -> None:
        self._which = which
        self._number = number
        self._after = after

    async def __call__(self, connection: AsyncConnection) -> int | None:
        number, which = self._number, self._which
        piece = sa.select(number).where(which, number > self._after).order_by(number).limit(_ROWS).subquery()
        last: int | None = await connection.scalar(sa.select(sa.func.max(piece.c[0])))
        if last is not None:
            await connection.execute(sa.delete(number.table).where(which, number <= last))
        return last
