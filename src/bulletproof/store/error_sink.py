"""Error counts that outlive a process and are seen by all of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.monitor.sharing import ErrorBatch
from bulletproof.store.access import StoreAccess
from bulletproof.store.bulk import insert_into
from bulletproof.store.tables import error_batches


class SqlErrorSink:
    """Keeps the batches of ``bulletproof.monitor.MonitorSharing`` beside the results.

    Args:
        access: The database; ``ResultStore.access`` is one.
    """

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        insert = insert_into(error_batches, access.address.kind)
        self._save = insert.on_conflict_do_update(
            index_elements=["source", "sequence"],
            set_={"until": insert.excluded.until, "payload": insert.excluded.payload},
        )

    async def save_errors(self, batch: ErrorBatch) -> None:
        """Add a batch, or replace the one of the same source and sequence.

        Raises:
            StoreError: The database cannot be used.
        """
        values = {"source": batch.source, "sequence": batch.sequence, "until": batch.until, "payload": batch.payload}

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(self._save.values(values))

        await self._access.write("save error counts in", work)

    async def load_errors(self, after: Mapping[str, int], since: datetime) -> Sequence[ErrorBatch]:
        """Return the batches that may hold something new.

        Args:
            after: For each source that is known already, the sequence from which on its batches are wanted.
            since: Only batches written at or after this moment.

        Returns:
            The batches, ordered by source and sequence.

        Raises:
            StoreError: The database cannot be used.
        """
        table = error_batches.c
        known = (
            sa.values(sa.column("source", sa.Text), sa.column("sequence", sa.BigInteger), name="given")
            .data([("", 0), *after.items()])
            .cte("known")
        )
        query = (
            sa.select(table.source, table.sequence, table.until, table.payload)
            .outerjoin_from(error_batches, known, known.c.source == table.source)
            .where(table.until >= since, table.sequence >= sa.func.coalesce(known.c.sequence, table.sequence))
            .order_by(table.source, table.sequence)
        )

        async def work(connection: AsyncConnection) -> list[ErrorBatch]:
            return [ErrorBatch(*row) for row in await connection.execute(query)]

        return await self._access.read("read error counts from", work)

    async def forget_errors(self, before: datetime) -> None:
        """Remove the batches written before a moment.

        Raises:
            StoreError: The database cannot be used.
        """

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(error_batches).where(error_batches.c.until < before))

        await self._access.write("remove error counts from", work)
