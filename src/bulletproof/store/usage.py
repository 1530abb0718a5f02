"""What callers have used up, seen by all processes that use the same database."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.store.access import StoreAccess
from bulletproof.store.bulk import BulkInsert, replace
from bulletproof.store.tables import usage
from bulletproof.store.values import clean

_SUBJECTS = 500  # asked for at once
_MOST = 50_000


class Used(NamedTuple):
    """How much of something was used.

    Args:
        subject: By whom.
        what: Of what.
        ends: When the window ends, in seconds since 1970.
        amount: How much.
    """

    subject: str
    what: str
    ends: float
    amount: float


class SqlUsage:
    """Keeps what each process has counted, and adds up what the others have.

    Args:
        access: The database.
        source: Name of this process, unlike all others.
    """

    def __init__(self, access: StoreAccess, source: str) -> None:
        self._access = access
        self._source = source
        self._put = BulkInsert(usage, access.address.kind, replace)

    async def exchange(self, ours: Sequence[Used], subjects: Collection[str] | None, *, now: float) -> list[Used]:
        """Keep our counts in place of the earlier ones, and return those of the others.

        Args:
            ours: Counts since their windows began; sending them again changes nothing.
            subjects: Whose counts are wanted; None for whoever has used most, at most 50,000.
            now: Seconds since 1970; what ended a window's length ago is removed by whoever comes.

        Raises:
            StoreError: The database cannot be used.
        """
        rows = sorted((clean(row.subject), row.what, row.ends, self._source, row.amount) for row in ours)

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(sa.delete(usage).where(usage.c.ends < now - 86_400))
            await self._put(connection, rows)

        total = sa.func.sum(usage.c.amount)
        others = (
            sa.select(usage.c.subject, usage.c.what, usage.c.ends, total)
            .where(usage.c.source != self._source)
            .group_by(usage.c.subject, usage.c.what, usage.c.ends)
        )

        async def read(connection: AsyncConnection) -> list[Used]:
            if subjects is None:
                return [Used(*row) for row in await connection.execute(others.order_by(total.desc()).limit(_MOST))]
            names, found = sorted({clean(subject) for subject in subjects}), []
            for start in range(0, len(names), _SUBJECTS):
                some = others.where(usage.c.subject.in_(names[start : start + _SUBJECTS]))
                found += [Used(*row) for row in await connection.execute(some)]
            return found

        if rows:
            await self._access.write("keep usage in", write)
        return await self._access.read("read usage from", read)
