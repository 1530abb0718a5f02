"""Hosts and services that are down: their items wait without using up their tries, and the others go on."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bulletproof import (
    AIProcessingPipeline,
    CircuitConfig,
    CircuitOpenError,
    NotFoundError,
    ProcessingItem,
    ProcessingStatus,
    ServiceUnavailableError,
)
from bulletproof.analysis import Analysis, BatchAnalysis
from bulletproof.settings import Settings
from bulletproof.store import BatchStore, ResultStore
from support.web import Site

Make = Callable[..., Any]


class Outage:
    """Stages that fail between two moments."""

    def __init__(self, pipeline: Any, time: Any, stage: str, host: str, seconds: float) -> None:
        self.ends = time.seconds + seconds
        self.asked = 0
        step = pipeline.step

        async def maybe(url: str, at: str) -> None:
            if at == stage and host in url and time.seconds < self.ends:
                self.asked += 1
                pipeline.calls[url, at] += 1
                await asyncio.sleep(0)
                raise ConnectionError("down")
            await step(url, at)

        pipeline.step = maybe


async def test_the_items_of_a_host_that_is_down_wait_and_lose_nothing(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted(max_concurrent=5)
    await pipeline.process_batch(urls(1, "down.example"))  # it worked before
    outage = Outage(pipeline, time, "download", "down.example", 120)
    up = urls(50, "up.example")
    report = await pipeline.process_batch([*urls(100, "down.example"), *up])
    assert report["failed"] == 0
    assert outage.asked < 60  # a hundred items, and a hundred and twenty seconds
    assert max(item.retry_count for item in pipeline.items) <= 3
    began = pipeline.items[0].history[0][1]
    took = [(item.history[-1][1] - began).total_seconds() for item in pipeline.items if item.url in up]
    assert max(took) < 30
    assert report["parked"] > 0


@pytest.mark.parametrize("stage", ["analyze", "store"])
async def test_a_service_that_is_down_makes_items_wait(scripted: Make, urls: Make, time: Any, stage: str) -> None:
    pipeline = scripted(max_concurrent=5, circuits=CircuitConfig(failure_threshold=5, mode="consecutive", timeout=5))
    await pipeline.process_batch(urls(3))
    outage = Outage(pipeline, time, stage, "example.com", 90)
    report = await pipeline.process_batch(urls(40))
    assert report["failed"] == 0
    assert outage.asked < 40
    assert all(pipeline.calls[url, "download"] <= 2 for url in urls(40))  # once in each batch


async def test_a_host_that_never_worked_is_given_up_after_a_while(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted({(url, "download"): ConnectionError("dead") for url in urls(200)}, patience=300)
    report = await pipeline.process_batch(urls(200))
    assert report["failed"] == 200
    assert report["attempts"] < 100
    assert report["by_code"]["circuit_open"] > 100
    assert time.seconds - 1000 < 120
    assert "host:example.com" in report["breakers"]


async def test_a_dead_service_does_not_hold_a_batch_for_ever(scripted: Make, urls: Make) -> None:
    pipeline = scripted({(url, "analyze"): ConnectionError("dead") for url in urls(100)}, patience=60)
    report = await pipeline.process_batch(urls(100))
    assert (report["failed"], report["success"]) == (100, 0)


async def test_few_items_on_a_dead_host_use_up_their_tries(scripted: Make, urls: Make) -> None:
    pipeline = scripted({(url, "download"): ConnectionError("dead") for url in urls(4)})
    await pipeline.process_batch(urls(4))
    assert [item.retry_count for item in pipeline.items] == [3] * 4


async def test_a_new_batch_does_not_remember_how_long_a_host_was_down(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted({(url, "download"): ConnectionError("dead") for url in urls(60)})
    await pipeline.process_batch(urls(60))
    pipeline.script.clear()
    time.seconds += 3600
    assert (await pipeline.process_batch(urls(60)))["success"] == 60


async def test_a_breaker_that_an_operator_disabled_does_not_make_retries_endless(scripted: Make, urls: Make) -> None:
    pipeline = scripted({(url, "download"): ConnectionError("dead") for url in urls(30)})
    pipeline.breakers["host:example.com"].disable()
    await pipeline.process_batch(urls(30))
    assert {item.retry_count for item in pipeline.items} == {3}


async def test_items_wait_as_long_as_an_operator_holds_a_circuit_open(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted(patience=10)
    breaker = pipeline.breakers["host:example.com"]
    breaker.force_open()
    batch = asyncio.create_task(pipeline.process_batch([*urls(3), "https://up.example/"]))
    while time.seconds < 1500:
        await asyncio.sleep(0)
    assert pipeline.get_status_report()["success"] == 1
    breaker.enable()
    report = await asyncio.wait_for(batch, 10)
    assert (report["success"], report["attempts"]) == (4, 16)


async def test_a_circuit_that_is_open_inside_a_stage_parks_the_stage(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted({(urls(1)[0], "analyze"): [CircuitOpenError("llm", "open", 30.0)] * 5}, max_concurrent=1)
    report = await pipeline.process_batch(urls(4))
    assert (report["failed"], report["retries"], report["parked"]) == (0, 0, 5)
    assert time.seconds >= 1150


async def test_a_document_that_needs_a_service_that_is_down_holds_up_no_other(
    scripted: Make, urls: Make, time: Any
) -> None:
    needy, *others = urls(20)
    pipeline = scripted({(needy, "extract"): [CircuitOpenError("llm", "open", 30.0)] * 3}, max_concurrent=2)
    await pipeline.process_batch([needy, *others])
    ended = {item.url: item.history[-1] for item in pipeline.items}
    assert {status for status, _ in ended.values()} == {ProcessingStatus.SUCCESS}
    assert all(ended[needy][1] > ended[url][1] for url in others)
    assert time.seconds >= 1090


class Flaky:
    """An analyzer that fails as often as it is told, counts its batches, and cannot stand one text."""

    name = "flaky/1"

    def __init__(self, failures: int = 0, hated: str = "no such text") -> None:
        self.failures = failures
        self.hated = hated
        self.batches: list[int] = []

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        self.batches.append(len(texts))
        await asyncio.sleep(0.001)
        if self.failures > 0:
            self.failures -= 1
            raise ServiceUnavailableError("busy")
        if any(self.hated in text for text in texts):
            raise ValueError("a text that it cannot stand")
        return BatchAnalysis([Analysis("neutral", 0.0, 1.0, "en", self.name) for _ in texts])

    async def aclose(self) -> None:
        raise AssertionError("it is not the pipeline's to close")


class OnlyAnalysis(AIProcessingPipeline):
    """All but the analysis is canned."""

    async def download_content(self, url: str) -> str:
        return f"text of {url}"

    async def extract_text(self, content: str) -> str:
        return content

    async def store_result(self, item: ProcessingItem) -> bool:
        return True


async def test_texts_of_many_items_are_analysed_together_and_one_bad_one_fails_alone(urls: Make) -> None:
    analyzer = Flaky(hated="/17")
    pipeline = OnlyAnalysis(max_concurrent=20, analyzer=analyzer)
    report = await pipeline.process_batch(urls(60))
    assert (report["success"], report["failed"]) == (59, 1)
    assert pipeline.items[17].code == "internal_error"
    assert sum(analyzer.batches) < 110
    assert max(analyzer.batches) > 1


async def test_items_that_wait_for_a_shared_analysis_let_some_others_be_downloaded(
    urls: Make, settings: Settings
) -> None:
    class Slow(Flaky):
        async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
            await asyncio.wait_for(enough.wait(), 10)
            await asyncio.sleep(0.05)  # time for more, if there were places
            seen.append(len(pipeline.downloads))
            return await super().analyze(texts, labels=labels)

    class Canned(AIProcessingPipeline):
        downloads: ClassVar[list[str]] = []

        async def download_content(self, url: str) -> str:
            self.downloads.append(url)
            if len(self.downloads) == 14:  # two that run, and six times two that wait
                enough.set()
            return f"text of {url}"

        async def extract_text(self, content: str) -> str:
            return content

    enough, seen = asyncio.Event(), list[int]()
    pipeline = Canned(2, analyzer=Slow(), settings=settings)
    report = await pipeline.process_batch(urls(30))
    assert report["success"] == 30
    assert seen[0] == 14


async def test_concurrency_towards_an_ai_service_falls_when_it_is_overloaded(urls: Make) -> None:
    class Overloaded(OnlyAnalysis):
        at_once = 0

        async def analyze_sentiment(self, text: str) -> float:
            self.at_once += 1
            try:
                await asyncio.sleep(0.001)
                if self.at_once > 2:
                    raise ServiceUnavailableError("too many at once", retry_after=0.01)
                return 0.0
            finally:
                self.at_once -= 1

    pipeline = Overloaded(max_concurrent=20)
    assert pipeline.get_status_report()["concurrency"] == 20
    report = await pipeline.process_items([ProcessingItem(url, max_retries=50) for url in urls(150)])
    report = pipeline.get_status_report()
    assert report["success"] == 150
    assert report["concurrency"] < 10


async def test_one_failed_call_for_many_items_counts_once(urls: Make) -> None:
    pipeline = OnlyAnalysis(max_concurrent=30, analyzer=Flaky(failures=1))
    report = await pipeline.process_batch(urls(30))
    assert report["success"] == 30
    assert report["breakers"]["analyze"]["failures"] == 1
    assert report["retried_by_code"]["service_unavailable"] >= 1


class Rows(AIProcessingPipeline):
    """Only the store is real."""

    downloads: Counter[str]

    async def download_content(self, url: str) -> str:
        self.__dict__.setdefault("downloads", Counter())[url] += 1
        if "bad" in url:
            raise ValueError("bad")
        return url

    async def extract_text(self, content: str) -> str:
        return content

    async def analyze_sentiment(self, text: str) -> float:
        return 0.25


async def test_results_and_failures_become_rows_of_a_batch(settings: Settings, urls: Make) -> None:
    store = ResultStore(data_dir=settings.data_dir)
    pipeline = Rows(store=store, settings=settings)
    report = await pipeline.process_batch([*urls(5), "https://example.com/bad", "https://example.com/0#again"])
    rows = await BatchStore(store.access).items(report["batch_id"])
    assert [row.status for row in rows] == ["success"] * 5 + ["failed"]
    assert [row.url for row in rows] == [*urls(5), "https://example.com/bad"]
    assert rows[0].result["score"] == 0.25
    assert rows[5].code == "internal_error"
    assert (await BatchStore(store.access).batch(report["batch_id"])).status == "complete"
    await store.aclose()


async def test_while_the_store_is_down_items_wait_and_nothing_is_lost(
    settings: Settings, urls: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bulletproof.pipeline.runner._ASK_AGAIN", 0.05)
    store = BatchStore(ResultStore(data_dir=settings.data_dir).access)
    await store.access.open()
    path = Path(settings.data_dir, "results.db")
    down = True
    save = store.save

    async def refused(batch_id: str, items: Any) -> str:
        if down:
            raise store_error()
        return await save(batch_id, items)

    def store_error() -> Exception:
        from bulletproof import StoreError

        return StoreError("the disk was taken out", retry_after=0.05)

    monkeypatch.setattr(store, "save", refused)
    pipeline = Rows(store=store, settings=settings)
    with caplog.at_level(logging.INFO, "bulletproof.pipeline"):
        batch = asyncio.create_task(pipeline.process_batch([*urls(20), "https://example.com/bad"]))
        await asyncio.sleep(0.4)
        report = pipeline.get_status_report()
        assert (report["success"], batch.done()) == (0, False)
        assert report["waiting"] == {"store": 20} or report["by_stage"]["store"]["items"] == 20
        down = False
        report = await asyncio.wait_for(batch, 30)
    assert (report["success"], report["failed"], report["retries"]) == (20, 1, 0)
    assert set(pipeline.downloads.values()) == {1}
    rows = await store.items(report["batch_id"])
    assert Counter(row.status for row in rows) == {"success": 20, "failed": 1}
    assert path.exists()
    assert sum("is down" in record.getMessage() for record in caplog.records) == 1
    await store.access.aclose()


async def test_a_durable_batch_goes_on_where_it_was(settings: Settings, urls: Make) -> None:
    results = ResultStore(data_dir=settings.data_dir)
    store = BatchStore(results.access)

    class Broken(Rows):
        async def download_content(self, url: str) -> str:
            if sum(self.__dict__.get("downloads", {}).values()) == 10:
                await asyncio.sleep(3600)
            return await super().download_content(url)

    given = [*urls(30), "https://example.com/bad", "HTTPS://example.com/1", "not a url"]
    pipeline = Broken(max_concurrent=1, durable=True, store=store, settings=settings)
    batch = asyncio.create_task(pipeline.process_batch(given))
    await asyncio.sleep(1.0)
    batch.cancel()
    await asyncio.gather(batch, return_exceptions=True)
    (made,) = await store.batches()
    assert (made.total, made.duplicates, made.status) == (32, 1, "running")
    assert (await store.counts(made.id)).by_status["success"] >= 9

    second = Rows(durable=True, store=store, settings=settings)
    report = await second.resume(made.id)
    assert report["stored"] == {"pending": 0, "in_progress": 0, "retrying": 0, "success": 30, "failed": 2}
    assert report["total"] <= 23
    assert (await store.batch(made.id)).status == "complete"
    assert max((pipeline.downloads + second.downloads).values()) <= 2
    assert (await second.resume(made.id))["total"] == 0
    await results.aclose()


async def test_a_batch_that_is_paused_stops_and_can_be_resumed(settings: Settings, urls: Make) -> None:
    results = ResultStore(data_dir=settings.data_dir)
    store = BatchStore(results.access)
    made = await store.create(urls(200))
    pipeline = Rows(max_concurrent=2, store=store, settings=settings)

    async def pause(item: ProcessingItem) -> bool:
        if item.url.endswith("/20"):
            await store.set_status(made.id, "paused")
        return await Rows.store_result(pipeline, item)

    first = Rows(max_concurrent=2, store=store, settings=settings, durable=True)
    first.store_result = pause  # type: ignore[method-assign]
    report = await first.resume(made.id)
    assert 15 < report["success"] < 100
    assert (await store.batch(made.id)).status == "paused"
    report = await Rows(store=store, settings=settings).resume(made.id)
    assert report["stored"]["success"] == 200
    await results.aclose()


async def test_a_batch_that_is_deleted_stops(settings: Settings, urls: Make) -> None:
    results = ResultStore(data_dir=settings.data_dir)
    store = BatchStore(results.access)
    made = await store.create(urls(300))

    class Deleting(Rows):
        async def analyze_sentiment(self, text: str) -> float:
            if text.endswith("/20"):
                await store.delete(made.id)
            return 0.0

    with pytest.raises(NotFoundError):
        await Deleting(max_concurrent=2, store=store, settings=settings).resume(made.id)
    await results.aclose()


async def test_pages_of_an_earlier_batch_are_asked_only_for_what_has_changed(web: Site, settings: Settings) -> None:
    given = [web.url("/validated"), web.url("/text")]
    pipeline = AIProcessingPipeline(allow_hosts=[web.name], settings=settings)
    await pipeline.process_batch(given)
    before = [item.result for item in pipeline.items]
    pipeline = AIProcessingPipeline(allow_hosts=[web.name], settings=settings)
    report = await pipeline.process_batch(given)
    assert [item.result for item in pipeline.items] == [before[0] | {"not_modified": True}, before[1]]
    assert report["by_stage"]["extract"]["attempts"] == 1
    assert web.hits["/validated"] == 2
    assert pipeline.items[0].status is ProcessingStatus.SUCCESS


async def test_good_pages_of_a_host_succeed_though_others_of_it_answer_that_they_failed(
    scripted: Make, urls: Make, time: Any
) -> None:
    bad, good = urls(60), [f"{url}-good" for url in urls(60)]
    broken = ServiceUnavailableError("the site answers with HTTP 500", http_status=500)
    pipeline = scripted({(url, "download"): broken for url in bad}, max_concurrent=30)
    report = await pipeline.process_batch([*bad, *good])
    assert (report["success"], report["by_code"]) == (60, {"service_unavailable": 60})
    assert {item.url for item in pipeline.items if item.status is ProcessingStatus.FAILED} == set(bad)
    assert {pipeline.calls[url, "download"] for url in bad} == {4}
    assert time.seconds - 1000 < 60


async def test_a_host_that_is_down_is_probed_with_one_item_after_the_other(scripted: Make, urls: Make) -> None:
    pipeline = scripted(max_concurrent=5, circuits=CircuitConfig(failure_threshold=5, mode="consecutive", timeout=1))
    await pipeline.process_batch(urls(1))  # it worked before
    pipeline.script = {(url, "download"): ConnectionError("dead") for url in urls(12)}
    await pipeline.process_batch(urls(12))
    probed = Counter(url for url, stage in pipeline.calls if stage == "download")
    tries = [pipeline.calls[url, "download"] for url in urls(12)]
    assert len(probed) == 12
    assert max(tries) - min(tries) < 5
