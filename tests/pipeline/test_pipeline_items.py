"""What becomes of items: outcomes, retries, and what the stages hand to each other."""

import asyncio
import logging
import time as real_time
from collections.abc import Callable
from typing import Any

import pytest

from bulletproof import (
    AIErrorMonitor,
    AIProcessingPipeline,
    InputValidationError,
    NotFoundError,
    ProcessingItem,
    ProcessingStatus,
    RateLimitedError,
    RetryPolicy,
)

URL = "https://example.com/0"
Make = Callable[..., Any]


async def one(pipeline: AIProcessingPipeline, url: str = URL, **options: Any) -> ProcessingItem:
    return await pipeline.process_single_item(ProcessingItem(url, **options))


async def test_an_item_that_goes_through_has_a_result_and_each_change_of_status_has_its_moment(scripted: Make) -> None:
    item = await one(scripted())
    assert item.status is ProcessingStatus.SUCCESS
    assert item.result == {
        "url": URL, "final_url": URL, "title": None, "language": "und", "text_chars": len(URL),
        "sentiment": "positive", "score": 0.5,
    }  # fmt: skip
    assert [status.value for status, _ in item.history] == ["pending", "in_progress", "success"]
    assert all(at.tzinfo is not None for _, at in item.history)
    assert (item.error, item.code, item.stage, item.carry) == (None, None, "done", None)


@pytest.mark.parametrize("stage", ["download", "extract", "analyze", "store"])
async def test_only_the_stage_that_failed_is_run_again(scripted: Make, stage: str) -> None:
    pipeline = scripted({(URL, stage): [ConnectionError("a"), TimeoutError("b")]})
    item = await one(pipeline)
    assert item.status is ProcessingStatus.SUCCESS
    assert item.retry_count == 2
    assert {name: count for (_, name), count in pipeline.calls.items()} == item.attempts
    assert item.attempts == {name: 3 if name == stage else 1 for name in ("download", "extract", "analyze", "store")}
    assert [status.value for status, _ in item.history] == [
        "pending",
        *["in_progress", "retrying"] * 2,
        "in_progress",
        "success",
    ]


async def test_what_may_pass_is_tried_four_times_in_all(scripted: Make, time: Any) -> None:
    pipeline = scripted({(URL, "download"): ConnectionError("unplugged")})
    item = await one(pipeline)
    assert (item.status, item.retry_count, item.attempts["download"]) == (ProcessingStatus.FAILED, 3, 4)
    assert (item.code, item.error_type) == ("service_unavailable", "external_service_error")
    assert item.error == "unplugged"
    assert item.hint
    assert item.result is None
    assert len(time.waits) == 3
    assert all(wait <= 0.5 * 2**step for step, wait in enumerate(time.waits))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("no such page"), "not_found"),
        (InputValidationError("private", code="blocked_url"), "blocked_url"),
        (InputValidationError("klingon", code="unsupported_language"), "unsupported_language"),
        (ValueError("a bug"), "internal_error"),
    ],
)
async def test_what_will_not_pass_fails_at_once(scripted: Make, error: Exception, code: str) -> None:
    item = await one(scripted({(URL, "extract"): error}))
    assert (item.status, item.code, item.retry_count, item.stage) == (ProcessingStatus.FAILED, code, 0, "extract")


async def test_the_item_says_how_many_retries_it_may_have(scripted: Make) -> None:
    script = {(URL, "download"): ConnectionError("x")}
    assert (await one(scripted(script), max_retries=0)).attempts == {"download": 1}
    assert (await one(scripted(script), max_retries=6)).retry_count == 6


async def test_retries_are_counted_over_all_stages(scripted: Make) -> None:
    pipeline = scripted({(URL, stage): [ConnectionError("x"), ConnectionError("y")] for stage in ("download", "store")})
    item = await one(pipeline)
    assert (item.status, item.stage, item.retry_count) == (ProcessingStatus.FAILED, "store", 3)


