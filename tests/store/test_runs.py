"""Runs: begun, filled, completed, read, abandoned, swept."""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulletproof.errors import InputValidationError, NotFoundError
from bulletproof.store import RejectionRow, ResultRow, ResultStore

Make = Callable[..., ResultStore]


async def test_what_is_stored_comes_back_unchanged(store: ResultStore, helper: Any, wall: Any) -> None:
    rows = [
        ResultRow(1, "Schön! 很好 👍🏽", "positive", 0.1 + 0.2, 1 / 3, "de", "local/1.0"),
        ResultRow(3, "bug", "negative", -1.0, 0.0, "und", "llm/gpt-4o-mini", "bug report", 0.625),
    ]
    rejections = [RejectionRow(2, "empty_text", "the text is empty")]
    await helper.begin(store, "r1", owner="alice", text_field="review")
    await store.add_chunk("r1", rows, rejections)
    wall.forward(seconds=5)
    await helper.complete(
        store, "r1", degraded=True, reason="the LLM is down", warnings=["a", "b"], usage={"prompt_tokens": 7}
    )
    assert await store.get_results("r1") == rows
    assert await store.get_rejections("r1") == rejections
    run = await store.get_run("r1")
    assert run is not None
    assert (run.processing_id, run.filename, run.format, run.text_field, run.owner) == (
        "r1",
        "reviews.csv",
        "csv",
        "review",
        "alice",
    )
    assert run.records == {"received": 3, "analyzed": 2, "rejected": 1}
    assert run.summary == {"sentiment": {"positive": 2}}
    assert (run.analyzer, run.degraded, run.reason, run.warnings) == ("local/1.0", True, "the LLM is down", ["a", "b"])
    assert (run.usage, run.duration_ms) == ({"prompt_tokens": 7}, 12.5)
    assert run.completed_at == wall()
    assert run.completed_at - run.started_at == timedelta(seconds=5)
    assert run.started_at.tzinfo is not None


async def test_a_run_is_invisible_until_it_is_complete(
    store: ResultStore, place: Any, helper: Any, new_store: Make
) -> None:
    reader = new_store(**place.arguments())
    await helper.begin(store, "r1")
    for start in (1, 11, 21):
        await store.add_chunk("r1", helper.rows(start, start + 10), [RejectionRow(start + 100, "empty_text", "empty")])
        assert await reader.get_run("r1") is None
        assert await reader.recent_runs() == []
        for read in (reader.get_results, reader.get_rejections):
            with pytest.raises(NotFoundError):
                await read("r1")
    await helper.complete(store, "r1")
    assert await reader.get_results("r1") == helper.rows(1, 31)
    assert len(await reader.get_rejections("r1")) == 3


