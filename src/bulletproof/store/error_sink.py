"""Error counts that outlive a process and are seen by all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from bulletproof.monitor.sharing import ErrorBatch
from bulletproof.store.access import StoreAccess
from bulletproof.store.bulk import insert_into, replace
from bulletproof.store.tables import error_batches


class SqlErrorSink:
    """Keeps the batches of ``bulletproof.monitor.MonitorSharing`` beside the results.

    Args:
        access: The database; ``ResultStore.access`` is one.
    """

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        self._save = replace(insert_into(error_batches, access.address.kind))

    async def save_errors(self, batch: ErrorBatch) -> None:
        """Add a batch, or replace the one of the same source and sequence.

        Raises:
            StoreError: The database cannot be used.
        """
        await self._access.execute("save error counts in", self._save.values(asdict(batch)))

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
        return [ErrorBatch(*row) for row in await self._access.rows("read error counts from", query)]

    async def forget_errors(self, before: datetime) -> None:
        """Remove the batches written before a moment.

        Raises:
            StoreError: The database cannot be used.
        """
        await self._access.execute(
            "remove error counts from", sa.delete(error_batches).where(error_batches.c.until < before)
        )
