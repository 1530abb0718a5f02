"""Bring a database to the tables of this version; safe when several processes do it at once."""

import asyncio
import logging
from pathlib import Path

import sqlalchemy as sa

from bulletproof.errors import StoreError
from bulletproof.resilience import timeout
from bulletproof.store.address import Address
from bulletproof.store.damage import CHECKED_BYTES, damaged
from bulletproof.store.database import Database

VERSION_TABLE = "bulletproof_version"
HEAD = "0007"
"""The newest migration."""

_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 0x62756C6C65747072  # of PostgreSQL's advisory locks; nobody else has this number
_log = logging.getLogger("bulletproof.store")


async def migrate(database: Database, *, look_seconds: float) -> None:
    """Make the tables, or change them into those of this version, unless the file is damaged or a newer one made them.

    It may take ``look_seconds`` to find out whether there is anything to do; doing it may take longer.
    """
    async with timeout(look_seconds):
        if database.address.path is not None:
            await asyncio.to_thread(database.address.path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
            await _prepare_file(database, database.address.path)
        async with database.reading() as connection:
            if await connection.run_sync(_version) == HEAD:
                return
    # Both locks end with the transaction, however it ends; whoever comes second finds the work done.
    async with database.writing() as connection:
        if database.address.kind == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        if await connection.run_sync(_version) != HEAD:
            await connection.run_sync(_upgrade, database.address)
            _log.info("tables of %s are at version %s now", database.address, HEAD)


async def _prepare_file(database: Database, path: Path) -> None:
    async with database.reading() as connection:
        mode = await connection.scalar(sa.text("PRAGMA journal_mode"))
        if mode != "wal" and await connection.scalar(sa.text("PRAGMA journal_mode = WAL")) != "wal":
            _log.warning("%s is not on a local disk, it seems: readers and writers wait for each other", path)
        if (await asyncio.to_thread(path.stat)).st_size <= CHECKED_BYTES:  # the check reads all of it
            found = await connection.scalar(sa.text("PRAGMA quick_check(1)"))
            if found != "ok":
                raise damaged(database.address, str(found))


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  # nosec B608
    return version


def _upgrade(connection: sa.Connection, address: Address) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the tables of {address} are of version {_version(connection)}, which this version does not know",
            code="misconfigured",
            hint="A newer bulletproof made them: use that, or another database (BULLETPROOF_DATABASE_URL).",
        ) from error
