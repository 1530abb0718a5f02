import asyncio
import logging
import threading
import time
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from bulletproof.errors import ConfigurationError, StoreError
from bulletproof.jobs.lease import leases_of
from bulletproof.jobs.system import Job, JobTables
from bulletproof.store.address import Address


def jobs(count: int, prefix: str = "job") -> list[Job]:
    return [Job(f"{prefix}:{number}", "work", ("work", number), count - number) for number in range(count)]


async def test_every_job_is_done_in_the_order_of_priorities(executor_of: Any, until: Any) -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    executor, tables = await executor_of(work, queues={"work": (1, 0.2)}, ready=False)
    await executor.ready()
    await tables.enqueue(jobs(6))
    await tables.enqueue(jobs(6))  # the same ids: nothing new
    await until(lambda: len(done) == 6)
    assert done.index(5) < done.index(0)
    await asyncio.sleep(0.3)
    assert sorted(done) == list(range(6))


async def test_a_job_that_fails_is_tried_again_and_never_given_up(
    executor_of: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tries: Counter[int] = Counter()
    waits: list[float] = []

    async def work(number: int) -> None:
        tries[number] += 1
        if tries[number] < 4:
            raise StoreError("gone fishing") if number else ValueError("a bug")

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        _, tables = await executor_of(work, pause=sleep)
        await tables.enqueue(jobs(2))

        async def over() -> bool:
            return len(await tables.find(status="SUCCESS")) == 2

        await until(over)
    assert tries == {0: 4, 1: 4}
    assert "gone fishing" in caplog.text
    assert max(waits) > 2  # it waits longer each time


async def test_no_time_is_spent_once_nothing_is_under_way(executor_of: Any, until: Any) -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        while executor.taking:
            await asyncio.sleep(0.01)

    executor, tables = await executor_of(work)
    await tables.enqueue(jobs(2))
    await until(lambda: len(begun) == 2)
    before = time.monotonic()
    await executor.aclose(60)
    assert time.monotonic() - before < 15
    assert len(await tables.find(status="ENQUEUED")) == 2


async def test_a_job_taken_off_its_queue_at_the_last_moment_is_handed_back_without_a_word(
    executor_of: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    taken = threading.Event()

    async def work(number: int) -> None:
        await asyncio.Event().wait()

    executor, tables = await executor_of(work)

    @sa.event.listens_for(tables.engine, "after_cursor_execute")
    def slow(_1: Any, _2: Any, statement: str, *_3: Any) -> None:
        if statement.startswith("UPDATE") and threading.current_thread().name == "queue-worker-work":
            taken.set()
            time.sleep(0.5)

    with caplog.at_level(logging.WARNING):
        await tables.enqueue(jobs(2))
        await until(taken.is_set)
        await executor.aclose(0)
    assert "job engine" not in caplog.text
    assert len(await tables.find(status="ENQUEUED")) == 2


async def test_what_is_not_done_in_the_drain_time_is_handed_back_at_once(executor_of: Any, until: Any) -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        if number:
            await asyncio.Event().wait()
        while executor.taking:
            await asyncio.sleep(0.01)

    executor, tables = await executor_of(work)
    await tables.enqueue(jobs(2))
    await until(lambda: len(begun) == 2)
    await executor.aclose(0.2)
    assert len(await tables.find(status="ENQUEUED")) == 2
    again, _ = await executor_of(work)
    await until(lambda: len(begun) == 4)
    assert again.id == "executor-0"


async def test_jobs_of_a_dead_executor_are_taken_up_and_those_of_a_slow_one_are_not(
    executor_of: Any, until: Any, place: Address
) -> None:
    begun: list[int] = []
    done: list[int] = []
    hang = True

    async def work(number: int) -> None:
        begun.append(number)
        if hang:
            await asyncio.Event().wait()
        done.append(number)

    first, tables = await executor_of(work)
    await tables.enqueue(jobs(3))
    await until(lambda: len(begun) == 3)
    # The process stops without a word: its work stays as it is, and its lock too while it is only slow.
    other = JobTables(place)
    holder = leases_of(place)
    first._leases, holder = holder, first._leases  # so that closing does not free the lock
    await first.aclose(0)
    assert len(await other.find(status="PENDING", executor_id="executor-0")) == 3
    hang = False
    second, _ = await executor_of(work)
    assert second.id == "executor-1"
    await asyncio.sleep(1)
    assert done == []
    await holder.aclose()
    await until(lambda: len(done) == 3)
    other.close()


async def test_a_job_that_the_engine_took_but_did_not_start_is_found(
    executor_of: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulletproof.jobs.executor._LOST_SECONDS", 1.0)
    done: list[int] = []

    async def work(number: int) -> None:
        done.append(number)

    executor, tables = await executor_of(work, tick=0.1)
    original, lost = executor.work, []

    async def lose_once(job_id: str, kind: str, args: tuple[Any, ...]) -> None:
        if not lost:
            lost.append(job_id)
            await asyncio.Event().wait()
        await original(job_id, kind, args)

    executor.work = lose_once
    await tables.enqueue(jobs(1))
    await until(lambda: lost)
    await until(lambda: done == [0])


async def test_a_lost_lease_stops_the_work_and_another_is_taken(executor_of: Any, until: Any, place: Address) -> None:
    begun: list[str] = []

    async def work(number: int) -> None:
        begun.append(executor.id)
        if len(begun) == 1:
            await asyncio.Event().wait()

    executor, tables = await executor_of(work)
    await tables.enqueue(jobs(1))
    await until(lambda: begun)
    await executor._leases.aclose()
    await until(lambda: len(begun) == 2)
    assert begun == ["executor-0", "executor-0"]


async def test_there_is_one_executor_a_process(executor_of: Any) -> None:
    async def work(number: int) -> None: ...

    await executor_of(work)
    with pytest.raises(ConfigurationError, match="already"):
        await executor_of(work)