async def test_a_chunk_may_be_sent_again(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    chunk, rejections = helper.rows(1, 2501), [RejectionRow(9999, "empty_text", "empty")]
    await store.add_chunk("r1", chunk, rejections)
    await store.add_chunk("r1", chunk[1000:] + helper.rows(2501, 2503), rejections)
    await helper.complete(store, "r1")
    assert await store.get_results("r1", limit=10_000) == helper.rows(1, 2503)
    assert await store.get_rejections("r1") == rejections


async def test_empty_chunks_and_empty_runs_are_fine(store: ResultStore, helper: Any) -> None:
    await helper.store(store, "r1", [])
    assert await store.get_results("r1") == []
    assert await store.get_rejections("r1") == []


async def test_abandoned_runs_leave_nothing(store: ResultStore, place: Any, helper: Any) -> None:
    await helper.begin(store, "r1")
    await store.add_chunk("r1", helper.rows(1, 12_001), [RejectionRow(20_000, "empty_text", "empty")])
    await store.abandon_run("r1")
    assert await _count(store) == (0, 0, 0)
    with pytest.raises(NotFoundError, match="no run 'r1' under way"):
        await store.add_chunk("r1", helper.rows(1, 2))
    with pytest.raises(NotFoundError):
        await helper.complete(store, "r1")
    await store.abandon_run("r1")
    await helper.store(store, "r1", helper.rows(1, 3))
    assert len(await store.get_results("r1")) == 2


async def test_a_complete_run_is_deleted_with_its_rows_by_its_owner_alone(store: ResultStore, helper: Any) -> None:
    await helper.store(store, "r1", helper.rows(1, 12_001), owner="alice")
    assert not await store.delete_run("r1", owner="bob")
    assert not await store.delete_run("unknown")
    assert len(await store.get_results("r1", limit=5)) == 5
    assert await store.delete_run("r1", owner="alice")
    assert await _count(store) == (0, 0, 0)
    assert not await store.delete_run("r1", owner="alice")


async def test_a_run_under_way_is_not_deleted(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    assert not await store.delete_run("r1")
    await helper.complete(store, "r1")
    assert await store.get_run("r1") is not None


async def test_old_runs_expire(store: ResultStore, helper: Any, wall: Any) -> None:
    await helper.store(store, "old", helper.rows(1, 3))
    wall.forward(days=10)
    await helper.store(store, "new", helper.rows(1, 3))
    assert await store.expire_runs(older_than=timedelta(days=7)) == 1
    assert [run.processing_id for run in await store.recent_runs()] == ["new"]
    assert await store.expire_runs(older_than=timedelta(days=7)) == 0


async def test_complete_runs_cannot_be_abandoned_or_changed(store: ResultStore, helper: Any) -> None:
    await helper.store(store, "r1", helper.rows(1, 3))
    await store.abandon_run("r1")
    with pytest.raises(NotFoundError):
        await store.add_chunk("r1", helper.rows(3, 4))
    with pytest.raises(NotFoundError):
        await helper.complete(store, "r1", analyzer="another")
    assert await store.get_results("r1") == helper.rows(1, 3)
    run = await store.get_run("r1")
    assert run is not None
    assert run.analyzer == "local/1.0"


async def test_an_id_cannot_be_used_twice(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    with pytest.raises(InputValidationError, match="a run 'r1' already"):
        await helper.begin(store, "r1")
    await store.add_chunk("r1", helper.rows(1, 2))


@pytest.mark.parametrize("bad", ["", "a\0b", "a\ud800", "x" * 300, "a\nb"])
async def test_impossible_ids_are_refused_or_unknown(store: ResultStore, helper: Any, bad: str) -> None:
    with pytest.raises(InputValidationError):
        await helper.begin(store, bad)
    with pytest.raises(NotFoundError):
        await store.add_chunk(bad, [])
    with pytest.raises(NotFoundError):
        await store.get_results(bad)
    assert await store.get_run(bad) is None
    await store.abandon_run(bad)


async def test_unknown_runs(store: ResultStore, helper: Any) -> None:
    assert await store.get_run("nobody") is None
    with pytest.raises(InputValidationError, match="nobody"):
        await store.get_results("nobody")
    with pytest.raises(InputValidationError, match="nobody"):
        await helper.complete(store, "nobody")


@pytest.mark.parametrize("text", ["a\0b", "half \ud83d"])
async def test_texts_that_no_database_holds_are_refused_with_their_row(
    store: ResultStore, helper: Any, text: str
) -> None:
    await helper.begin(store, "r1")
    bad = helper.rows(1, 2)[0]._replace(row=7, text=text)
    with pytest.raises(InputValidationError, match="row 7") as caught:
        await store.add_chunk("r1", [*helper.rows(1, 3), bad])
    assert caught.value.code == "invalid_encoding"
    await helper.complete(store, "r1")
    assert await store.get_results("r1") == []


async def test_names_that_no_database_holds_are_mended(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1", filename="caf\udce9\0.csv")
    await helper.complete(store, "r1", summary={"a\0": ["\ud800", float("nan")]}, warnings=["x\0"])
    run = await store.get_run("r1")
    assert run is not None
    assert run.filename == "caf?\ufffd.csv"
    assert run.summary == {"a\ufffd": ["?", None]}
    assert run.warnings == ["x\ufffd"]


async def test_rows_beyond_64_bits_are_refused(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    with pytest.raises(InputValidationError, match="64 bits"):
        await store.add_chunk("r1", [helper.rows(1, 2)[0]._replace(row=2**63)])
    await store.add_chunk("r1", [helper.rows(1, 2)[0]._replace(row=2**63 - 1)])
    await helper.complete(store, "r1")
    assert [row.row for row in await store.get_results("r1", after=5)] == [2**63 - 1]
    assert await store.get_results("r1", after=2**80) == []


async def test_usage_may_be_a_dataclass(store: ResultStore, helper: Any) -> None:
    @dataclass
    class Usage:
        prompt_tokens: int = 3
        cost: float | None = None

    await helper.begin(store, "r1")
    await helper.complete(store, "r1", usage=Usage())
    run = await store.get_run("r1")
    assert run is not None
    assert run.usage == {"prompt_tokens": 3, "cost": None}


async def test_recent_runs_come_last_first(store: ResultStore, helper: Any, wall: Any) -> None:
    for number in range(5):
        await helper.store(store, f"r{number}", [])
        wall.forward(seconds=1)
    assert [run.processing_id for run in await store.recent_runs(3)] == ["r4", "r3", "r2"]
    assert len(await store.recent_runs()) == 5


@pytest.mark.parametrize("limit", [0, -1, "5"])
async def test_limits_below_one_are_refused(store: ResultStore, helper: Any, limit: Any) -> None:
    await helper.store(store, "r1", helper.rows(1, 3))
    for read in (store.recent_runs(limit), store.get_results("r1", limit=limit)):
        with pytest.raises(InputValidationError, match="limit"):
            await read
    assert len(await store.get_results("r1", limit=2**70)) == 2


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.sets(st.integers(1, 10_000), max_size=60), limit=st.integers(1, 25), after=st.integers(0, 10_000))
async def test_pages_laid_end_to_end_are_all_rows_in_order(
    store: ResultStore, helper: Any, numbers: set[int], limit: int, after: int
) -> None:
    run = f"r{abs(hash((frozenset(numbers), limit, after)))}"
    await store.abandon_run(run)
    if await store.get_run(run) is None:
        rows = [helper.rows(number, number + 1)[0] for number in numbers]
        await helper.store(store, run, rows, [RejectionRow(number, "empty_text", "") for number in numbers])
    wanted = sorted(number for number in numbers if number > after)
    for read in (store.get_results, store.get_rejections):
        got: list[int] = []
        position = after
        while page := await read(run, after=position, limit=limit):  # type: ignore[operator]
            assert len(page) <= limit
            got += [row.row for row in page]
            position = page[-1].row
        assert got == wanted


async def test_concurrent_runs_do_not_mix(store: ResultStore, place: Any, helper: Any, new_store: Make) -> None:
    others = [store, new_store(**place.arguments())]

    async def one(number: int) -> None:
        mine = others[number % 2]
        await helper.begin(mine, f"r{number}")
        for start in range(1, 401, 100):
            await mine.add_chunk(f"r{number}", helper.rows(start, start + 100 + number))
        await helper.complete(mine, f"r{number}")

    await asyncio.gather(*(one(number) for number in range(16)))
    for number in range(16):
        assert await others[number % 2].get_results(f"r{number}", limit=9999) == helper.rows(1, 401 + number)


async def test_a_sweep_removes_dead_runs_and_spares_live_and_complete_ones(
    store: ResultStore, place: Any, helper: Any, wall: Any, new_store: Make
) -> None:
    for run in ("dead", "live", "done"):
        await helper.begin(store, run)
        await store.add_chunk(run, helper.rows(1, 11))
    await helper.complete(store, "done")
    wall.forward(minutes=50)
    await store.add_chunk("live", helper.rows(11, 21))
    wall.forward(minutes=20)
    other = new_store(**place.arguments())
    assert await other.sweep_orphans(older_than=timedelta(hours=1)) == 1
    assert await other.sweep_orphans(older_than=timedelta(hours=1)) == 0
    with pytest.raises(NotFoundError):
        await store.add_chunk("dead", helper.rows(11, 12))
    await helper.complete(store, "live")
    assert len(await store.get_results("live")) == 20
    assert len(await store.get_results("done")) == 10
    assert await _count(store) == (2, 30, 0)


async def test_opening_sweeps(store: ResultStore, place: Any, helper: Any, wall: Any, new_store: Make) -> None:
    await helper.begin(store, "dead")
    await store.add_chunk("dead", helper.rows(1, 11))
    wall.forward(hours=2)
    await new_store(**place.arguments()).open()
    assert await _count(store) == (0, 0, 0)


async def test_a_store_that_lives_long_sweeps_now_and_then(store: ResultStore, helper: Any, wall: Any) -> None:
    await helper.begin(store, "dead")
    wall.forward(hours=2)
    await helper.begin(store, "r2")
    assert (await _count(store))[0] == 1


async def test_what_a_broken_off_removal_left_is_swept(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    await store.add_chunk("r1", helper.rows(1, 11))
    await store.access.write("test", lambda c: c.exec_driver_sql("UPDATE runs SET status = 'abandoned'"))
    assert await store.sweep_orphans(older_than=timedelta(hours=1)) == 0
    assert await _count(store) == (0, 0, 0)


async def test_cancelling_a_chunk_leaves_all_of_it_or_nothing(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    for attempt, delay in enumerate((0.0, 0.002, 0.005, 0.01, 0.02, 0.05)):
        start = attempt * 10_000 + 1
        task = asyncio.create_task(store.add_chunk("r1", helper.rows(start, start + 5000)))
        await asyncio.sleep(delay)
        task.cancel()
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        assert done is None or isinstance(done, asyncio.CancelledError)
    await store.add_chunk("r1", helper.rows(100_001, 100_002))
    await helper.complete(store, "r1")
    per_chunk = dict.fromkeys(range(11), 0)
    for row in await store.get_results("r1", limit=10**6):
        per_chunk[row.row // 10_000] += 1
    assert per_chunk.pop(10) == 1
    assert set(per_chunk.values()) <= {0, 5000}


async def test_the_event_loop_stays_free_while_rows_are_stored(store: ResultStore, helper: Any) -> None:
    await helper.begin(store, "r1")
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()  # not that of the clock, which other processes use up as well
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    rows = helper.rows(1, 20_001)
    watcher = asyncio.create_task(watch())
    gc.disable()  # a collection of all that the tests have loaded is not the store's doing
    try:
        await store.add_chunk("r1", rows)
    finally:
        gc.enable()
    watcher.cancel()
    assert longest < 0.05


def test_one_store_serves_several_event_loops_one_after_the_other(place: Any, helper: Any) -> None:
    store = ResultStore(**place.arguments())

    async def fill() -> None:
        await helper.store(store, "r1", helper.rows(1, 3))
        if place.kind == "postgresql":
            await store.aclose()

    async def read() -> int:
        try:
            return len(await store.get_results("r1"))
        finally:
            await store.aclose()

    asyncio.run(fill())
    assert asyncio.run(read()) == 2
    assert asyncio.run(read()) == 2


async def _count(store: ResultStore) -> tuple[int, ...]:
    query = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM results), (SELECT count(*) FROM rejections)"
    return tuple(await store.access.read("count", lambda c: _one(c, query)))


async def _one(connection: Any, query: str) -> Any:
    return (await connection.exec_driver_sql(query)).one()
