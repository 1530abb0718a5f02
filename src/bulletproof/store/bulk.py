"""Many rows at once into a table, each way that suits the database best."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

_SLICE = 1000  # rows handed to the driver at once, so that the event loop is not held up


def insert_into(table: sa.Table, kind: str) -> Any:
    """Return an insert statement with ``on_conflict_...`` for ``sqlite`` or ``postgresql``."""
    return postgresql.insert(table) if kind == "postgresql" else sqlite.insert(table)


def leave(insert: Any) -> Any:
    """Have a row that is there stay as it is."""
    return insert.on_conflict_do_nothing()


def replace(insert: Any, *, where: Any = None) -> Any:
    """Have a new row take the place of the one with its primary key, if ``where`` holds for that one."""
    columns = insert.table.c
    return insert.on_conflict_do_update(
        index_elements=[column.name for column in columns if column.primary_key],
        set_={column.name: insert.excluded[column.name] for column in columns if not column.primary_key},
        where=where,
    )


class BulkInsert:
    """Adds rows to a table; by default those that it has already are left as they are.

    Args:
        table: The table; all its columns are filled.
        kind: ``sqlite`` or ``postgresql``.
        resolve: Says what becomes of a row that is there: ``leave``, ``replace``, or what else puts ``on_conflict_...``
            behind an insert, without any parameters of its own. If it changes the row, no row may come twice in one
            call.
    """

    def __init__(self, table: sa.Table, kind: str, resolve: Callable[[Any], Any] = leave) -> None:
        self._columns = [column.name for column in table.c]
        self._for_sqlite: str | None = None
        if kind == "sqlite":
            # As plain text for plain tuples, which halves the time that the event loop spends on a chunk.
            insert = resolve(sqlite.insert(table))
            self._for_sqlite = str(insert.compile(dialect=sqlite.dialect(), column_keys=self._columns))
        else:
            # One statement with an array for each column. The driver's executemany is slower, and when its task is
            # cancelled while it writes, it goes on to wait for an answer that cannot come.
            arrays = [sa.bindparam(column.name, type_=postgresql.ARRAY(column.type)) for column in table.c]
            rows = sa.select(*(sa.func.unnest(array) for array in arrays))
            self._for_postgresql = resolve(postgresql.insert(table).from_select(self._columns, rows))

    async def __call__(self, connection: AsyncConnection, rows: Iterable[tuple[Any, ...]]) -> int:
        """Add rows, whose values are in the order of the table's columns; return how many were added or changed."""
        waiting, count = iter(rows), 0
        while part := list(islice(waiting, _SLICE)):
            if self._for_sqlite is not None:
                done = await connection.exec_driver_sql(self._for_sqlite, part)
            else:
                done = await connection.execute(
                    self._for_postgresql, dict(zip(self._columns, zip(*part, strict=True), strict=True))
                )
            count += done.rowcount
        return count
