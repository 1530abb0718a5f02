"""``AIDataProcessor``: the stages, what overriding them does, and what happens when something breaks."""

import asyncio
import io
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers, UploadFile

from bulletproof.analysis import Analysis, BatchAnalysis
from bulletproof.errors import ServiceUnavailableError, StoreError
from bulletproof.monitor import AIErrorMonitor
from bulletproof.processor import AIDataProcessor, ProcessOptions
from bulletproof.settings import Settings


class CountingAnalyzer:
    """Calls every text positive and keeps count."""

    name = "counting/1"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failure: Exception | None = None

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(texts))
        return BatchAnalysis([Analysis("positive", 0.5, 0.9, "en", self.name) for _ in texts])

    async def aclose(self) -> None:
        return None


@pytest.fixture
def monitor() -> AIErrorMonitor:
    return AIErrorMonitor()


@pytest.fixture
def analyzer() -> CountingAnalyzer:
    return CountingAnalyzer()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
async def processor(
    settings: Settings, analyzer: CountingAnalyzer, monitor: AIErrorMonitor
) -> AsyncIterator[AIDataProcessor]:
    async with AIDataProcessor(settings=settings, analyzer=analyzer, monitor=monitor) as processor:
        yield processor


def upload(content: bytes, name: str = "t.json") -> UploadFile:
    return UploadFile(io.BytesIO(content), filename=name, headers=Headers({"content-type": "application/json"}))


async def test_it_works_with_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    processor = AIDataProcessor()
    answer = await processor.process_file(upload(b'["I love it"]'))
    await processor.aclose()
    assert answer["status"] == "success"
    assert answer["results"][0]["sentiment"] == "positive"
    assert answer["stored"] is True


@pytest.mark.parametrize("kind", ["upload", "path", "string", "bytes", "reader"])
async def test_it_takes_uploads_paths_bytes_and_whatever_can_be_read(
    processor: AIDataProcessor, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b'["one", "two"]')

    class Reader:
        filename = "t.json"
        _stream = io.BytesIO(path.read_bytes())

        async def read(self, size: int = -1) -> bytes:
            return self._stream.read(size)

    given: Any = {
        "upload": upload(path.read_bytes()), "path": path, "string": str(path), "bytes": path.read_bytes(),
        "reader": Reader(),
    }[kind]  # fmt: skip
    answer = await processor.process_file(given)
    assert answer["records"] == {"received": 2, "analyzed": 2, "rejected": 0}


@pytest.mark.parametrize("given", [None, 7, object(), "no-such-file.json", "."])
async def test_what_cannot_be_read_is_an_answer_not_an_exception(processor: AIDataProcessor, given: Any) -> None:
    answer = await processor.process_file(given)
    assert answer["status"] == "error"
    assert answer["error_type"] == "validation_error"


async def test_every_run_has_an_id_of_its_own(processor: AIDataProcessor) -> None:
    answers = [await processor.process_file(b'["x"]') for _ in range(3)]
    assert len({answer["processing_id"] for answer in answers}) == 3
    assert processor._generate_processing_id() != processor._generate_processing_id()


async def test_equal_texts_are_analysed_once(processor: AIDataProcessor, analyzer: CountingAnalyzer) -> None:
    answer = await processor.process_file(b'["a", "b", "a", "a"]')
    assert sum(analyzer.batches) == 2
    assert [item["text"] for item in answer["results"]] == ["a", "b", "a", "a"]
    assert answer["summary"]["duplicates"] == 2


async def test_equal_texts_far_apart_and_at_the_same_time_are_analysed_once(
    processor: AIDataProcessor, analyzer: CountingAnalyzer
) -> None:
    texts = [f"number {number % 700}" for number in range(5000)]
    answer = await processor.process_file(json.dumps(texts).encode())
    assert sum(analyzer.batches) == 700
    assert [item["text"] for item in answer["results"]][:1400] == texts[: len(answer["results"])][:1400]
    assert answer["summary"]["duplicates"] == 4300


