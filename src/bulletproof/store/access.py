"""The one way to the database: opened on first use, guarded against what fails, hangs or goes away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import StoreError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Policy, RetryPolicy, timeout
from bulletproof.store.address import Address
from bulletproof.store.damage import DamagedError, moved, set_aside, still_aside
from bulletproof.store.database import Database
from bulletproof.store.failures import explain, lost_tables
from bulletproof.store.migrate import migrate

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""Does something with a connection."""

CONNECT_SECONDS = 3.0
OPERATION_SECONDS = 5.0
OPEN_SECONDS = 60.0  # a migration may have to rewrite a large table
PING_SECONDS = 1.8
_CLOSE_SECONDS = 5.0

RETRY = RetryPolicy(max_attempts=3, base_delay=0.1, max_delay=1)
# As soon as one operation has failed with all its tries, the others need not find out for themselves; and because a
# refused operation means results that are not stored, the database is asked again soon.
CIRCUIT = CircuitConfig(
    failure_threshold=RETRY.max_attempts,
    success_threshold=1,
    timeout=2,
    mode="consecutive",
    half_open_max_calls=4,
    half_open_timeout=30,
)
_log = logging.getLogger("bulletproof.store")


class StoreAccess:
    """Runs work on the database of an address.

    Whatever is run has to bear being run again: a connection may break after the work was done and before that was
    known. It may be used on several event loops; each has connections of its own.

    Attributes:
        around: Does each try of an operation; for faults that are put there on purpose.
    """

    def __init__(
        self,
        address: Address,
        *,
        retry: RetryPolicy = RETRY,
        breaker: AIServiceCircuitBreaker | None = None,
        operation_seconds: float = OPERATION_SECONDS,
    ) -> None:
        self.address = address
        self.breaker = breaker if breaker is not None else AIServiceCircuitBreaker("database", CIRCUIT)
        self._operation_seconds = operation_seconds
        self._using = Policy(retry=retry, breaker=self.breaker, timeout=operation_seconds, name="store")
        self._opening = Policy(retry=retry, breaker=self.breaker, timeout=OPEN_SECONDS, name="open store")
        self._pinging = Policy(timeout=min(PING_SECONDS, operation_seconds), name="ping store")
        self.around: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]] = lambda work: work()
        self._databases: dict[asyncio.AbstractEventLoop, Database] = {}

    async def open(self) -> bool:
        """Make the tables unless it is known that they are there; return whether there was anything to do."""
        if self._database().ready:
            return False
        database, look = self._database(), self._operation_seconds
        async with database.opening:
            if database.ready:
                return False
            await self._guarded(self._opening, "open", lambda: migrate(database, look_seconds=look))
            database.ready = True
        if (problem := self.left_aside()) is not None:
            _log.warning("%s", problem, extra={"code": problem.code, "hint": problem.hint})
        return True

    async def read(self, doing: str, work: Work[T]) -> T:
        """Return what work that only reads returns; ``doing`` is for messages, such as ``read results from``.

        Raises:
            StoreError: It cannot be done.
            InputValidationError: The caller's data is at fault.
        """

        async def attempt() -> T:
            async with self._database().reading() as connection:
                return await work(connection)

        return await self._run(doing, attempt)

    async def write(self, doing: str, work: Work[T]) -> T:
        """Run work in one transaction; see ``read``."""

        async def attempt() -> T:
            async with self._database().writing() as connection:
                return await work(connection)

        return await self._run(doing, attempt)

    async def rows(self, doing: str, query: sa.Select[Any]) -> Sequence[Any]:
        """Return the rows that a query finds; see ``read``."""

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            found: Sequence[Any] = (await connection.execute(query)).all()
            return found

        return await self.read(doing, work)

    async def execute(self, doing: str, *statements: sa.UpdateBase) -> int:
        """Run statements in one transaction, and return how many rows the last one touched; see ``read``."""

        async def work(connection: AsyncConnection) -> int:
            touched = [(await connection.execute(statement)).rowcount for statement in statements]
            return touched[-1]

        return await self.write(doing, work)

    async def ping(self) -> None:
        """Reach the database once, quickly, whatever the breaker thinks."""
        database = self._database()
        # For SQLite a statement that has to look into the file.
        statement = sa.text("SELECT 1" if self.address.kind == "postgresql" else "SELECT count(*) FROM sqlite_schema")

        async def attempt() -> None:
            if not database.ready:
                await self.open()
            async with database.reading() as connection:
                await connection.execute(statement)

        await self._guarded(self._pinging, "reach", attempt)

    def left_aside(self) -> StoreError | None:
        """Return what there is to say of a damaged file that was moved aside, until somebody has seen to it."""
        return still_aside(self.address)

    async def aclose(self, *, everywhere: bool = True) -> None:
        """Close all connections, or those of the running event loop alone. Used again, it opens again."""
        here = asyncio.get_running_loop()
        for loop in list(self._databases) if everywhere else {here} & self._databases.keys():
            database = self._databases.pop(loop)
            if loop is here:
                try:
                    async with timeout(_CLOSE_SECONDS):
                        await database.aclose()
                except Exception as error:  # noqa: BLE001 - what matters is that it is no longer used
                    _log.warning("connections to %s were left to themselves: %s", self.address, type(error).__name__)
                    database.forget()
            else:
                database.forget()

    async def _run(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        await self.open()
        try:
            return await self._guarded(self._using, doing, attempt)
        except StoreError as error:
            if self._database().ready or isinstance(error, DamagedError):
                raise
        # It lost its tables, or its file: another one stands in its place.
        await self.open()
        return await self._guarded(self._using, doing, attempt)

    async def _guarded(self, policy: Policy, doing: str, work: Callable[[], Awaitable[T]]) -> T:
        async def attempt() -> T:
            try:
                result: T = await self.around(work)
                return result
            except Exception as error:
                if lost_tables(error):
                    self._database().ready = False
                known = explain(error, self.address, doing)
                if isinstance(known, DamagedError):
                    known = await self._set_aside(known)
                if known is error:
                    raise
                raise known from error

        try:
            return await policy.call(attempt)
        except Exception as error:
            known = explain(error, self.address, doing)
            if known is error:
                raise
            raise known from error

    async def _set_aside(self, found: DamagedError) -> DamagedError:
        """Make room for a new file, which is begun at the next use; whatever was asked for now fails, and says so."""
        database, path = self._database(), self.address.path
        assert path is not None
        target = await asyncio.to_thread(set_aside, path, database.file, named=self.address.named)
        if target is None:
            return found
        database.ready = False
        known = moved(self.address, target, found.message.partition(" is damaged: ")[2].partition(". Nothing")[0])
        _log.error("%s", known, extra={"code": known.code, "hint": known.hint})
        return known

    def _database(self) -> Database:
        loop = asyncio.get_running_loop()
        database = self._databases.get(loop)
        if database is None:
            for other in [other for other in list(self._databases) if other.is_closed()]:
                self._databases.pop(other).forget()
            database = self._databases[loop] = Database(
                self.address, connect_seconds=CONNECT_SECONDS, operation_seconds=self._operation_seconds
            )
        return database
