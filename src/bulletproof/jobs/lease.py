"""Who is who: locks that are held for as long as a process lives, and not a moment longer.

Not heartbeats with a limit: those take a replica that is only slow for a dead one. A lock is let go by the operating
system, or by PostgreSQL, when its holder is gone.
"""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

from bulletproof.errors import ConfigurationError, ResourceError, StoreError, classify
from bulletproof.store.address import Address
from bulletproof.store.failures import explain

MAX_SLOTS = 1000
_CLASS = 0x62756C6C  # of PostgreSQL's two-part advisory locks; nobody else has this number
# We ask every few seconds whether the connection lives, and wait so long for the answer; a machine that is only busy
# answers late. The server lets go of a machine that lost its power, which says no goodbye, later than that: nobody gets
# a lock while its former holder still believes in it.
_SECONDS = 15.0
_KEEPALIVE = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4"}


class Leases(Protocol):
    """Locks by name, each held by at most one process of all that share a database."""

    async def take(self, name: str) -> bool: ...  # False when another process, or this one, has it
    async def free(self, name: str) -> None: ...
    async def holds(self, name: str) -> bool: ...
    async def aclose(self) -> None: ...


def leases_of(address: Address) -> Leases:
    """Return the locks of all that share a database: files beside SQLite's, or advisory locks of PostgreSQL."""
    if address.path is not None:
        return FileLeases(address.path.parent / "executors")
    return PostgresLeases(address)


async def take_slot(leases: Leases) -> str:
    """Take the first slot that nobody has, which is this process's own until it lets go.

    Raises:
        ResourceError: All are taken.
    """
    for slot in range(MAX_SLOTS):
        if await leases.take(str(slot)):
            return str(slot)
    raise ResourceError(f"{MAX_SLOTS} processes run jobs on this database already", code="overloaded")


class FileLeases:
    """Locked files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}

    async def take(self, name: str) -> bool:
        """Lock the file of this name."""
        if name in self._files:
            return False
        try:
            import fcntl
        except ImportError as error:
            raise ConfigurationError(
                "jobs on SQLite need the file locks of Linux or macOS",
                hint="Use PostgreSQL: set BULLETPROOF_DATABASE_URL to postgresql://...",
            ) from error
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return False
        os.truncate(number, 0)
        os.write(number, f"{os.getpid()}\n".encode())  # for whoever looks, nothing reads it
        self._files[name] = number
        return True

    async def free(self, name: str) -> None:
        """Unlock the file; it stays, because another process may be about to lock it."""
        number = self._files.pop(name, None)
        if number is not None:
            os.close(number)

    async def holds(self, name: str) -> bool:
        """Tell whether the file is there still: who removes it lets another process have its name."""
        try:
            return name in self._files and os.path.samestat(os.fstat(self._files[name]), self._path(name).stat())
        except FileNotFoundError:
            return False

    async def aclose(self) -> None:
        """Unlock all."""
        for name in list(self._files):
            await self.free(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


class PostgresLeases:
    """Advisory locks of one connection, which PostgreSQL lets go of when the connection ends.

    A pooler in front of the database must keep sessions (PgBouncer: ``pool_mode = session``).
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Any = None
        self._held: set[str] = set()
        self._using = asyncio.Lock()

    async def take(self, name: str) -> bool:
        """Lock the number of this name."""
        if name in self._held:
            return False
        if self._connection is None:
            await self._connect()
        if await self._ask("SELECT pg_try_advisory_lock($1, $2)", _CLASS, _number(name)):
            self._held.add(name)
            return True
        return False

    async def free(self, name: str) -> None:
        """Unlock the number."""
        if name in self._held:
            self._held.discard(name)
            await self._ask("SELECT pg_advisory_unlock($1, $2)", _CLASS, _number(name))

    async def holds(self, name: str) -> bool:
        """Tell whether the connection lives that took it; asks the server."""
        try:
            return name in self._held and await self._ask("SELECT 1") == 1
        except StoreError:
            return False

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._held.clear()
        if connection is not None:
            try:
                await connection.close(timeout=_SECONDS)
            except Exception:  # noqa: BLE001 -- it ends in any case, and the locks with it
                connection.terminate()

    async def _connect(self) -> None:
        import asyncpg

        try:
            self._connection = await asyncpg.connect(
                self._address.dsn, timeout=_SECONDS, command_timeout=_SECONDS, statement_cache_size=0,
                server_settings={"application_name": "bulletproof executor", **_KEEPALIVE},
            )  # fmt: skip
        except Exception as error:
            raise explain(error, self._address, "lease a place for jobs in") from error

    async def _ask(self, query: str, *values: Any) -> Any:
        async with self._using:
            connection = self._connection
            try:
                if connection is None:
                    raise ConnectionError("the connection that holds the leases is closed")
                return await connection.fetchval(query, *values)
            except Exception as error:
                # Whatever it was, it is unknown what is held: without the connection nothing is.
                self._connection = None
                self._held.clear()
                if connection is not None:
                    connection.terminate()
                raise StoreError(
                    f"the leases of jobs in {self._address} are lost: {classify(error).details}"
                ) from error


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
