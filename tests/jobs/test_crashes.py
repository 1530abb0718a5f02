"""Real processes that are killed, stopped and told to end while they work on batches."""

import asyncio
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors import StoreError
from bulletproof.jobs import BatchJobs
from bulletproof.jobs.system import JOB_SCHEMA

UNDER_WAY = 8 + 6 * 8
"""Most items that a process has fetched and not saved: those that run, and those that wait for the store."""


def urls(count: int) -> list[str]:
    return [f"https://a.example.com/{number}" for number in range(count)]


def fetched(log: Path) -> Counter[str]:
    """How often each URL was fetched, by all processes."""
    return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()


async def settled(jobs: BatchJobs, batch_id: str, expected: int) -> None:
    async with asyncio.timeout(40):
        async for _ in jobs.events(batch_id):
            pass
    items = await jobs.store.items(batch_id, limit=1000)
    assert [item.status for item in items] == ["success"] * expected
    assert len({item.url for item in items}) == expected


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_after_a_kill_and_an_update_of_the_code_everything_is_done(
    jobs_of: Any, processes: Any, until: Any, tmp_path: Path
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0)
    (process,) = processes(seconds=0.05)
    batch = await watcher.submit(urls(300))
    await until(lambda: len(fetched(tmp_path / "log")) > 60)
    process.kill()
    process.wait()
    counts = await watcher.store.counts(batch.id)
    assert 0 < counts.done < 300
    processes(changed=True)
    await settled(watcher, batch.id, 300)
    # Only what was under way when it was killed was done twice.
    assert sum(fetched(tmp_path / "log").values()) <= 300 + UNDER_WAY
    assert {job.app_version for job in await watcher.tables.find()} == {JOB_SCHEMA}


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_of_three_workers_one_may_die_and_one_may_be_slow(
    jobs_of: Any, processes: Any, until: Any, tmp_path: Path
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0)
    dying, slow, _ = processes(3, seconds=0.05)
    batch = await watcher.submit(urls(1000))

    async def all_have_work() -> bool:
        return len({job.executor_id for job in await watcher.tables.find(status="PENDING")}) == 3

    await until(all_have_work, 30)
    await until(lambda: len(fetched(tmp_path / "log")) > 100)
    slow.send_signal(signal.SIGSTOP)
    dying.kill()
    done = await watcher.store.counts(batch.id)
    assert done.done < 1000

    async def all_but_those_of_the_slow_one() -> bool:
        pending = await watcher.tables.find(status=["PENDING", "ENQUEUED"])
        return len({job.executor_id for job in pending}) == 1 and len(pending) <= 4

    await until(all_but_those_of_the_slow_one, 40)
    held = {job.executor_id for job in await watcher.tables.find(status="PENDING")}
    await asyncio.sleep(3)  # time enough to take its work for that of a dead one
    assert {job.executor_id for job in await watcher.tables.find(status="PENDING")} == held
    assert (await watcher.status(batch.id))["status"] == "running"
    slow.send_signal(signal.SIGCONT)
    await settled(watcher, batch.id, 1000)
    assert sum(fetched(tmp_path / "log").values()) <= 1000 + UNDER_WAY


async def test_a_worker_that_is_told_to_stop_hands_its_work_back(
    jobs_of: Any, processes: Any, until: Any, tmp_path: Path
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0)
    (first,) = processes(seconds=0.05, drain=5)
    batch = await watcher.submit(urls(200))
    await until(lambda: len(fetched(tmp_path / "log")) > 40)
    first.terminate()
    assert await asyncio.to_thread(first.wait, 10) == 0
    assert await watcher.tables.find(status="PENDING") == []
    assert await watcher.tables.find(status="ENQUEUED") != []
    processes()
    await settled(watcher, batch.id, 200)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_a_database_that_goes_away_is_waited_for(
    jobs_of: Any, web: Any, postgres: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    web.seconds = 0.02
    jobs = await jobs_of()
    batch = await jobs.submit(urls(400))
    await until(lambda: len(web.hits) > 50)
    postgres.stop()
    await asyncio.sleep(1.5)
    postgres.start()

    async def back() -> bool:
        with suppress(StoreError):
            return bool(await jobs.status(batch.id))
        return False

    await until(back)
    await settled(jobs, batch.id, 400)
    assert "lost its lease" in caplog.text
