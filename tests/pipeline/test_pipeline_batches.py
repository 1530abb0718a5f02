"""Batches: where URLs come from, what bounds them, and that nothing stays behind."""

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bulletproof import AIProcessingPipeline, InputValidationError, ProcessingItem, ProcessingStatus
from bulletproof.fetch import Fetcher
from bulletproof.settings import Settings
from support.web import Site

Make = Callable[..., Any]


async def test_the_usage_that_was_asked_for(web: Site, settings: Settings) -> None:
    pipeline = AIProcessingPipeline(max_concurrent=3, allow_hosts=[web.name], settings=settings)
    urls = [
        web.url("/page/1"),
        "https://invalid-url-that-will-fail.invalid",
        web.url("/page/3"),
    ]
    results = await pipeline.process_batch(urls)
    report = pipeline.get_status_report()
    assert isinstance(results, dict)
    assert (report["total"], report["success"], report["failed"]) == (3, 2, 1)
    assert results == report
    assert [item.status.value for item in pipeline.items] == ["success", "failed", "success"]
    assert pipeline.items[0].result["title"] == "Report 1"
    assert pipeline.items[0].result["score"] < 0 < pipeline.items[2].result["score"]
    assert pipeline.items[1].code in ("not_found", "service_unavailable")  # without a resolver nobody can tell
    assert "invalid-url-that-will-fail" in str(report)
    assert not multiprocessing.active_children()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_stays_behind(web: Site, settings: Settings) -> None:
    before = set(threading.enumerate())
    pipeline = AIProcessingPipeline(allow_hosts=[web.name], settings=settings)
    for _ in range(2):
        await pipeline.process_batch([web.url("/json"), web.url("/text")])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.get_running_loop().shutdown_default_executor()
    left = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    for thread in left:
        thread.join(2)
    assert not any(thread.is_alive() for thread in left)


async def test_a_stage_can_be_called_by_itself(web: Site, settings: Settings) -> None:
    pipeline = AIProcessingPipeline(allow_hosts=[web.name], settings=settings)
    content = await pipeline.download_content(web.url("/text"))
    text = await pipeline.extract_text(content)
    assert "library" in text
    assert await pipeline.analyze_sentiment(text) > 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_one_pipeline_works_in_one_event_loop_after_the_other(web: Site, settings: Settings) -> None:
    pipeline = AIProcessingPipeline(allow_hosts=[web.name], settings=settings)
    for _ in range(2):
        report = asyncio.run(pipeline.process_batch([web.url("/text")]))
        assert report["success"] == 1


async def test_invalid_and_duplicate_urls_are_items_with_an_outcome(scripted: Make) -> None:
    pipeline = scripted()
    given = ["https://example.com/a", "HTTPS://EXAMPLE.com:443/a#top", "no url", "", None, "http://", "no url"]
    report = await pipeline.process_batch(given)
    assert (report["total"], report["success"], report["failed"], report["duplicates"]) == (7, 2, 5, 1)
    assert pipeline.calls["https://example.com/a", "download"] == 1
    twin = pipeline.items[1]
    assert (twin.status, twin.code) == (ProcessingStatus.SUCCESS, "duplicate")
    assert twin.result == {"url": given[1], "duplicate_of": "https://example.com/a"}
    assert {item.code for item in pipeline.items[2:]} == {"invalid_input"}
    assert all(item.error and item.hint and item.history for item in pipeline.items[2:])


async def test_other_schemes_are_for_downloads_of_ones_own(scripted: Make, settings: Settings) -> None:
    assert (await scripted().process_batch(["s3://bucket/key"]))["success"] == 1
    report = await AIProcessingPipeline(settings=settings).process_batch(["s3://bucket/key", "file:///etc/passwd"])
    assert report["by_code"] == {"blocked_url": 2}


async def numbers(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"https://example.com/{number}"


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "async generator", "file", "path text", "one"])
async def test_urls_come_from_anywhere(scripted: Make, tmp_path: Path, kind: str) -> None:
    known = [f"https://example.com/{number}" for number in range(3)]
    file = tmp_path / "urls.txt"
    file.write_text("\ufeff" + "\n".join(["# a comment", *known[:2], "", f"  {known[2]}  "]), encoding="utf-8")
    source = {
        "list": known, "tuple": tuple(known), "generator": (url for url in known), "async generator": numbers(3),
        "file": file, "path text": str(file), "one": known[0],
    }[kind]  # fmt: skip
    pipeline = scripted()
    report = await pipeline.process_batch(source)
    assert [item.url for item in pipeline.items] == (known[:1] if kind == "one" else known)
    assert report["success"] == report["total"] == len(pipeline.items)


async def test_a_file_that_is_not_there_is_said_so(scripted: Make, tmp_path: Path) -> None:
    with pytest.raises(InputValidationError, match=r"the file of URLs '.*none\.txt' cannot be read: No such file"):
        await scripted().process_batch(tmp_path / "none.txt")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("given", [None, 7, b"https://example.com/", object()])
