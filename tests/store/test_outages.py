"""Databases that are not there, go away, come back, hang, are full, or are broken."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from bulletproof.chaos import TcpProxy
from bulletproof.errors import InputValidationError, StoreError, classify
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, RetryPolicy
from bulletproof.store import ResultStore
from bulletproof.store.access import CIRCUIT
from bulletproof.store.address import parse_address
from bulletproof.store.failures import explain
from bulletproof.store.migrate import VERSION_TABLE
from bulletproof.store.tables import metadata

Make = Callable[..., ResultStore]

FILL_AND_HANG = """
import asyncio, sys
from bulletproof.store import ResultRow, ResultStore
async def main(url, folder):
    store = ResultStore(url or None, data_dir=folder)
    await store.begin_run("r1", filename=None, format="csv")
    for start in (1, 501):
        rows = [ResultRow(n, "text", "neutral", 0, 1, "en", "local/1.0") for n in range(start, start + 500)]
        await store.add_chunk("r1", rows)
    print("half", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def wire(postgres: Any) -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1", postgres.port) as wire:
        yield wire


@pytest.fixture
def patient(new_store: Make) -> Make:
    """Make stores whose breaker is not in the way of what is tested."""
    breaker = AIServiceCircuitBreaker("database", CircuitConfig(failure_threshold=10**6))
    return lambda **arguments: new_store(breaker=breaker, **arguments)


async def test_a_database_killed_in_the_middle_of_a_run_fails_typed_and_is_used_again_when_it_returns(
    postgres: Any, new_postgres_url: Any, patient: Make, helper: Any
) -> None:
    url = new_postgres_url()
    store = patient(url=url)
    await helper.store(store, "before", helper.rows(1, 11))
    await helper.begin(store, "r1")
    await store.add_chunk("r1", helper.rows(1, 11))
    postgres.kill()
    try:
        with pytest.raises(StoreError, match=r"cannot store results in postgresql://127.0.0.1") as caught:
            await store.add_chunk("r1", helper.rows(11, 21))
        assert (caught.value.code, caught.value.retryable) == ("database_unavailable", True)
        assert caught.value.__cause__ is not None
        with pytest.raises(StoreError):
            await store.ping()
    finally:
        postgres.start()
    await store.ping()
    await store.add_chunk("r1", helper.rows(1, 31))
    await helper.complete(store, "r1")
    assert await store.get_results("r1") == helper.rows(1, 31)
    assert len(await store.get_results("before")) == 10


async def test_a_restart_between_two_operations_is_not_noticed(
    postgres: Any, new_postgres_url: Any, new_store: Make, helper: Any
) -> None:
    store = new_store(url=new_postgres_url())
    await helper.begin(store, "r1")
    postgres.kill()
    postgres.start()
    await store.add_chunk("r1", helper.rows(1, 11))
    postgres.stop()
    postgres.start()
    await store.ping()
    await helper.complete(store, "r1")
    assert len(await store.get_results("r1")) == 10


async def test_the_breaker_lets_a_database_that_is_back_in_again_within_seconds(
    postgres: Any, new_postgres_url: Any, new_store: Make, helper: Any
) -> None:
    seconds = 0.0
    breaker = AIServiceCircuitBreaker("database", CIRCUIT, clock=lambda: seconds)
    store = new_store(url=new_postgres_url(), breaker=breaker)
    await helper.begin(store, "r1")
    postgres.kill()
    try:
        for _ in range(3):
            with pytest.raises(StoreError):
                await store.add_chunk("r1", helper.rows(1, 3))
    finally:
        postgres.start()
    with pytest.raises(StoreError, match=r"not asked for 2.0 s"):
        await store.add_chunk("r1", helper.rows(1, 3))
    seconds = 2.0
    await asyncio.gather(*(store.add_chunk("r1", helper.rows(start, start + 5)) for start in (1, 6, 11)))
    await helper.complete(store, "r1")
    assert len(await store.get_results("r1")) == 15


async def test_a_store_whose_database_is_not_up_yet_opens_later(
    postgres: Any, new_postgres_url: Any, new_store: Make, helper: Any
) -> None:
    store = new_store(
        url=new_postgres_url(),
        breaker=AIServiceCircuitBreaker("database", CircuitConfig(failure_threshold=3, success_threshold=1, timeout=0)),
    )
    postgres.kill()
    try:
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.open()
        with pytest.raises(StoreError):
            await helper.begin(store, "r1")
    finally:
        postgres.start()
    await helper.store(store, "r1", helper.rows(1, 3))
    assert len(await store.get_results("r1")) == 2


async def test_an_unreachable_database_is_soon_refused_without_being_asked(new_store: Make, helper: Any) -> None:
    store = new_store(url="postgresql://user:hunter2@127.0.0.1:9/app")
    with pytest.raises(StoreError, match="Connection refused"):
        await helper.begin(store, "r1")
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"not asked for .* the last time: Connection refused") as caught:
        await helper.begin(store, "r1")
    assert time.monotonic() - started < 0.05
    assert caught.value.code == "database_unavailable"
    assert caught.value.retry_after is not None
    assert store.breaker.get_metrics()["state"] == "open"
    with pytest.raises(StoreError, match="Connection refused"):
        await store.ping()