async def test_retry_after_is_waited_for_exactly(scripted: Make, time: Any) -> None:
    item = await one(scripted({(URL, "download"): [RateLimitedError("slow down", retry_after=17)]}))
    assert item.status is ProcessingStatus.SUCCESS
    assert time.waits == [17]


async def test_a_retry_after_beyond_all_patience_fails_the_item(scripted: Make, time: Any) -> None:
    item = await one(scripted({(URL, "download"): [RateLimitedError("tomorrow", retry_after=86_400)]}))
    assert (item.status, item.retry_count, time.waits) == (ProcessingStatus.FAILED, 0, [])


async def test_a_rate_limit_holds_up_the_whole_host_and_no_other(scripted: Make, urls: Make, time: Any) -> None:
    first, *others = urls(6)
    pipeline = scripted({(first, "download"): [RateLimitedError("slow down", retry_after=10)]}, max_concurrent=1)
    elsewhere = "https://elsewhere.example/"
    await pipeline.process_batch([first, *others, elsewhere])
    ended = {item.url: item.history[-1][1] for item in pipeline.items}
    assert all(ended[elsewhere] < ended[url] for url in (first, *others))
    assert time.waits[0] == 10


async def test_policies_are_set_by_stage(scripted: Make, time: Any) -> None:
    policies = {
        "download": RetryPolicy(max_attempts=2, base_delay=7, jitter="none"),
        "analyze": RetryPolicy(max_attempts=6, base_delay=1, factor=1, jitter="none", retry_on=ValueError),
    }
    pipeline = scripted({(URL, "download"): ConnectionError("x")}, retry_policies=policies)
    report = await pipeline.process_batch([URL])
    assert (report["by_stage"]["download"]["attempts"], time.waits) == (2, [7])
    pipeline = scripted({(URL, "analyze"): [ValueError("x")] * 5}, retry_policies=policies)
    report = await pipeline.process_batch([URL])
    assert (report["success"], report["retries"], time.waits[1:]) == (1, 5, [1] * 5)


def test_policies_that_a_pipeline_cannot_honour_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no stage 'upload'"):
        AIProcessingPipeline(retry_policies={"upload": RetryPolicy()})
    with pytest.raises(ValueError, match="on_retry has no meaning"):
        AIProcessingPipeline(retry_policies={"store": RetryPolicy(on_retry=print)})


async def test_the_deadline_of_a_policy_covers_all_tries_of_the_stage(scripted: Make) -> None:
    policy = RetryPolicy(base_delay=4, jitter="none", factor=1, max_attempts=10, deadline=10)
    item = await one(
        scripted({(URL, "download"): ConnectionError("x")}, retry_policies={"download": policy}), max_retries=9
    )
    assert item.attempts["download"] == 3


async def test_a_try_that_takes_too_long_is_broken_off() -> None:
    class Slow(AIProcessingPipeline):
        async def download_content(self, url: str) -> str:
            await asyncio.sleep(30)
            return url

    policy = RetryPolicy(max_attempts=1, attempt_timeout=0.01)
    item = await one(Slow(retry_policies={"download": policy}))
    assert (item.status, item.code) == (ProcessingStatus.FAILED, "service_timeout")


async def test_plain_functions_may_override_stages_and_block_nobody() -> None:
    class Plain(AIProcessingPipeline):
        def download_content(self, url: str) -> str:
            real_time.sleep(0.1)
            return url

        def extract_text(self, content: str) -> str:
            return content

        def analyze_sentiment(self, text: str) -> float:
            return -1

        def store_result(self, item: ProcessingItem) -> bool:
            assert item.result is not None
            return True

    started = real_time.monotonic()
    report = await Plain(max_concurrent=10).process_batch([f"https://example.com/{n}" for n in range(10)])
    assert report["success"] == 10
    assert real_time.monotonic() - started < 0.8