async def test_the_first_failure_of_several_under_way_is_the_answer(
    processor: AIDataProcessor, analyzer: CountingAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def failing(texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        nonlocal calls
        calls += 1
        number = calls
        await asyncio.sleep(0.01 / number)
        raise ServiceUnavailableError(f"failure {number}")

    monkeypatch.setattr(analyzer, "analyze", failing)
    answer = await processor.process_file(json.dumps([f"number {number}" for number in range(5000)]).encode())
    assert answer["details"] == "failure 1"
    assert len(asyncio.all_tasks()) == 1


async def test_progress_is_told_after_each_batch(processor: AIDataProcessor) -> None:
    seen: list[tuple[int, int]] = []
    content = b"\n".join(b'{"text": "number %d"}' % number for number in range(2000))
    options = ProcessOptions(on_progress=lambda records, position: seen.append((records, position)))
    await processor.process_file(upload(content, "t.jsonl"), options)
    assert seen[-1] == (2000, len(content))
    assert len(seen) > 2
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "stage", ["_validate_and_parse_file", "_clean_data", "_run_ai_analysis", "_format_success_response"]
)
async def test_a_stage_that_raises_gives_a_typed_answer_and_stores_nothing(
    settings: Settings, analyzer: CountingAnalyzer, monitor: AIErrorMonitor, stage: str
) -> None:
    async def broken(self: AIDataProcessor, *_: Any) -> Any:
        raise ZeroDivisionError("a bug in my stage")

    def broken_now(self: AIDataProcessor, *_: Any) -> Any:
        raise ZeroDivisionError("a bug in my stage")

    own = type("Own", (AIDataProcessor,), {stage: broken_now if stage.startswith("_format") else broken})
    async with own(settings=settings, analyzer=analyzer, monitor=monitor) as processor:
        answer = await processor.process_file(b'["x"]')
        assert (answer["status"], answer["error_type"], answer["code"]) == ("error", "resource_error", "internal_error")
        assert monitor.get_error_summary()["total_errors"] == 1


async def test_an_analysis_of_ones_own_may_return_plain_values(settings: Settings) -> None:
    class Own(AIDataProcessor):
        async def _run_ai_analysis(self, data: Any) -> dict[str, Any]:
            texts = [record.text async for chunk in data.chunks() for record in chunk.records]
            return {
                "results": [{"text": text, "sentiment": "neutral", "score": 0, "confidence": 1} for text in texts],
                "topic": "weather",
            }

    async with Own(settings=settings) as processor:
        answer = await processor.process_file(b'["sun", "rain"]')
        assert answer["status"] == "success", answer
        assert [item["text"] for item in answer["results"]] == ["sun", "rain"]
        assert answer["topic"] == "weather"
        assert answer["stored"] is True
        assert len(await processor.store.get_results(answer["processing_id"])) == 2


async def test_a_parser_of_ones_own_may_return_texts(settings: Settings, analyzer: CountingAnalyzer) -> None:
    class Own(AIDataProcessor):
        async def _validate_and_parse_file(self, file: Any) -> list[str]:
            return ["one", "two"]

    async with Own(settings=settings, analyzer=analyzer) as processor:
        answer = await processor.process_file(b"anything")
        assert [item["text"] for item in answer["results"]] == ["one", "two"]


@pytest.mark.parametrize(
    "error", [StoreError("down"), ConnectionError("reset"), OSError(28, "No space left on device")]
)
async def test_results_that_cannot_be_stored_are_answered_all_the_same(
    settings: Settings, analyzer: CountingAnalyzer, monitor: AIErrorMonitor, error: Exception
) -> None:
    class Own(AIDataProcessor):
        async def _store_results(self, processing_id: str, results: Any) -> None:
            raise error

    settings.inline_results = 1
    async with Own(settings=settings, analyzer=analyzer, monitor=monitor) as processor:
        answer = await processor.process_file(b'["x", "y", "z"]')
    assert answer["status"] == "success"
    assert answer["stored"] is False
    assert len(answer["results"]) == 3
    assert answer["store_error"]["hint"]
    assert monitor.get_error_summary()["total_errors"] == 1


async def test_a_store_that_breaks_half_way_loses_no_result(
    processor: AIDataProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    add_chunk = processor.store.add_chunk

    async def flaky(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StoreError("the database went away")
        await add_chunk(*args)

    monkeypatch.setattr(processor.store, "add_chunk", flaky)
    content = b"\n".join(b'{"text": "number %d"}' % number for number in range(3000))
    answer = await processor.process_file(upload(content, "t.jsonl"))
    assert answer["stored"] is False
    assert [item["row"] for item in answer["results"]] == list(range(1, 3001))
    assert await processor.store.get_run(answer["processing_id"]) is None


async def test_a_file_that_breaks_further_down_leaves_nothing_behind(processor: AIDataProcessor) -> None:
    content = b"[" + b",".join(b'"text %d"' % number for number in range(5000)) + b", oops]"
    answer = await processor.process_file(upload(content))
    assert (answer["status"], answer["code"]) == ("error", "invalid_json")
    assert await processor.store.recent_runs() == []


async def test_an_analyzer_that_fails_is_the_answer(
    processor: AIDataProcessor, analyzer: CountingAnalyzer, monitor: AIErrorMonitor
) -> None:
    analyzer.failure = ServiceUnavailableError("the LLM does not answer")
    answer = await processor.process_file(b'["x"]')
    assert (answer["error_type"], answer["code"]) == ("external_service_error", "service_unavailable")
    assert answer["retryable"] is True
    assert monitor.get_error_summary()["by_type"] == {"external_service_error": 1}


async def test_a_cancellation_goes_through_and_leaves_nothing_behind(
    processor: AIDataProcessor, analyzer: CountingAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def hang(*_: Any, **__: Any) -> BatchAnalysis:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(analyzer, "analyze", hang)
    task = asyncio.create_task(processor.process_file(b'["x"]'))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await processor.store.recent_runs() == []


async def test_a_file_that_takes_too_long_is_told_so(
    processor: AIDataProcessor, analyzer: CountingAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> BatchAnalysis:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(analyzer, "analyze", hang)
    await processor.store.open()
    answer = await processor.process_file(b'["x"]', ProcessOptions(timeout=0.05))
    assert answer["code"] == "deadline_exceeded"
    assert "0.05 s" in answer["details"]
    with closing(sqlite3.connect(processor.settings.data_dir / "results.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


async def test_no_text_reaches_the_log(processor: AIDataProcessor, caplog: pytest.LogCaptureFixture) -> None:
    await processor.process_file(upload(b'["a very secret text", oops]'))
    await processor.process_file(upload(b"id,review\n1,secret\n2\n3,4,5\n", "t.csv"), ProcessOptions(text_field="x"))
    assert caplog.records
    assert "secret" not in caplog.text


async def test_a_stage_that_stops_half_way_costs_no_result(settings: Settings, analyzer: CountingAnalyzer) -> None:
    class Own(AIDataProcessor):
        async def _store_results(self, processing_id: str, results: Any) -> None:
            async for _ in results.batches():
                raise OSError(28, "No space left on device")

    content = b"\n".join(b'{"text": "number %d"}' % number for number in range(3000))
    async with Own(settings=settings, analyzer=analyzer) as processor:
        answer = await processor.process_file(upload(content, "t.jsonl"))
    assert answer["stored"] is False
    assert answer["store_error"]["code"] == "disk_full"
    assert [item["row"] for item in answer["results"]] == list(range(1, 3001))


async def test_a_progress_hook_that_fails_costs_nothing(processor: AIDataProcessor) -> None:
    def broken(records: int, position: int) -> None:
        raise ValueError("my progress bar is broken")

    answer = await processor.process_file(b'["one", "two"]', ProcessOptions(on_progress=broken))
    assert (answer["stored"], answer["records"]["analyzed"]) == (True, 2)


async def test_a_pipe_is_read_like_a_file(processor: AIDataProcessor, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    writer = asyncio.create_task(asyncio.to_thread(pipe.write_bytes, b'["one", "two"]'))
    answer = await processor.process_file(pipe)
    await writer
    assert answer["records"]["analyzed"] == 2


async def test_a_file_opened_as_text_is_refused_with_the_way_out(processor: AIDataProcessor) -> None:
    answer = await processor.process_file(io.StringIO('["one"]'))
    assert answer["code"] == "invalid_input"
    assert "binary" in answer["hint"]


@pytest.mark.parametrize("stage", ["_generate_processing_id", "_format_error_response"])
async def test_even_a_broken_stage_at_the_edge_gets_an_answer(settings: Settings, stage: str) -> None:
    def broken(self: AIDataProcessor, *_: Any) -> Any:
        raise RuntimeError("a bug in my stage")

    own = type("Own", (AIDataProcessor,), {stage: broken})
    async with own(settings=settings) as processor:
        answer = await processor.process_file(b"")
    assert answer["status"] == "error"
    assert answer["code"] in ("internal_error", "empty_file")


@pytest.mark.parametrize(
    "result", [{"text": "x", "score": "abc"}, {"text": "x", "sentiment": "meh"}, "no mapping", {"row": None}]
)
async def test_a_wrong_result_of_an_own_analysis_is_a_bug_not_the_uploaders_fault(
    settings: Settings, result: Any
) -> None:
    class Own(AIDataProcessor):
        async def _run_ai_analysis(self, data: Any) -> dict[str, Any]:
            return {"results": [result]}

    async with Own(settings=settings) as processor:
        answer = await processor.process_file(b'["x"]')
    assert (answer["code"], answer["error_type"]) == ("internal_error", "resource_error")


async def test_objects_without_a_text_are_refused_rather_than_analysed_as_they_print(settings: Settings) -> None:
    class Own(AIDataProcessor):
        async def _clean_data(self, data: Any) -> list[Any]:
            return [object()]

    async with Own(settings=settings) as processor:
        answer = await processor.process_file(b'["x"]')
    assert answer["code"] == "internal_error"