async def test_a_database_that_hangs_does_not_hang_its_users(
    wire: TcpProxy, new_postgres_url: Any, new_store: Make, helper: Any
) -> None:
    name = new_postgres_url().rpartition("/")[2]
    store = new_store(
        url=f"postgresql://postgres@127.0.0.1:{wire.port}/{name}",
        operation_timeout=0.5,
        retry=RetryPolicy(max_attempts=2, base_delay=0.05),
        breaker=AIServiceCircuitBreaker("database", CircuitConfig(failure_threshold=100)),
    )
    await helper.begin(store, "r1")
    await wire.switch("blackhole")  # as a firewall does
    for work in (store.add_chunk("r1", helper.rows(1, 3)), store.get_run("r1"), store.ping()):
        started = time.monotonic()
        with pytest.raises(StoreError) as caught:
            await work
        assert caught.value.code == "database_unavailable"
        assert time.monotonic() - started < 8
    await wire.switch("pass")
    await store.add_chunk("r1", helper.rows(1, 3))
    await helper.complete(store, "r1")
    assert len(await store.get_results("r1")) == 2


def test_a_process_killed_between_chunks_leaves_nothing_that_shows(place: Any) -> None:
    command = [sys.executable, "-c", FILL_AND_HANG, place.url or "", str(place.data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)

    async def look() -> None:
        store = ResultStore(**place.arguments())
        assert await store.get_run("r1") is None
        assert await store.recent_runs() == []
        count = sa.text("SELECT count(*) FROM results")
        assert await store.access.read("count", lambda c: c.scalar(count)) == 1000
        assert await store.sweep_orphans(older_than=timedelta(0)) == 1
        assert await store.access.read("count", lambda c: c.scalar(count)) == 0
        await store.aclose()

    asyncio.run(look())


async def test_a_missing_database_or_wrong_password_says_so_without_credentials(
    postgres: Any, patient: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    for url in (
        f"postgresql://postgres:hunter2@127.0.0.1:{postgres.port}/nowhere",
        f"postgresql://nobody:hunter2@127.0.0.1:{postgres.port}/postgres",
    ):
        with pytest.raises(StoreError, match="does not exist") as caught:
            await patient(url=url).open()
        assert (caught.value.code, caught.value.retryable) == ("database_unavailable", False)
        shown = "".join(traceback.format_exception(caught.value)) + caplog.text + str(classify(caught.value))
        assert "hunter2" not in shown


async def test_a_user_without_rights_is_told(postgres: Any, new_postgres_url: Any, patient: Make) -> None:
    name = new_postgres_url().rpartition("/")[2]
    postgres.run_sql("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    with pytest.raises(StoreError, match="permission denied") as caught:
        await patient(url=f"postgresql://guest@127.0.0.1:{postgres.port}/{name}").open()
    assert (caught.value.code, caught.value.retryable) == ("database_unavailable", False)
    assert "right to create tables" in (caught.value.hint or "")


async def test_tables_that_vanish_are_made_again(store: ResultStore, helper: Any) -> None:
    await helper.store(store, "r1", [])
    await store.access.write("test", lambda connection: connection.run_sync(metadata.drop_all))
    await store.access.write("test", lambda connection: connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}"))
    await helper.store(store, "r1", helper.rows(1, 3))
    assert len(await store.get_results("r1")) == 2


# SQLite alone.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_a_file_locked_for_a_moment_is_waited_for(folder: Path, new_store: Make, helper: Any) -> None:
    store = new_store(data_dir=folder)
    await helper.begin(store, "r1")
    other = sqlite3.connect(folder / "results.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(store.add_chunk("r1", helper.rows(1, 3)))
    await asyncio.sleep(0.3)
    assert not task.done()
    other.execute("COMMIT")
    other.close()
    await task
    await helper.complete(store, "r1")


async def test_a_file_locked_for_long_is_a_passing_error(folder: Path, patient: Make, helper: Any) -> None:
    store = patient(data_dir=folder, operation_timeout=0.3, retry=RetryPolicy(max_attempts=1))
    await helper.begin(store, "r1")
    other = sqlite3.connect(folder / "results.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as caught:
        await store.add_chunk("r1", helper.rows(1, 3))
    assert (caught.value.code, caught.value.retryable) == ("database_unavailable", True)
    assert await store.get_run("r1") is None
    other.execute("ROLLBACK")
    other.close()
    await store.add_chunk("r1", helper.rows(1, 3))


GARBAGE = [b"this is not a database, it is a letter" * 200, b"SQLite format 3\0" + b"x" * 9000]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_file_that_is_no_database_is_moved_aside_and_said(
    folder: Path, patient: Make, helper: Any, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    file = folder / "results.db"
    file.write_bytes(garbage)
    store = patient(data_dir=folder)
    with pytest.raises(StoreError, match="damaged") as caught:
        await helper.begin(store, "r1")
    assert caught.value.code == "database_unavailable"
    (aside,) = folder.glob("results.db.corrupt-*Z")
    assert aside.read_bytes() == garbage
    assert str(aside) in str(caught.value)
    assert ".recover" in (caught.value.hint or "")
    assert [record.levelname for record in caplog.records if str(aside) in record.getMessage()] == ["ERROR"]
    # From then on results are kept again, and it stays known until somebody has seen to it.
    await helper.store(store, "r2", helper.rows(1, 3))
    assert len(await store.get_results("r2")) == 2
    assert "begun anew" in caplog.text
    assert str(aside) in str(store.access.left_aside())
    aside.unlink()
    assert store.access.left_aside() is None


async def test_a_file_that_the_user_named_and_that_is_somebody_elses_is_left_as_it_is(
    folder: Path, patient: Make, helper: Any
) -> None:
    folder.mkdir()
    file = folder / "letter.txt"
    file.write_bytes(GARBAGE[0])
    store = patient(url=f"sqlite:///{file}")
    for _ in range(2):
        with pytest.raises(StoreError, match="Nothing was changed") as caught:
            await helper.begin(store, "r1")
    assert caught.value.retryable is False
    assert "backup" in (caught.value.hint or "")
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]
    assert file.read_bytes() == GARBAGE[0]


async def test_a_bad_disk_is_not_filled_with_damaged_files(folder: Path, patient: Make, helper: Any) -> None:
    store = patient(data_dir=folder)
    for _ in range(3):
        await helper.store(store, uuid4().hex, helper.rows(1, 3))
        await store.aclose()
        (folder / "results.db").write_bytes(GARBAGE[0])
        with pytest.raises(StoreError, match="moved aside"):
            await store.open()
    (folder / "results.db").write_bytes(GARBAGE[0])
    with pytest.raises(StoreError, match="Nothing was changed"):
        await patient(data_dir=folder).open()
    assert (folder / "results.db").read_bytes() == GARBAGE[0]


def spoil(file: Path) -> bytes:
    """Overwrite the middle of a file, as a dying disk does, and return what it is then."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = os.urandom(8192)
    with file.open("r+b") as there:  # the same file: whoever has it open reads this
        there.write(content)
    return bytes(content)


async def test_damage_inside_the_file_is_found_when_it_is_opened(folder: Path, patient: Make, helper: Any) -> None:
    store = patient(data_dir=folder)
    await helper.store(store, "r1", helper.rows(1, 5001))
    await store.aclose()
    content = spoil(folder / "results.db")
    with pytest.raises(StoreError, match="damaged"):
        await patient(data_dir=folder).open()
    (aside,) = folder.glob("results.db.corrupt-*Z")
    assert aside.read_bytes() == content


async def test_damage_is_found_while_running_and_what_was_in_the_wal_is_kept(
    folder: Path, patient: Make, helper: Any
) -> None:
    store = patient(data_dir=folder)
    await helper.store(store, "r1", helper.rows(1, 5001))
    async with store.access._database().engine.connect() as connection:
        await connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    spoil(folder / "results.db")
    await helper.store(store, "r2", helper.rows(1, 3))  # goes into the WAL
    wal = (folder / "results.db-wal").read_bytes()
    with pytest.raises(StoreError, match="damaged"):
        await patient(data_dir=folder).open()  # a second process looks at all of it
    (aside,) = folder.glob("results.db.corrupt-*Z")
    assert Path(f"{aside}-wal").read_bytes() == wal
    # The first one notices that its file is gone, and uses the new one.
    await helper.store(store, "r3", helper.rows(1, 3))
    assert len(await patient(data_dir=folder).get_results("r3")) == 2
    assert aside.exists()


async def test_a_page_that_cannot_be_read_is_noticed_by_whoever_reads_it(
    folder: Path, patient: Make, helper: Any
) -> None:
    store = patient(data_dir=folder)
    await helper.store(store, "r1", helper.rows(1, 20001))
    await store.aclose()
    await store.open()
    async with store.access._database().engine.connect() as connection:
        await connection.execute(sa.text("PRAGMA shrink_memory"))  # what is remembered need not be read
    spoil(folder / "results.db")
    with pytest.raises(StoreError, match="moved aside"):
        await store.get_results("r1", limit=100_000)
    assert list(folder.glob("results.db.corrupt-*Z"))
    assert await store.get_run("r1") is None


async def test_a_file_that_is_removed_or_replaced_does_not_swallow_results(
    folder: Path, new_store: Make, helper: Any
) -> None:
    store = new_store(data_dir=folder)
    await helper.store(store, "r1", helper.rows(1, 3))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    await helper.store(store, "r2", helper.rows(1, 3))
    assert len(await new_store(data_dir=folder).get_results("r2")) == 2
    assert await store.get_run("r1") is None


async def test_a_full_disk_is_told_and_loses_nothing(folder: Path, patient: Make, helper: Any) -> None:
    store = patient(data_dir=folder)
    await helper.begin(store, "r1")
    await store.add_chunk("r1", helper.rows(1, 11))
    engine = store.access._database().engine
    limit = sa.text("PRAGMA max_page_count = 20")

    def no_more_pages(connection: Any, *_: Any) -> None:
        connection.cursor().execute(str(limit))

    sa.event.listen(engine.sync_engine, "checkout", no_more_pages)
    with pytest.raises(StoreError) as caught:
        await store.add_chunk("r1", helper.rows(11, 5000))
    assert (caught.value.code, caught.value.retryable) == ("disk_full", False)
    sa.event.remove(engine.sync_engine, "checkout", no_more_pages)
    await store.aclose()
    await store.add_chunk("r1", helper.rows(11, 21))
    await helper.complete(store, "r1")
    assert await store.get_results("r1") == helper.rows(1, 21)


async def test_a_write_protected_file_is_named(folder: Path, patient: Make, helper: Any) -> None:
    store = patient(data_dir=folder)
    await store.open()

    def protect(connection: Any, *_: Any) -> None:
        connection.cursor().execute("PRAGMA query_only = ON")

    sa.event.listen(store.access._database().engine.sync_engine, "checkout", protect)
    with pytest.raises(StoreError, match=r"results.db") as caught:
        await helper.begin(store, "r1")
    assert (caught.value.code, caught.value.retryable) == ("misconfigured", False)


# What cannot be provoked on every machine.


class _DriverError(Exception):
    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("text", "sqlstate", "code", "retryable"),
    [
        ("could not extend file: No space left on device", "53100", "disk_full", False),
        ("could not serialize access due to concurrent update", "40001", "database_unavailable", True),
        ("deadlock detected", "40P01", "database_unavailable", True),
        ("the database system is starting up", "57P03", "database_unavailable", True),
        ("sorry, too many clients already", "53300", "database_unavailable", True),
        ("password authentication failed for user", "28P01", "database_unavailable", False),
        ("cannot execute INSERT in a read-only transaction", "25006", "database_unavailable", True),
        ("syntax error", "42601", "internal_error", False),
    ],
)
def test_what_postgresql_says_keeps_its_meaning(text: str, sqlstate: str, code: str, retryable: bool) -> None:
    error = sa.exc.DBAPIError("INSERT ...", {"text": "private"}, _DriverError(text, sqlstate), hide_parameters=True)
    known = explain(error, parse_address("postgresql://u:hunter2@db/app", "."), "store results in")
    assert isinstance(known, StoreError)
    assert (known.code, known.retryable) == (code, retryable)
    assert str(known).startswith("cannot store results in postgresql://db/app: ")
    assert "private" not in str(known)


def test_data_that_the_database_refuses_is_the_callers_fault() -> None:
    error = sa.exc.DBAPIError("INSERT", {}, _DriverError("invalid byte sequence for encoding", "22021"))
    assert isinstance(explain(error, parse_address("postgresql://db/app", "."), "store"), InputValidationError)
