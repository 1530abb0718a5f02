"""The tables: made, kept in step with the code, and safe against several processes."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import bulletproof.store
from bulletproof.errors import StoreError
from bulletproof.store import ResultStore
from bulletproof.store.migrate import HEAD, VERSION_TABLE
from bulletproof.store.tables import metadata

Make = Callable[..., ResultStore]

OPEN_AND_STORE = """
import asyncio, sys
from bulletproof.store import ResultRow, ResultStore
async def main(url, folder, run):
    store = ResultStore(url or None, data_dir=folder)
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open()
    await store.begin_run(run, filename=None, format="csv")
    await store.add_chunk(run, [ResultRow(1, "text", "neutral", 0, 1, "en", "local/1.0")])
    await store.complete_run(run, records={}, summary={}, analyzer="local/1.0", degraded=False, reason=None,
        warnings=[], duration_ms=1)
    await store.aclose()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_migrations_lead_to_the_tables_of_the_code(store: ResultStore) -> None:
    await store.open()

    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        return list(compare_metadata(context, metadata))

    assert await store.access.read("compare", lambda connection: connection.run_sync(differences)) == []


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(bulletproof.store.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_opening_again_changes_nothing(store: ResultStore, place: Any, helper: Any, new_store: Make) -> None:
    await store.open()
    await helper.store(store, "r1", helper.rows(1, 3))
    await store.open()
    other = new_store(**place.arguments())
    await other.open()
    assert len(await other.get_results("r1")) == 2


async def test_a_closed_store_may_be_used_again(store: ResultStore, helper: Any) -> None:
    await store.aclose()
    await helper.store(store, "r1", helper.rows(1, 3))
    await store.aclose()
    await store.aclose()
    assert len(await store.get_results("r1")) == 2


async def test_many_first_uses_at_once_open_once(store: ResultStore, helper: Any) -> None:
    await asyncio.gather(*(helper.store(store, f"r{number}", []) for number in range(10)))
    assert len(await store.recent_runs()) == 10


def test_several_processes_may_open_a_fresh_database_at_once(place: Any) -> None:
    command = [sys.executable, "-c", OPEN_AND_STORE, place.url or "", str(place.data_dir)]
    processes = [
        subprocess.Popen(
            [*command, f"r{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors

    async def count() -> int:
        store = ResultStore(**place.arguments())
        try:
            return len(await store.recent_runs())
        finally:
            await store.aclose()

    assert asyncio.run(count()) == 3


async def test_tables_of_a_newer_version_are_left_alone(store: ResultStore, place: Any, new_store: Make) -> None:
    await store.open()
    await store.access.write("test", lambda c: c.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999") as caught:
        await new_store(**place.arguments()).open()
    assert (caught.value.code, caught.value.retryable) == ("misconfigured", False)
    assert "newer" in (caught.value.hint or "")


async def test_a_migration_that_fails_leaves_nothing(
    store: ResultStore, place: Any, new_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", fail)
        with pytest.raises(StoreError, match="boom"):
            await store.open()
    other = new_store(**place.arguments())
    tables = await _tables(other)
    assert tables == []
    await store.open()
    assert set(await _tables(other)) == {VERSION_TABLE, *metadata.tables}


async def _tables(store: ResultStore) -> list[str]:
    database = store.access._database()
    if store.access.address.path is not None:
        store.access.address.path.parent.mkdir(exist_ok=True)
    async with database.reading() as connection:
        return await connection.run_sync(lambda c: sa.inspect(c).get_table_names())


@pytest.fixture
def lite(tmp_path: Path, new_store: Make) -> ResultStore:
    """A store in SQLite."""
    return new_store(data_dir=tmp_path / "new" / "data")


async def test_the_data_folder_is_made_for_this_user_alone(lite: ResultStore, tmp_path: Path) -> None:
    await lite.open()
    folder = tmp_path / "new" / "data"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "results.db").exists()


async def test_sqlite_writes_ahead(lite: ResultStore) -> None:
    await lite.open()

    async def pragma(name: str) -> Any:
        return await lite.access.read("test", lambda c: c.scalar(sa.text(f"PRAGMA {name}")))

    assert await pragma("journal_mode") == "wal"
    assert await pragma("synchronous") == 1
    assert await pragma("foreign_keys") == 1


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, new_store: Make, helper: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    store = new_store(data_dir=tmp_path / "file" / "data")
    with pytest.raises(StoreError, match="file/data") as caught:
        await helper.begin(store, "r1")
    assert (caught.value.code, caught.value.retryable) == ("misconfigured", False)
    assert "BULLETPROOF_DATA_DIR" in (caught.value.hint or "")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that the user who runs the test may not write to."""
    folder = tmp_path / "closed"
    (folder / "data").mkdir(parents=True)
    for one in (folder / "data", folder):
        one.chmod(0o555)
    if os.geteuid() != 0:
        yield folder
        return
    # Root may write anywhere: become somebody else for a while, who can get there.
    for one in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        one.chmod(0o755)
    os.seteuid(65534)
    yield folder
    os.seteuid(0)


@pytest.mark.parametrize("name", ["data", "none"])
async def test_a_folder_that_may_not_be_written_is_named(closed: Path, new_store: Make, name: str) -> None:
    with pytest.raises(StoreError, match=f"closed/{name}") as caught:
        await new_store(data_dir=closed / name).open()
    assert caught.value.retryable is False
    assert "BULLETPROOF_DATA_DIR" in (caught.value.hint or "")
