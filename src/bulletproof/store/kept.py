"""Where calls are kept that failed on the way out, until they are run again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import NotFoundError, OverloadedError
from bulletproof.store.access import StoreAccess
from bulletproof.store.bulk import insert_into
from bulletproof.store.tables import kept_calls as calls
from bulletproof.store.tables import kept_functions as functions
from bulletproof.store.values import clean, is_id

State = Literal["waiting", "running", "failed", "expired"]
WAITING: State = "waiting"
RUNNING: State = "running"
FAILED: State = "failed"
NEXT = "next"
"""What the state of a call is that somebody wants to be run before the others."""

_ERROR = 300
_PIECE = 500


@dataclass(frozen=True, slots=True)
class KeptCall:
    """A call that is kept.

    Args:
        id: Its id.
        function: Name of the function.
        key: Its idempotency key, if it has one.
        state: ``waiting`` to be run again, ``running``, ``failed`` in a way that another run does not mend, or
            ``expired``.
        code: Of the last error.
        error: The last error, secrets taken out.
        attempts: How often it was run again.
        kept_at: When it was kept.
        due: When it is run again at the earliest; None: as soon as possible.
        expires: When it is dropped; None: never.
        digest: First digits of the SHA-256 of the arguments.
        arguments: ``{"args": [...], "kwargs": {...}}`` in JSON, where that was asked for.
    """

    id: str
    function: str
    key: str | None
    state: State
    code: str
    error: str
    attempts: int
    kept_at: datetime
    due: datetime | None
    expires: datetime | None
    digest: str
    arguments: str | None = None


class KeptStore:
    """Keeps calls beside the results, in SQLite or PostgreSQL; whatever it does may be done twice.

    Args:
        access: The database; ``ResultStore.access`` is one.
        now: Gives the present moment (aware).

    Raises:
        StoreError: From every method: the database cannot be used.
    """

    def __init__(self, access: StoreAccess, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.access = access
        self._now = now

    async def keep(
        self, name: str, arguments: str, *, key: str | None, code: str, error: str, due: float, expires: float | None,
        limit: int,
    ) -> str:  # fmt: skip
        """Keep a call, unless one with its key is kept for the function.

        Returns:
            The id under which it is kept.

        Raises:
            OverloadedError: ``limit`` calls of the function are kept already.
        """
        name, key, new = clean(name), key and clean(key), uuid4().hex[:16]
        row = {
            "kept_id": new, "name": name, "key": key, "arguments": arguments, "state": WAITING, "code": code,
            "error": clean(error[:_ERROR]), "attempts": 0, "kept_at": self._time(), "due": due, "expires": expires,
            "claimed_until": 0.0,
        }  # fmt: skip
        insert = insert_into(calls, self.access.address.kind).on_conflict_do_nothing().returning(calls.c.kept_id)
        same = calls.c.kept_id == new if key is None else (calls.c.name == name) & (calls.c.key == key)

        async def work(connection: AsyncConnection) -> str | None:
            count = await self._lock(connection, name)
            full = count.kept - count.done - count.expired - count.dropped >= limit
            if not full and await connection.scalar(insert.values(row)) is not None:
                await self._count(connection, name, kept=1)
                return new
            # It lives on as if it were new: one whose time was over, or that failed, must not take this one along.
            again = {name: row[name] for name in ("code", "error", "expires")}
            again["state"] = sa.case((calls.c.state == FAILED, WAITING), else_=calls.c.state)
            there = await connection.execute(sa.update(calls).where(same).values(again).returning(calls.c.kept_id))
            found: str | None = there.scalar()
            return found

        kept_id = await self.access.write("keep a call in", work)
        if kept_id is None:
            raise OverloadedError(f"{limit:,} calls of {name} are kept already")
        return kept_id

    async def claim(
        self, name: str, claim: str, *, until: float, spacing: float, ordered: bool
    ) -> tuple[KeptCall | None, float | None]:
        """Take the next call of a function that is due, so that nobody else does, and count an attempt.

        Args:
            name: The function.
            claim: Whose it is then; unlike all others.
            until: When others may take it.
            spacing: Seconds before the next call of this function may be taken by anybody.
            ordered: Whether calls are taken one after the other in the order in which they were kept.

        Returns:
            The call with its arguments, or None; and the seconds until another look makes sense, None when nothing
            is known to be due.
        """
        name, now = clean(name), self._time()
        mine = sa.select(calls).where(calls.c.name == name, _alive(now)).order_by(calls.c.id).limit(1)
        running, by_hand, waiting = (mine.where(calls.c.state == state) for state in (RUNNING, NEXT, WAITING))
        if not ordered:
            running, waiting = running.where(calls.c.claimed_until <= now), waiting.where(calls.c.due <= now)

        async def look(connection: AsyncConnection) -> tuple[Any, float | None]:
            # One that somebody takes care of, or left behind; then what was asked for; each found by the index.
            for query in (running, by_hand, waiting):
                row = (await connection.execute(query)).first()
                if row is not None:
                    wait = 0.0 if row.state == NEXT else max(row.due, row.claimed_until) - now
                    return (row, None) if wait <= 0 else (None, wait)
            return None, None

        async def work(connection: AsyncConnection) -> tuple[KeptCall | None, float | None]:
            wait = (await self._lock(connection, name)).next_at - now
            # After a step back of the clock nobody waits for longer than the spacing.
            if 0 < wait <= spacing:
                return None, wait
            row, wait_for_it = await look(connection)
            if row is None:
                return None, wait_for_it
            taking = sa.update(calls).where(calls.c.id == row.id)
            changes = {"state": RUNNING, "claim": claim, "claimed_until": until, "attempts": row.attempts + 1}
            await connection.execute(taking.values(changes))
            await connection.execute(sa.update(functions).where(functions.c.name == name).values(next_at=now + spacing))
            return replace(_call(row, now, shown=True), state=RUNNING, attempts=row.attempts + 1), None

        row, wait = await self.access.read("look for kept calls in", look)
        return (None, wait) if row is None else await self.access.write("take a kept call from", work)

    async def renew(self, claim: str, until: float) -> bool:
        """Hold on to a call; False when it is no longer ours."""
        update = sa.update(calls).where(calls.c.claim == claim).values(claimed_until=until)
        return bool(await self.access.execute("hold a kept call in", update))

    async def finish(self, name: str, claim: str) -> None:
        """Let go of a call that was run."""
        await self._remove("remove a kept call from", clean(name), calls.c.claim == claim, "done")

    async def put_back(self, claim: str, *, due: float, state: str = WAITING, code: str = "", error: str = "") -> None:
        """Hand back a call that was not run, or failed."""
        changes = {"claim": None, "claimed_until": 0.0, "due": due, "state": state}
        if code:
            changes |= {"code": code, "error": clean(error[:_ERROR])}
        update = sa.update(calls).where(calls.c.claim == claim).values(changes)
        await self.access.execute("hand back a kept call to", update)

    async def hasten(self, name: str) -> None:
        """Have the calls of a function run as soon as the rate allows: its service is back."""
        name, now = clean(name), self._time()
        later = sa.update(calls).where(calls.c.name == name, calls.c.state == WAITING, calls.c.due > now)

        async def work(connection: AsyncConnection) -> None:
            await self._lock(connection, name)  # or two who do so might wait for each other
            await connection.execute(later.values(due=now))

        await self.access.write("hasten kept calls in", work)

    async def retry(self, kept_id: str) -> None:
        """Have a call run next, one that failed too.

        Raises:
            NotFoundError: There is none of the id.
        """
        now = self._time()
        state = sa.case((calls.c.claimed_until > now, calls.c.state), else_=NEXT)
        update = sa.update(calls).where(calls.c.kept_id == kept_id, _alive(now)).values(state=state)
        if not (is_id(kept_id) and await self.access.execute("hasten a kept call in", update)):
            raise _missing(kept_id)

    async def drop(self, kept_id: str) -> None:
        """Forget a call; one that is running is stopped by who holds it.

        Raises:
            NotFoundError: There is none of the id.
        """
        name = sa.select(calls.c.name).where(calls.c.kept_id == kept_id)

        async def find(connection: AsyncConnection) -> str | None:
            return await connection.scalar(name)

        found = await self.access.read("read kept calls from", find) if is_id(kept_id) else None
        if found is None:
            raise _missing(kept_id)
        await self._remove("remove a kept call from", found, calls.c.kept_id == kept_id, "dropped")

    async def expire(self) -> list[KeptCall]:
        """Drop the calls whose time is over, of all functions, and return them."""
        now = self._time()
        over = ~_alive(now) & (calls.c.claimed_until <= now)
        names = sa.select(calls.c.name).where(over).distinct().order_by(calls.c.name)
        gone: list[KeptCall] = []
        for (name,) in await self.access.rows("look for expired calls in", names):
            rows = await self._remove("drop expired calls from", name, over & (calls.c.name == name), "expired")
            gone += [_call(row, now) for row in rows]
        return gone

    async def calls(self, *, function: str | None = None, limit: int = 100, arguments: bool = False) -> list[KeptCall]:
        """Return the calls that are kept, the oldest first."""
        query = sa.select(calls).order_by(calls.c.id).limit(limit)
        if function is not None:
            query = query.where(calls.c.name == clean(function))
        rows, now = await self.access.rows("read kept calls from", query), self._time()
        return [_call(row, now, shown=arguments) for row in rows]

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return, for each function, how many calls were ``kept`` so far and what became of them: run again and
        ``done``, ``expired``, ``dropped``, or still ``left``.
        """  # fmt: skip
        names = ("kept", "done", "expired", "dropped")
        counts = {}
        query = sa.select(functions).order_by(functions.c.name)
        for row in await self.access.rows("count kept calls in", query):
            count = {name: getattr(row, name) for name in names}
            counts[row.name] = count | {"left": count["kept"] - sum(count[name] for name in names[1:])}
        return counts

    def _time(self) -> float:
        return self._now().timestamp()

    async def _lock(self, connection: AsyncConnection, name: str) -> Any:
        """Have a function for ourselves until the end of the transaction: always before its calls."""
        zero = dict.fromkeys(("next_at", "kept", "done", "expired", "dropped"), 0)
        insert = insert_into(functions, self.access.address.kind).values(name=name, **zero)
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"name": insert.excluded.name})
        return (await connection.execute(upsert.returning(functions))).one()

    async def _count(self, connection: AsyncConnection, name: str, **more: int) -> None:
        changes = {column: functions.c[column] + number for column, number in more.items()}
        await connection.execute(sa.update(functions).where(functions.c.name == name).values(changes))

    async def _remove(self, doing: str, name: str, which: sa.ColumnElement[bool], outcome: str) -> Sequence[Any]:
        async def work(connection: AsyncConnection) -> Sequence[Any]:
            await self._lock(connection, name)
            some = sa.select(calls.c.id).where(which).limit(_PIECE)
            rows = (await connection.execute(sa.delete(calls).where(calls.c.id.in_(some)).returning(calls))).all()
            await self._count(connection, name, **{outcome: len(rows)})
            return rows

        return await self.access.write(doing, work)


def _alive(now: float) -> sa.ColumnElement[bool]:
    return calls.c.expires.is_(None) | (calls.c.expires > now)


def _call(row: Any, now: float, *, shown: bool = False) -> KeptCall:
    state = row.state
    if row.claimed_until <= now:
        over = row.expires is not None and row.expires <= now
        state = "expired" if over else FAILED if state == FAILED else WAITING
    return KeptCall(
        id=row.kept_id, function=row.name, key=row.key, state=state, code=row.code, error=row.error,
        attempts=row.attempts, kept_at=_moment(row.kept_at), due=None if row.state == NEXT else _moment(row.due),
        expires=None if row.expires is None else _moment(row.expires),
        digest=hashlib.sha256(row.arguments.encode()).hexdigest()[:12], arguments=row.arguments if shown else None,
    )  # fmt: skip


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _missing(kept_id: str) -> NotFoundError:
    return NotFoundError(
        f"no call is kept as {kept_id!r:.80}",
        hint="It may have been run again, dropped or expired meanwhile; 'bulletproof kept list' shows those there are.",
    )
