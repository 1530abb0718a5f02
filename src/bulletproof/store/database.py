"""Connections to one database, on one event loop."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from bulletproof.store.address import Address
from bulletproof.store.damage import Identity, identity_of

_BUSY_SECONDS = 2.5  # most that SQLite itself waits for another writer; nothing can interrupt that wait
_POOL = 5
_OVERFLOW = 10
_RECYCLE_SECONDS = 1800


class Database:
    """The pool of connections to a database; made anew for each event loop.

    A part of the seconds that one operation may take may be spent waiting for a connection.

    Attributes:
        ready: Whether the tables are known to be there.
        opening: Held while they are made.
        file: Which file was opened last, for SQLite.
    """

    def __init__(self, address: Address, *, connect_seconds: float, operation_seconds: float) -> None:
        self.address = address
        self.ready = False
        self.file: Identity | None = None
        self.opening = asyncio.Lock()
        # SQLite has one writer at a time: better to queue here, in order, than to fight for the file.
        self._turn = asyncio.Lock() if address.kind == "sqlite" else nullcontext()
        self._files: WeakSet[Any] = WeakSet()
        if address.path is not None:
            self.engine = self._sqlite(address.path, min(_BUSY_SECONDS, operation_seconds / 2))
        else:
            self.engine = self._postgresql(address.dsn or "", connect_seconds, operation_seconds)

    def reading(self) -> AsyncConnection:
        """Lend a connection to read from, for the length of an ``async with``."""
        return self.engine.connect()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection in a transaction, which is committed when the block ends well."""
        async with self._turn, self.engine.begin() as connection:
            yield connection

    async def aclose(self) -> None:
        await self.engine.dispose()

    def forget(self) -> None:
        """Let go of all connections when their event loop is gone already."""
        for connection in list(self._files):
            connection.stop()
        self.engine.sync_engine.dispose(close=False)

    def _sqlite(self, path: Path, busy_seconds: float) -> AsyncEngine:
        # IMMEDIATE: a transaction takes the lock when it begins, and so never fails half-way for want of it.
        engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"timeout": busy_seconds, "isolation_level": "IMMEDIATE"},
            pool_size=_POOL,
            max_overflow=_OVERFLOW,
            hide_parameters=True,
        )

        def connected(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
            self._files.add(connection.driver_connection)
            self.file = identity_of(path)
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()
            entry.info["file"] = identity_of(path)

        def lent(_: DBAPIConnection, entry: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
            # A file that was removed or replaced lives on for those who have it open, and swallows what they write.
            if entry.info["file"] != identity_of(path):
                self.ready = False
                raise sa.exc.DisconnectionError("the database file is not the one that was opened")

        def broken(connection: DBAPIConnection, _: ConnectionPoolEntry, __: BaseException | None) -> None:
            # Closed while a statement is under way, as when a task is cancelled, it would keep its lock on the file for
            # as long as anything, be it a traceback, refers to that statement.
            with suppress(sqlite3.Error, ValueError):
                connection.rollback()

        sa.event.listen(engine.sync_engine, "connect", connected)
        sa.event.listen(engine.sync_engine, "checkout", lent)
        sa.event.listen(engine.sync_engine, "invalidate", broken)
        return engine

    def _postgresql(self, dsn: str, connect_seconds: float, operation_seconds: float) -> AsyncEngine:
        import asyncpg

        settings = {} if "application_name=" in dsn else {"application_name": "bulletproof"}

        async def connect() -> Any:
            making = asyncio.ensure_future(asyncpg.connect(dsn, timeout=connect_seconds, server_settings=settings))
            try:
                return await asyncio.shield(making)
            except asyncio.CancelledError:
                # Cancelled half-way, the driver would leave an error in the log.
                making.add_done_callback(_drop)
                raise

        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=_POOL,
            max_overflow=_OVERFLOW,
            pool_timeout=operation_seconds,
            pool_recycle=_RECYCLE_SECONDS,
            pool_pre_ping=True,
            hide_parameters=True,
        )


def _drop(made: "asyncio.Future[Any]") -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().terminate()
