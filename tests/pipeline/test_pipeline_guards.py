"""What no stage, source, address or argument may do to a batch: hang it, or end it for the others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from bulletproof import AIProcessingPipeline, ProcessingItem, ProcessingStatus, RetryPolicy

Make = Callable[..., Any]


class Plain(AIProcessingPipeline):
    """Its stages are plain functions, and one page makes one of them raise."""

    error: BaseException = StopIteration()
    score: Any = 0.5

    def download_content(self, url: str) -> str:  # type: ignore[override]
        if url.endswith("/1"):
            raise self.error
        return url

    def extract_text(self, content: str) -> str:  # type: ignore[override]
        return content

    def analyze_sentiment(self, text: str) -> float:  # type: ignore[override]
        return self.score  # type: ignore[no-any-return]

    def store_result(self, item: ProcessingItem) -> bool:  # type: ignore[override]
        return True


class Coroutine(Plain):
    async def download_content(self, url: str) -> str:  # type: ignore[override]
        return Plain.download_content(self, url)


class OwnKind(BaseException):
    """What some libraries raise to get past ``except Exception``."""


@pytest.mark.parametrize("kind", [Plain, Coroutine])
@pytest.mark.parametrize(
    "error", [StopIteration(3), StopAsyncIteration(), GeneratorExit(), OwnKind("no"), asyncio.CancelledError()]
)
async def test_whatever_a_stage_raises_fails_its_item_alone(
    urls: Make, kind: type[Plain], error: BaseException
) -> None:
    pipeline = kind()
    pipeline.error = error
    report = await asyncio.wait_for(pipeline.process_batch(urls(4)), 10)
    assert (report["success"], report["failed"]) == (3, 1)
    assert pipeline.items[1].status is ProcessingStatus.FAILED
    assert pipeline.items[1].error


async def test_a_stage_that_raises_stop_iteration_is_named(urls: Make) -> None:
    pipeline = Plain()
    await asyncio.wait_for(pipeline.process_batch(urls(2)), 10)
    assert pipeline.items[1].code == "internal_error"
    assert "download_content raised StopIteration" in str(pipeline.items[1].error)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), OwnKind()])
async def test_a_source_that_breaks_off_in_an_odd_way_is_an_error_of_the_batch(
    urls: Make, error: BaseException
) -> None:
    async def source() -> AsyncIterator[str]:
        yield urls(1)[0]
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__) as raised:
        await asyncio.wait_for(Plain().process_batch(source()), 10)
    assert raised.value.__cause__ is error


async def test_whoever_awaits_a_batch_can_still_cancel_it() -> None:
    class Slow(Coroutine):
        async def download_content(self, url: str) -> str:  # type: ignore[override]
            await asyncio.sleep(3600)
            return url

    pipeline = Slow()
    batch = asyncio.create_task(pipeline.process_batch(["https://a.example/"]))
    await asyncio.sleep(0.01)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert pipeline.items[0].status is ProcessingStatus.PENDING


@pytest.mark.parametrize("garbage", ["http://[::1", "s3://[::1", "x://[abc]/", "//[", "http://a b[/"])
async def test_an_address_that_cannot_be_split_fails_alone(garbage: str) -> None:
    pipeline = Plain()
    report = await pipeline.process_batch(["http://a.com/2", garbage, "s3://bucket/key"])
    assert (report["success"], report["by_code"]) == (2, {"invalid_input": 1})


@pytest.mark.parametrize("url", [None, 5, b"x", ["a"], {"a": 1}, object()])
async def test_an_item_whose_address_is_no_text_fails_as_invalid_input(url: Any, tmp_path: Any) -> None:
    from bulletproof.settings import Settings

    for pipeline in (Plain(), AIProcessingPipeline(settings=Settings(data_dir=tmp_path))):
        item = await pipeline.process_single_item(ProcessingItem(url))
        assert (item.status, item.code) == (ProcessingStatus.FAILED, "invalid_input")
        assert type(url).__name__ in str(item.error)
        report = await pipeline.process_batch([ProcessingItem(url)])
        assert report["by_code"] == {"invalid_input": 1}
        for status in (ProcessingStatus.FAILED, ProcessingStatus.SUCCESS):  # it was done before it came
            assert (await pipeline.process_single_item(ProcessingItem(url, status=status))).status is status


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_concurrent": True}, ValueError),
        ({"max_concurrent": 0}, ValueError),
        ({"max_pending": 2.0}, ValueError),
        ({"host_concurrency": 0}, ValueError),
        ({"host_delay": -1}, ValueError),
        ({"host_delay": None}, ValueError),
        ({"patience": -0.1}, ValueError),
        ({"patience": float("nan")}, ValueError),
        ({"retry_policies": {"download": 3}}, TypeError),
        ({"retry_policies": {"upload": RetryPolicy()}}, ValueError),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        AIProcessingPipeline(**options)


@pytest.mark.parametrize("score", [np.float32(0.25), np.float64(0.25), np.int64(0), 1])
async def test_a_score_may_be_any_kind_of_real_number(urls: Make, score: Any) -> None:
    pipeline = Plain()
    pipeline.score = score
    await pipeline.process_batch(urls(1))
    assert pipeline.items[0].result is not None
    assert pipeline.items[0].result["score"] == float(score)
    assert type(pipeline.items[0].result["score"]) is float