@pytest.mark.parametrize(
    ("stage", "value", "code"),
    [
        ("download_content", None, "internal_error"),
        ("extract_text", b"bytes", "internal_error"),
        ("extract_text", "  ", "empty_text"),
        ("analyze_sentiment", 1.5, "invalid_model_output"),
        ("analyze_sentiment", float("nan"), "invalid_model_output"),
        ("analyze_sentiment", "good", "invalid_model_output"),
        ("store_result", False, "database_unavailable"),
    ],
)
async def test_a_stage_that_returns_rubbish_fails_its_item(
    scripted: Make, monkeypatch: pytest.MonkeyPatch, stage: str, value: Any, code: str
) -> None:
    async def answer(_: Any) -> Any:
        return value

    pipeline = scripted()
    monkeypatch.setattr(pipeline, stage, answer)
    item = await one(pipeline)
    assert (item.status, item.code) == (ProcessingStatus.FAILED, code)


async def test_a_text_in_a_language_that_is_not_wanted_fails() -> None:
    class Said(AIProcessingPipeline):
        async def download_content(self, url: str) -> str:
            return {
                "https://e.org/en": "The library is open today.",
                "https://e.org/de": "Heute ist die Bücherei offen.",
            }[url]

        async def store_result(self, item: ProcessingItem) -> bool:
            return True

    report = await (pipeline := Said(languages={"en"})).process_batch(["https://e.org/en", "https://e.org/de"])
    assert report["by_code"] == {"unsupported_language": 1}
    assert [item.result and item.result["language"] for item in pipeline.items] == ["en", None]


async def test_every_failure_is_logged_and_the_monitor_is_told_of_it_under_its_stage(
    scripted: Make, monitor: AIErrorMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = scripted({(URL, "analyze"): [TimeoutError("slow")], (URL, "store"): NotFoundError("gone")})
    with caplog.at_level(logging.INFO, "bulletproof.pipeline"):
        await one(pipeline)
    assert monitor.get_error_summary()["by_service"] == {"analyze": 1, "store": 1}
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" failed")[0] for line in lines] == [f"analyze of {URL}", f"store of {URL}"]
    assert [record.code for record in caplog.records] == ["service_timeout", "not_found"]


async def test_single_items_processed_together_share_the_limit_on_concurrency(scripted: Make, urls: Make) -> None:
    pipeline = scripted(max_concurrent=3)
    items = [ProcessingItem(url) for url in urls(20)]
    await asyncio.gather(*(pipeline.process_single_item(item) for item in items))
    assert all(item.status is ProcessingStatus.SUCCESS for item in items)
    assert pipeline.peak == 3


async def test_priority_decides_who_goes_first(scripted: Make, urls: Make) -> None:
    pipeline = scripted(max_concurrent=1)
    items = [ProcessingItem(url, priority=number) for number, url in enumerate(urls(10))]
    order: list[str] = []

    async def done(item: ProcessingItem) -> None:
        order.append(item.url)

    await pipeline.process_items(items, on_done=done)
    assert order[1:] == [item.url for item in reversed(items[1:])]


async def test_items_that_are_done_are_passed_on_as_they_are(scripted: Make) -> None:
    seen: list[ProcessingItem] = []

    async def done(item: ProcessingItem) -> None:
        seen.append(item)

    item = ProcessingItem(URL, status=ProcessingStatus.SUCCESS, stage="done")
    pipeline = scripted()
    await pipeline.process_items([item], on_done=done)
    assert seen == [item]
    assert not pipeline.calls


async def test_a_stage_that_raises_a_cancellation_of_its_own_fails_its_item_alone(scripted: Make, urls: Make) -> None:
    pipeline = scripted({(urls(3)[1], "extract"): [asyncio.CancelledError()]})
    report = await asyncio.wait_for(pipeline.process_batch(urls(3)), 10)
    assert (report["success"], report["by_code"]) == (2, {"cancelled": 1})


def test_items_can_be_set() -> None:
    pipeline = AIProcessingPipeline()
    pipeline.items = [ProcessingItem(URL), ProcessingItem(URL, status=ProcessingStatus.SUCCESS)]
    report = pipeline.get_status_report()
    assert (report["total"], report["pending"], report["success"]) == (2, 1, 1)