async def test_what_is_no_list_of_urls_is_said_so(
    scripted: Make, settings: Settings, given: Any, durable: bool
) -> None:
    pipeline = scripted(settings=settings, durable=True) if durable else scripted()
    with pytest.raises(InputValidationError, match=f"URLs have to be a list, .*not {type(given).__name__}"):
        await pipeline.process_batch(given)


async def test_a_file_may_have_any_encoding_a_text_may_have(scripted: Make, tmp_path: Path) -> None:
    file = tmp_path / "urls.txt"
    file.write_bytes("# pages\nhttp://a.example/café\n".encode("utf-16"))
    pipeline = scripted()
    await pipeline.process_batch(file)
    assert [item.url for item in pipeline.items] == ["http://a.example/café"]


async def test_no_urls_are_a_batch_too(scripted: Make) -> None:
    report = await scripted().process_batch([])
    assert report["total"] == 0
    assert "0 items" in str(report)


async def test_urls_are_only_asked_for_when_there_is_room(scripted: Make) -> None:
    pipeline = scripted(max_concurrent=2, max_pending=10)
    most = 0

    def source() -> Iterator[str]:
        nonlocal most
        for number in range(500):
            report = pipeline.get_status_report()
            most = max(most, number - report["success"])
            yield f"https://example.com/{number}"

    report = await pipeline.process_batch(source())
    assert report["success"] == 500
    assert most <= 11


