"""Notices about circuits and gates, seen by all processes that use the same database."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from operator import itemgetter

import sqlalchemy as sa

from bulletproof.resilience import CircuitState
from bulletproof.resilience.shared import Notice
from bulletproof.store.access import StoreAccess
from bulletproof.store.bulk import insert_into, replace
from bulletproof.store.tables import breaker_state
from bulletproof.store.values import clean

_HELD = (CircuitState.FORCED_OPEN.value, CircuitState.DISABLED.value, CircuitState.SHADOW.value)
_NAME = 200


class SqlStateStore:
    """Keeps the notices of ``bulletproof.resilience.shared.SharedState`` beside the results.

    Args:
        access: The database; ``ResultStore.access`` is one.
        now: Gives the present moment (aware).
    """

    def __init__(self, access: StoreAccess, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._access = access
        self._now = now
        there = breaker_state.c
        insert = insert_into(breaker_state, access.address.kind)
        self._publish = replace(
            insert, where=insert.excluded.by_operator | ~(there.by_operator & there.state.in_(_HELD))
        )

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Keep notices, each in place of the one with its topic and name unless an operator holds that.

        Raises:
            StoreError: The database cannot be used.
        """
        # In one order, so that two processes never wait for each other.
        rows = sorted(
            (asdict(notice) | {"name": clean(notice.name[:_NAME])} for notice in notices),
            key=itemgetter("topic", "name"),
        )
        expired = sa.delete(breaker_state).where(breaker_state.c.expires <= self._now())
        await self._access.execute("publish breaker states in", expired, *(self._publish.values(row) for row in rows))

    async def fetch(self) -> list[Notice]:
        """Return the notices that have not expired.

        Raises:
            StoreError: The database cannot be used.
        """
        expires = breaker_state.c.expires
        query = sa.select(breaker_state).where(expires.is_(None) | (expires > self._now()))
        return [Notice(**row._asdict()) for row in await self._access.rows("read breaker states from", query)]
