import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from bulletproof.errors import InputValidationError, NotFoundError, ServiceUnavailableError, StoreError
from bulletproof.jobs import BatchJobs
from bulletproof.jobs.engine import _job
from bulletproof.jobs.options import retries_from
from bulletproof.jobs.progress import Progress
from bulletproof.pipeline import ProcessingItem
from bulletproof.pipeline.rows import PLAIN
from bulletproof.store import ItemRow
from bulletproof.store.address import Address, parse_address


@pytest.fixture
def place(tmp_path: Path) -> Address:
    """PostgreSQL is tested with real processes."""
    return parse_address(None, tmp_path / "data")


def urls(count: int, prefix: str = "a") -> list[str]:
    return [f"https://{prefix}.example.com/{number}" for number in range(count)]


async def complete(jobs: BatchJobs, batch_id: str) -> dict[str, Any]:
    report: dict[str, Any] = {}
    async with asyncio.timeout(30):
        async for one in jobs.events(batch_id):
            report = one
    return report


async def test_every_item_of_a_batch_is_done_once(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of()
    batch = await jobs.submit([*urls(35), urls(1)[0], "nonsense"], owner="ada", options={"priority": 2})
    report = await complete(jobs, batch.id)
    assert report["status"] == "complete"
    assert (report["total"], report["duplicates"], report["success"], report["failed"]) == (36, 1, 35, 1)
    assert report["by_code"] == {"invalid_input": 1}
    assert report["by_error_type"] == {"validation_error": 1}
    assert report["finished_at"] >= report["created_at"]
    assert report["seconds_left"] is None
    assert set(web.hits.values()) == {1}
    assert len(web.hits) == 35
    items = await jobs.store.items(batch.id, limit=100)
    assert all(item.result["score"] == 0.5 for item in items if item.status == "success")
    await asyncio.sleep(0.3)
    assert len(await jobs.tables.find(workflow_id_prefix=batch.id)) == 4
    await jobs.tables.forget_ended(before=datetime.now(UTC) + timedelta(days=1))
    assert await jobs.tables.find(workflow_id_prefix=batch.id) == []


async def test_the_status_names_what_failed_and_why(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of()
    batch = await jobs.submit([*urls(3), *(f"no url {number}" for number in range(22))])
    await complete(jobs, batch.id)
    report = await jobs.status(batch.id)
    assert (report["attempts"], report["failed_items_left_out"]) == (3 * 4, 2)
    assert len(report["failed_items"]) == 20
    first = report["failed_items"][0]
    assert (first["url"], first["stage"], first["code"]) == ("no url 0", "download", "invalid_input")
    assert first["error"]
    assert first["hint"]


async def test_the_status_says_what_the_stages_took(jobs_of: Any, web: Any) -> None:
    web.seconds = 0.05
    bad = urls(1)[0]
    web.broken = {bad: NotFoundError("gone")}
    jobs = await jobs_of()
    batch = await jobs.submit([*urls(20), "https://b.example.com/"])
    await complete(jobs, batch.id)
    report = await jobs.status(batch.id)
    download = report["stages"]["download"]
    assert {name: download[name] for name in ("attempts", "succeeded", "retried", "failed")} == {
        "attempts": 21, "succeeded": 20, "retried": 0, "failed": 1
    }  # fmt: skip
    assert 0.04 < download["p50"] <= download["p95"] <= download["p99"] < 5
    assert report["stages"]["store"]["succeeded"] == 20
    assert {host["host"]: host["downloads"] for host in report["slowest_hosts"]} == {
        "a.example.com": 20, "b.example.com": 1
    }  # fmt: skip
    # Whoever asks in another process, or later, learns the same.
    later = await jobs_of(begin=False)
    told = await later.status(batch.id)
    assert (told["stages"], told["slowest_hosts"]) == (report["stages"], report["slowest_hosts"])


async def test_the_status_adds_up_all_workers_with_their_breakers(
    jobs_of: Any, processes: Any, until: Any, tmp_path: Path
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0, chunk=10)
    (tmp_path / "down").touch()
    processes(2, down=tmp_path / "down", seconds=0.05)
    batch = await watcher.submit(urls(80), options={"max_retries": 100})

    async def both_seen() -> bool:
        report = await watcher.status(batch.id)
        return report["workers"] == 2 and report["breakers"].get("analyze", {}).get("state") == "open"

    await until(both_seen, 40)
    (tmp_path / "down").unlink()
    await complete(watcher, batch.id)

    async def all_counted() -> bool:
        report = await watcher.status(batch.id)
        assert report["success"] == 80
        assert report["retries"] == report["stages"]["analyze"]["retried"] > 0
        return bool(report["stages"]["download"]["attempts"] == report["stages"]["store"]["succeeded"] == 80)

    await until(all_counted)


async def test_the_status_says_since_when_nobody_has_worked_on_a_batch_and_how_to_go_on(
    jobs_of: Any, processes: Any, until: Any
) -> None:
    watcher = await jobs_of(begin=False, concurrency=0, chunk=10)
    (process,) = processes(1, seconds=0.3)
    batch = await watcher.submit(urls(400))

    async def is_worked_on() -> bool:
        return bool((await watcher.status(batch.id))["workers"])

    await until(is_worked_on)
    report = await watcher.status(batch.id)
    assert (report["status"], report["idle_seconds"] < 10, report["notice"]) == ("running", True, None)

    async def comes_on() -> bool:
        return (await watcher.status(batch.id))["seconds_left"] is not None

    await until(comes_on)
    process.kill()
    process.wait(10)
    watcher.store._now = watcher._now = lambda: datetime.now(UTC) + timedelta(minutes=1)
    report = await watcher.status(batch.id)
    assert (report["status"], report["workers"], report["seconds_left"]) == ("running", 0, None)
    assert 60 <= report["idle_seconds"] < 80
    assert f"{report['idle_seconds']:.0f} s; " in report["notice"]
    assert f"bulletproof batch resume {batch.id}" in report["notice"]
    await watcher.pause(batch.id)
    assert "notice" not in await watcher.status(batch.id)


async def test_the_status_counts_texts_that_were_cut(jobs_of: Any) -> None:
    jobs = await jobs_of(begin=False)
    batch = await jobs.submit(urls(1))
    for _ in range(2):
        progress = Progress(jobs.store, dict)
        with progress.part(batch.id) as part:
            part.figures.truncated += 1
            await progress.save(part, at_end=True)
    assert (await jobs.status(batch.id))["truncated"] == 2


async def test_the_status_of_a_batch_that_many_processes_worked_on_is_told_quickly(jobs_of: Any) -> None:
    jobs = await jobs_of(begin=False)
    batch = await jobs.submit(urls(1))
    clock = iter(range(10**6)).__next__
    for _ in range(200):
        progress = Progress(jobs.store, dict, clock=clock)
        with progress.part(batch.id) as part:
            for number in range(400):
                part.figures.answered(f"host{number}.example.com", number / 100)
                part.figures.stages["download"].times.add(number / 100)
                part.figures.stages["download"].attempts += 1
            await progress.save(part, at_end=True)
    began = time.perf_counter()
    report = await jobs.progress.report(batch.id)
    assert time.perf_counter() - began < 0.5
    assert report["attempts"] == 200 * 400
    assert report["slowest_hosts"][0]["host"] == "host399.example.com"


async def test_a_page_is_one_item_however_its_address_is_spelt(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of()
    given = ["HTTP://A.example:80/x/../page#part", "http://a.example/page", "http://a.example/page#x", "no url", "//"]
    batch = await jobs.submit(given)
    assert (batch.given, batch.total, batch.duplicates) == (5, 3, 2)
    report = await complete(jobs, batch.id)
    assert (report["success"], report["failed"], report["total"]) == (1, 2, 3)
    items = await jobs.store.items(batch.id)
    assert [item.url for item in items] == [given[0], "no url", "//"]
    assert b"key" not in orjson.dumps(items)
    assert sum(web.hits.values()) == 1


async def test_the_same_key_finds_the_same_batch_and_does_nothing_twice(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of()
    first = await jobs.submit(urls(5), owner="ada", key="import-7")
    await complete(jobs, first.id)
    again = await jobs.submit(urls(5), owner="ada", key="import-7")
    assert (again.id, again.status) == (first.id, "complete")
    assert set(web.hits.values()) == {1}
    with pytest.raises(InputValidationError) as caught:
        await jobs.submit(urls(6), owner="ada", key="import-7")
    assert caught.value.code == "conflict"


async def test_a_paused_batch_stands_still_and_goes_on_when_it_is_resumed(jobs_of: Any, web: Any, until: Any) -> None:
    web.seconds = 0.05
    jobs = await jobs_of(chunk=20)
    batch = await jobs.submit(urls(200))
    await until(lambda: len(web.hits) >= 20)
    paused = await jobs.pause(batch.id)
    assert paused.status == "paused"

    async def none_left() -> bool:
        return not await jobs.tables.find(workflow_id_prefix=f"{batch.id}:", status=["ENQUEUED", "PENDING"])

    await until(none_left)
    before = sum(web.hits.values())
    await asyncio.sleep(0.5)
    assert sum(web.hits.values()) == before < 200
    assert (await jobs.status(batch.id))["status"] == "paused"
    web.seconds = 0
    await jobs.resume(batch.id)
    report = await complete(jobs, batch.id)
    assert report["success"] == 200
    assert sum(web.hits.values()) <= 200 + 4 * 8  # what was under way when it was paused


async def test_a_cancelled_batch_keeps_what_is_done_and_cannot_be_resumed(jobs_of: Any, web: Any, until: Any) -> None:
    web.seconds = 0.05
    jobs = await jobs_of(chunk=20)
    batch = await jobs.submit(urls(200))
    await until(lambda: len(web.hits) >= 20)
    await jobs.cancel(batch.id)
    report = await complete(jobs, batch.id)
    assert report["status"] == "cancelled"
    assert report["success"] < 200
    for change in (jobs.resume, jobs.pause, jobs.retry):
        with pytest.raises(InputValidationError) as caught:
            await change(batch.id)
        assert caught.value.code == "conflict"
    assert (await jobs.cancel(batch.id)).status == "cancelled"


async def test_failed_items_are_done_again_when_asked_for(jobs_of: Any, web: Any) -> None:
    bad, worse = urls(2)
    web.broken = {bad: NotFoundError("gone"), worse: InputValidationError("rubbish", code="corrupted_image")}
    jobs = await jobs_of()
    batch = await jobs.submit(urls(12))
    assert (await complete(jobs, batch.id))["by_code"] == {"not_found": 1, "corrupted_image": 1}
    web.broken = {}
    await jobs.retry(batch.id, codes=["not_found"])
    assert (await complete(jobs, batch.id))["by_code"] == {"corrupted_image": 1}
    await jobs.retry(batch.id)
    report = await complete(jobs, batch.id)
    assert (report["success"], report["failed"]) == (12, 0)
    assert web.hits[urls(12)[5]] == 1


async def test_a_job_that_is_run_twice_skips_what_is_done(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of()
    batch = await jobs.submit(urls(10))
    await complete(jobs, batch.id)
    await jobs.tables.enqueue([_job(batch, 0, 99)])
    await asyncio.sleep(1)
    assert set(web.hits.values()) == {1}
    assert (await jobs.status(batch.id))["status"] == "complete"


async def test_a_batch_whose_jobs_could_not_be_enqueued_is_found(jobs_of: Any, web: Any, monkeypatch: Any) -> None:
    jobs = await jobs_of(begin=False)

    async def down(_: Any) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.tables, "enqueue", down)
        await jobs.store.access.open()
        batch = await jobs.submit(urls(15))
    await jobs.start()
    assert (await complete(jobs, batch.id))["success"] == 15


async def test_items_that_only_wait_hold_up_no_others(jobs_of: Any, web: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("bulletproof.jobs.chunk._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("bulletproof.jobs.chunk._WAITING_SECONDS", 0.3)
    down = [f"https://down.example.com/{number}" for number in range(8)]
    web.broken = {url: StoreError("a place that is down", code="database_unavailable", retry_after=2) for url in down}
    jobs = await jobs_of(chunk=2)
    # Of the chunks that are worked on at the same time, each has one that waits.
    mixed = [url for pair in zip(down, urls(8), strict=True) for url in pair]
    waiting = await jobs.submit(mixed, options={"priority": 1, "max_retries": 20})
    other = await jobs.submit(urls(20, "b"))
    async with asyncio.timeout(20):
        report = await complete(jobs, other.id)
    assert report["success"] == 20
    stands = await jobs.status(waiting.id)
    assert stands["success"] == 8
    assert stands["done"] < 16
    web.broken = {}
    report = await complete(jobs, waiting.id)
    assert report["success"] == 16
    assert all(item.retry_count for item in await jobs.store.items(waiting.id) if "down" in item.url)


async def test_items_that_never_began_because_their_host_is_down_hold_up_no_others(
    jobs_of: Any, web: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bulletproof.jobs.chunk._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("bulletproof.jobs.chunk._WAITING_SECONDS", 0.3)
    down = urls(120, "down")
    error = ServiceUnavailableError("cannot connect")
    web.broken = dict.fromkeys(down, error)
    jobs = await jobs_of(chunk=30)  # a chunk for each that is worked on at the same time
    waiting = await jobs.submit(down, options={"priority": 1, "max_retries": 20})
    async with asyncio.timeout(15):
        while not web.hits:
            await asyncio.sleep(0.02)
        report = await complete(jobs, (await jobs.submit(urls(20, "b"))).id)
    assert report["success"] == 20
    stands = await jobs.status(waiting.id)
    assert stands["done"] == 0
    assert stands["pending"] > 0  # what nobody has begun does not say that it is tried again


async def test_events_end_when_the_process_is_told_to_stop(jobs_of: Any, web: Any) -> None:
    web.seconds = 30
    jobs = await jobs_of()
    batch = await jobs.submit(urls(3))
    seen = []
    async with asyncio.timeout(10):
        async for report in jobs.events(batch.id):
            seen.append(report["status"])
            jobs.end_streams()
    assert seen[0] in ("queued", "running")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 0}, "priority must be"),
        ({"priority": 11}, "priority must be"),
        ({"priority": True}, "priority must be"),
        ({"max_retries": -1}, "max_retries must be"),
        ({"max_retries": {"fetch": 1}}, "there is no stage 'fetch'"),
        ({"max_retries": {"download": 101}}, "max_retries of download must be"),
        ({"max_retries": {"analyze": "2"}}, "max_retries of analyze must be"),
        ({"colour": 1}, "unknown option 'colour'"),
    ],
)
async def test_options_that_make_no_sense_are_refused(jobs_of: Any, options: Any, said: str) -> None:
    jobs = await jobs_of(begin=False)
    with pytest.raises(InputValidationError, match=said):
        await jobs.submit(urls(1), options=options)


@pytest.mark.parametrize("text", ["", "x", "1.5", "101", "download", "download=", "fetch=1", "download=1;analyze=2"])
def test_retries_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InputValidationError, match="max_retries"):
        retries_from(text)


async def test_batches_of_others_are_not_there(jobs_of: Any) -> None:
    jobs = await jobs_of()
    batch = await jobs.submit(urls(1), owner="ada")
    for ask in (jobs.status, jobs.pause, jobs.resume, jobs.cancel, jobs.retry):
        with pytest.raises(NotFoundError):
            await ask(batch.id, owner="bob")
        with pytest.raises(NotFoundError):
            await ask("nothing")
    assert (await complete(jobs, batch.id))["success"] == 1


async def test_a_deleted_batch_is_dropped(jobs_of: Any, web: Any, until: Any) -> None:
    web.seconds = 0.3
    jobs = await jobs_of()
    batch = await jobs.submit(urls(20))
    await until(lambda: web.hits)
    await jobs.store.delete(batch.id)

    async def over() -> bool:
        return not await jobs.tables.find(workflow_id_prefix=batch.id, status=["ENQUEUED", "PENDING"])

    await until(over)


async def test_an_empty_batch_is_complete_at_once(jobs_of: Any) -> None:
    jobs = await jobs_of()
    batch = await jobs.submit([])
    assert (await complete(jobs, batch.id))["status"] == "complete"


def test_a_short_batch_need_not_wait_for_a_long_one_that_came_first(make_batch: Any) -> None:
    long, short, urgent = make_batch("long"), make_batch("short"), make_batch("urgent", priority=1)
    order = sorted(
        [*(_job(long, n, 1) for n in range(4)), _job(short, 0, 1), _job(urgent, 7, 1)], key=lambda j: j.priority
    )
    assert [job.args[1] for job in order] == ["urgent", "long", "short", "long", "long", "long"]


@pytest.mark.parametrize("durable", [False, True])
async def test_a_batch_of_a_plain_pipeline_is_left_to_it(jobs_of: Any, web: Any, until: Any, durable: bool) -> None:
    web.seconds = 0.3
    jobs = await jobs_of()
    pipeline = web.pipeline(jobs.store, jobs._settings)
    pipeline.durable = durable
    under_way = asyncio.create_task(pipeline.process_batch([*urls(60), urls(1)[0]]))

    async def some_saved() -> bool:
        return any([(await jobs.store.counts(one.id)).done for one in await jobs.store.batches()])

    await until(some_saved)
    (batch,) = await jobs.store.batches()
    stands = await jobs.status(batch.id)
    assert (stands["status"], stands["total"] >= stands["done"] > 0) == ("running", True)
    await jobs._sweep()
    assert await jobs.tables.find() == []
    await under_way
    assert set(web.hits.values()) == {1}
    batch = await jobs.store.batch(batch.id)
    assert (batch.status, batch.given, batch.total) == ("complete", 61, 60)


async def test_single_items_of_a_plain_pipeline_are_one_batch_that_is_complete_at_its_end(
    jobs_of: Any, web: Any
) -> None:
    jobs = await jobs_of(begin=False)
    async with web.pipeline(jobs.store, jobs._settings) as pipeline:
        for url in urls(3):
            await pipeline.process_single_item(ProcessingItem(url))
        (open_,) = await jobs.store.batches()
        assert (open_.status, open_.total) == ("running", 3)
    await pipeline.process_items([ProcessingItem("https://late.example.com/")])
    (batch,) = await jobs.store.batches()
    assert (batch.status, batch.given, batch.total) == ("complete", 4, 4)
    assert (await jobs.status(batch.id))["success"] == 4


async def test_what_a_plain_pipeline_that_died_left_is_marked_as_complete_at_last(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of(tick=60)
    left = await jobs.store.create([], options=PLAIN)
    await jobs.store.save(left.id, [ItemRow(position=2**40, url="https://a.example.com/", status="success")])
    jobs._tidy_at = datetime.now(UTC)
    await jobs._sweep()
    assert (await jobs.store.batch(left.id)).status == "queued"
    jobs.store._now = jobs._now = lambda: datetime.now(UTC) + timedelta(hours=2)
    await jobs._sweep()
    found = await jobs.status(left.id)
    assert (found["status"], found["given"], found["total"], found["success"]) == ("complete", 1, 1, 1)
    assert web.hits == {}


async def test_batches_go_when_the_settings_say_so(jobs_of: Any, web: Any) -> None:
    jobs = await jobs_of(tick=60)
    batch = await jobs.submit(urls(2))
    await complete(jobs, batch.id)
    jobs.store._now = jobs._now = lambda: datetime.now(UTC) + timedelta(days=8)
    await jobs._sweep()
    assert (await jobs.store.batch(batch.id)).status == "complete"
    jobs._settings = jobs._settings.model_copy(update={"retention_days": 7.0})
    jobs._tidy_at = jobs._now()
    await jobs._sweep()
    with pytest.raises(NotFoundError):
        await jobs.store.batch(batch.id)