async def test_counts_are_exact_where_items_are_not_kept(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulletproof.pipeline.batch.KEPT", 20)
    bad = {(f"https://example.com/{number}", "extract"): ValueError("x") for number in range(0, 100, 10)}
    pipeline = scripted(bad)
    report = await pipeline.process_batch(numbers(100))
    assert (report["total"], report["success"], report["failed"]) == (100, 90, 10)
    assert len(pipeline.items) == 28  # the first twenty, and eight that failed later
    assert len(report["failed_items"]) == 10


async def test_concurrency_is_kept_to_and_used(scripted: Make, urls: Make) -> None:
    pipeline = scripted(max_concurrent=4)
    await pipeline.process_batch(urls(50))
    assert pipeline.peak == 4


async def test_hosts_are_asked_so_often_at_a_time_while_the_others_go_on(scripted: Make, urls: Make) -> None:
    pipeline = scripted(max_concurrent=8, host_concurrency=1, host_delay=2)
    report = await pipeline.process_batch([*urls(4, "a.example"), *urls(4, "b.example")])
    assert report["success"] == 8
    moments = [(item.history[1][1] - pipeline.items[0].history[1][1]).total_seconds() for item in pipeline.items]
    assert moments == [0, 2, 4, 6] * 2


async def test_what_the_source_raises_comes_out_and_stops_the_batch(scripted: Make) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "https://example.com/"
        raise OSError("the list broke off")

    pipeline = scripted()
    with pytest.raises(OSError, match="the list broke off"):
        await pipeline.process_batch(broken())
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (await pipeline.process_batch(["https://example.com/"]))["success"] == 1


async def test_what_on_done_raises_comes_out(scripted: Make, urls: Make) -> None:
    async def done(item: ProcessingItem) -> None:
        raise LookupError(item.url)

    with pytest.raises(LookupError, match="example"):
        await scripted().process_items([ProcessingItem(url) for url in urls(10)], on_done=done)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_batch_that_is_cancelled_leaves_nothing_running(urls: Make) -> None:
    class Stuck(AIProcessingPipeline):
        async def download_content(self, url: str) -> str:
            await asyncio.sleep(3600)
            return url

    pipeline = Stuck(max_concurrent=3)
    batch = asyncio.create_task(pipeline.process_batch(urls(10)))
    await asyncio.sleep(0.05)
    assert pipeline.get_status_report()["in_progress"] == 3
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert asyncio.all_tasks() == {asyncio.current_task()}
    report = pipeline.get_status_report()
    assert (report["in_progress"], report["pending"]) == (0, 10)


async def test_each_of_several_batches_at_the_same_time_has_a_report_of_its_own(scripted: Make, urls: Make) -> None:
    gone = urls(20, "b.example")[3]
    pipeline = scripted({(gone, "download"): InputValidationError("gone")}, max_concurrent=3)
    reports = await asyncio.gather(
        pipeline.process_batch(urls(20, "a.example")),
        pipeline.process_batch(urls(20, "b.example")),
        pipeline.process_batch(urls(5, "c.example")),
    )
    assert pipeline.peak == 3
    assert [(report["total"], report["success"], report["failed"]) for report in reports] == [
        (20, 20, 0),
        (20, 19, 1),
        (5, 5, 0),
    ]
    assert [item["url"] for item in reports[1]["failed_items"]] == [gone]
    assert {item.url for item in pipeline.items} == set(urls(5, "c.example"))  # those of the batch begun last
    assert pipeline.get_status_report()["total"] == 5


async def test_the_delay_that_a_host_asks_for_lies_between_its_downloads_and_costs_no_tries(
    web: Site, time: Any, monitor: Any
) -> None:
    class Crawl(AIProcessingPipeline):
        async def extract_text(self, content: str) -> str:
            return content

        async def analyze_sentiment(self, text: str) -> float:
            return 0.5

        async def store_result(self, item: ProcessingItem) -> bool:
            return True

    starts: dict[str, list[float]] = {"slow": [], "free": []}

    class Watched(Fetcher):
        async def get(self, url: str, **options: Any) -> Any:
            began = time.clock()
            page = await super().get(url, **options)
            starts["slow" if "slow" in url else "free"].append(began)
            return page

    for number in range(5):
        web.put(f"/slow/{number}", b"<p>A page.</p>")
        web.put(f"/free/{number}", b"<p>A page.</p>")
    web.robots("User-agent: *\nCrawl-delay: 7\n")
    # localhost leads into the network, but is no name on the list: its robots.txt counts
    fetcher = Watched(allow_hosts=["127.0.0.0/8", "::1/128"], clock=time.clock)
    times = {"clock": time.clock, "now": time.now, "sleep": time.sleep}
    async with fetcher, Crawl(4, fetcher=fetcher, monitor=monitor, **times) as pipeline:
        slow = [web.url(f"/slow/{number}", host="localhost") for number in range(5)]
        report = await pipeline.process_batch([*slow, *(web.url(f"/free/{number}") for number in range(5))])
    assert report["success"] == 10
    gaps = [later - sooner for sooner, later in pairwise(starts["slow"])]
    assert len(gaps) == 4
    assert all(7 <= gap < 14 for gap in gaps)
    assert min(starts["free"]) < max(starts["slow"])  # those of other hosts do not wait behind them
    assert (report["retries"], report["attempts"], report["by_stage"]["download"]["attempts"]) == (0, 40, 10)
    assert all(item.attempts["download"] == 1 and len(item.history) == 3 for item in pipeline.items)
    assert monitor.get_error_summary()["total_errors"] == 0


async def test_a_text_of_which_only_the_beginning_is_kept_is_said_to_be_cut(web: Site, settings: Settings) -> None:
    web.put("/long", b"It is a good book. " * 60_000, type="text/plain")
    async with AIProcessingPipeline(allow_hosts=[web.name], settings=settings) as pipeline:
        report = await pipeline.process_batch([web.url("/long"), web.url("/page/1")])
        rows = {row.url: row.result async for row in pipeline._parts.store.stream_results(report["batch_id"])}
    long, short = (rows[web.url(path)] for path in ("/long", "/page/1"))
    assert (long["truncated"], long["left_out_chars"], long["text_chars"]) == (True, 139_999, 1_000_000)
    assert long["analyzed_chars"] == settings.max_text_chars
    assert not {"truncated", "left_out_chars", "analyzed_chars"} & short.keys()
    assert report["truncated"] == 1
    assert "1 with only the beginning of their text" in str(report)
    table = report.to_dataframe()
    assert table["truncated"].tolist()[0] is True


async def test_a_plain_batch_ends_complete_with_right_totals(web: Site, settings: Settings) -> None:
    given = [web.url("/page/1"), web.url("/page/2"), web.url("/page/1"), web.url("/status/404"), "no url", "no url"]
    async with AIProcessingPipeline(allow_hosts=[web.name], settings=settings) as pipeline:
        report = await pipeline.process_batch(given)
        made = await pipeline._parts.store.batch(report["batch_id"])
    assert (made.status, made.given, made.total, made.duplicates) == ("complete", 6, 4, 2)


async def test_what_waits_is_kept_within_bounds_by_holding_back_downloads(
    scripted: Make, urls: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulletproof.pipeline.pipeline._KEPT_CHARS", 100)
    given = urls(50)
    script = {(url, "analyze"): [ConnectionError("busy")] for url in given}
    pipeline = scripted(script, max_concurrent=4)
    most = 0
    step = pipeline.step

    async def watched(url: str, stage: str) -> None:
        nonlocal most
        most = max(most, pipeline._scheduler._kept)
        await step(url, stage)

    monkeypatch.setattr(pipeline, "step", watched)
    report = await pipeline.process_batch(given)
    assert report["success"] == 50
    assert 0 < most <= 100 + 5 * len(given[-1])
    assert pipeline._scheduler._kept == 0


@pytest.mark.parametrize("value", [0, -1, 2.5, "3"])
def test_nonsense_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match="max_concurrent must be a whole number of at least 1"):
        AIProcessingPipeline(max_concurrent=value)


async def test_hosts_of_the_settings_may_be_fetched_too(web: Site, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", fetch_allow_hosts=(web.name,))
    assert (await AIProcessingPipeline(settings=settings).process_batch([web.url("/text")]))["success"] == 1
    settings = Settings(data_dir=tmp_path / "data")
    report = await AIProcessingPipeline(settings=settings).process_batch([web.url("/text")])
    assert report["by_code"] == {"blocked_url": 1}
