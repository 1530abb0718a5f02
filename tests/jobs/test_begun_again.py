"""Items under way are shown as such; what was handed back, failed or killed begins with the stage that it was at."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bulletproof.errors import InputValidationError, ModelError, ServiceUnavailableError
from bulletproof.jobs import BatchJobs
from bulletproof.resilience import RetryPolicy
from bulletproof.store.address import Address, parse_address
from bulletproof.store.tables import batch_made


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """SQLite, unless a test says otherwise; the statements for both are tested with the store."""
    url = request.getfixturevalue("new_postgres_url")() if getattr(request, "param", "") == "postgresql" else None
    return parse_address(url, tmp_path / "data")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulletproof.jobs.chunk._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("bulletproof.jobs.chunk._WAITING_SECONDS", 0.2)


def urls(count: int) -> list[str]:
    return [f"https://a.example.com/{number}" for number in range(count)]


async def complete(jobs: BatchJobs, batch_id: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        async for _ in jobs.events(batch_id):
            pass
    return await jobs.status(batch_id)


async def kept(jobs: BatchJobs) -> Counter[str]:
    """What is kept of items, by the stage that they begin with."""

    async def work(connection: Any) -> Counter[str]:
        return Counter(await connection.scalars(sa.select(batch_made.c.stage)))

    return await jobs.store.access.read("count in", work)


async def shown(jobs: BatchJobs, batch_id: str) -> Counter[str]:
    return Counter(item.status for item in await jobs.store.items(batch_id, limit=1000))


async def test_what_is_handed_back_while_the_analyzer_is_down_is_downloaded_once(
    jobs_of: Any, web: Any, until: Any
) -> None:
    web.analyzer_down = ServiceUnavailableError("the analyzer is down")
    jobs = await jobs_of(chunk=4)
    batch = await jobs.submit(urls(8), options={"max_retries": 50})

    async def all_wait() -> bool:
        waiting = await jobs.tables.find(workflow_id_prefix=batch.id, queue_name="waiting")
        return len(waiting) == 2 and (await kept(jobs))["analyze"] == 8

    await until(all_wait)
    items = await jobs.store.items(batch.id)
    assert {(item.status, item.stage) for item in items} <= {("retrying", "analyze"), ("in_progress", "analyze")}
    assert {item.attempts["download"] for item in items} == {1}
    web.analyzer_down = None
    report = await complete(jobs, batch.id)
    assert report["success"] == 8
    assert set(web.hits.values()) == {1}
    assert await kept(jobs) == {}
    item = (await jobs.store.items(batch.id))[0]
    assert (item.result["text_chars"], item.result["score"]) == (len("About ") + len(item.url), 0.5)


async def test_what_failed_in_the_analysis_begins_there_when_it_is_retried(jobs_of: Any, web: Any) -> None:
    web.analyzer_down = InputValidationError("no such language", code="unsupported_language")
    jobs = await jobs_of()
    batch = await jobs.submit(urls(5))
    assert (await complete(jobs, batch.id))["by_code"] == {"unsupported_language": 5}
    assert await kept(jobs) == {"analyze": 5}
    web.analyzer_down = None
    await jobs.pause((await jobs.submit(["nonsense"])).id)
    await jobs.retry(batch.id)
    report = await complete(jobs, batch.id)
    assert (report["success"], set(web.hits.values()), await kept(jobs)) == (5, {1}, {})


async def test_what_could_not_be_stored_is_not_analysed_again(jobs_of: Any, web: Any) -> None:
    web.store_down = ModelError("the index rejects it", code="prediction_failed")
    jobs = await jobs_of()
    batch = await jobs.submit(urls(5))
    report = await complete(jobs, batch.id)
    assert (report["failed"], report["by_stage"]) == (5, {"store": 5})
    analyses = web.analyses
    web.store_down = None
    await jobs.retry(batch.id)
    report = await complete(jobs, batch.id)
    assert (report["success"], set(web.hits.values()), web.analyses) == (5, {1}, analyses)
    assert (await jobs.store.items(batch.id))[0].result["score"] == 0.5


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
async def test_after_a_kill_while_the_analyzer_is_down_nothing_is_downloaded_again(
    jobs_of: Any, processes: Any, until: Any, tmp_path: Path
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0)
    down = tmp_path / "down"
    down.touch()
    (first,) = processes(down=down)
    batch = await watcher.submit(urls(30), options={"max_retries": 50})

    async def all_kept() -> bool:
        return (await kept(watcher))["analyze"] == 30

    await until(all_kept, 30)
    first.kill()
    first.wait()
    down.unlink()
    processes(down=down)
    report = await complete(watcher, batch.id)
    assert (report["success"], await kept(watcher)) == (30, {})
    fetched = Counter(line.split()[1] for line in (tmp_path / "log").read_text().splitlines())
    assert fetched == Counter(urls(30))


async def test_slow_items_are_in_progress_and_nothing_that_nobody_works_on_is(
    jobs_of: Any, web: Any, until: Any
) -> None:
    web.seconds = 30.0
    jobs = await jobs_of(chunk=20)
    batch = await jobs.submit(urls(20))

    async def some() -> bool:
        return (await shown(jobs, batch.id))["in_progress"] == 8

    await until(some)
    assert (await jobs.status(batch.id))["in_progress"] == 8
    item = (await jobs.store.items(batch.id, status="in_progress"))[0]
    assert (item.stage, item.attempts) == ("download", {"download": 1})
    await jobs.pause(batch.id)

    async def none() -> bool:
        return await shown(jobs, batch.id) == {"pending": 20}

    await until(none)
    await asyncio.sleep(0.3)
    assert await none()
    await jobs.resume(batch.id)
    await until(some)
    await jobs.aclose(0)  # without any time to end what is under way
    assert await none()
    web.seconds = 0.0
    again = await jobs_of()
    assert (await complete(again, batch.id))["success"] == 20


async def test_what_a_dead_process_had_under_way_is_done_again_or_pending_when_its_batch_was_stopped(
    jobs_of: Any, processes: Any, until: Any
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0)
    (first,) = processes(seconds=60)
    stopped = await watcher.submit(urls(4))
    going = await watcher.submit([f"{url}/b" for url in urls(4)])

    async def under_way() -> bool:
        return all([(await shown(watcher, one.id))["in_progress"] == 4 for one in (stopped, going)])

    await until(under_way, 30)
    first.kill()
    first.wait()
    await watcher.pause(stopped.id)
    assert await shown(watcher, stopped.id) == {"pending": 4}
    processes()
    assert (await complete(watcher, going.id))["success"] == 4
    assert await shown(watcher, stopped.id) == {"pending": 4}


async def test_fast_items_cost_no_more_than_their_outcome(jobs_of: Any, web: Any, monkeypatch: Any) -> None:
    jobs = await jobs_of(chunk=50)
    saved: list[str] = []
    save = jobs.store.save

    async def counting(batch_id: str, items: Any) -> str:
        saved.extend(item.status for item in items)
        return await save(batch_id, items)

    monkeypatch.setattr(jobs.store, "save", counting)
    batch = await jobs.submit(urls(50))
    assert (await complete(jobs, batch.id))["success"] == 50
    assert Counter(saved)["success"] == 50
    assert len(saved) <= 50 + 8


async def test_each_stage_has_its_own_retries(jobs_of: Any, web: Any) -> None:
    web.policies = {stage: RetryPolicy(max_attempts=100, base_delay=0.0) for stage in ("download", "analyze")}
    bad = urls(2)[0]
    web.broken = {bad: ServiceUnavailableError("down")}
    web.analyzer_down = ServiceUnavailableError("the analyzer is down")
    jobs = await jobs_of()
    batch = await jobs.submit(urls(2), options={"max_retries": {"download": 5, "analyze": 1}})
    report = await complete(jobs, batch.id)
    assert report["failed"] == 2
    items = await jobs.store.items(batch.id)
    assert [item.attempts for item in items] == [{"download": 6}, {"download": 1, "extract": 1, "analyze": 2}]
    assert [item.retries for item in items] == [{"download": 5}, {"analyze": 1}]
    assert report["options"] == {"max_retries": {"download": 5, "analyze": 1}}
