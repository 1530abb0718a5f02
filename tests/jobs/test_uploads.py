import asyncio
import time
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors import StoreError
from bulletproof.jobs import BatchJobs, Uploads
from bulletproof.processor import AIDataProcessor
from bulletproof.settings import Settings
from bulletproof.store import BatchStore, SqlUsage
from bulletproof.store.address import Address


class File:
    content_type = "text/csv"

    def __init__(self, data: bytes, filename: str = "reviews.csv") -> None:
        self.filename = filename
        self._stream = BytesIO(data)

    async def read(self, size: int) -> bytes:
        return self._stream.read(size)


CSV = b"text\n" + b"".join(b"I love it number %d\n" % number for number in range(50))


@pytest.fixture
async def uploads_of(place: Address, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start uploads on the place; closed at the end."""
    made: list[tuple[BatchJobs, AIDataProcessor]] = []

    async def start(*, begin: bool = True) -> tuple[Uploads, BatchJobs, AIDataProcessor]:
        settings = Settings(data_dir=tmp_path / "data", database_url=place.dsn, analysis_workers=0)
        processor = AIDataProcessor(settings=settings)
        uploads = Uploads(processor)
        jobs = BatchJobs(settings, store=BatchStore(processor.store.access), uploads=uploads, tick=0.2)
        made.append((jobs, processor))
        if begin:
            await jobs.start()
            await asyncio.wait_for(jobs.executor.ready(), 20)
        return uploads, jobs, processor

    yield start
    for jobs, processor in made:
        await jobs.aclose(0)
        await processor.aclose()


async def state(uploads: Uploads, name: str, owner: str | None = None) -> str | None:
    found = await uploads.state(name, owner=owner)
    return found["status"] if found is not None else None


async def test_a_file_is_processed_later_and_found_under_its_id(uploads_of: Any, until: Any) -> None:
    uploads, _, processor = await uploads_of()
    await uploads.accept("abc", File(CSV), owner="ada", options={"text_field": "text"})
    assert await state(uploads, "abc", "ada") in ("accepted", "running", "complete")
    assert await state(uploads, "abc", "bob") is None

    async def complete() -> bool:
        return await state(uploads, "abc", "ada") == "complete"

    await until(complete)
    run = await processor.store.get_run("abc")
    assert run.owner == "ada"
    assert run.filename == "reviews.csv"
    assert len(await processor.store.get_results("abc")) == 50
    assert await uploads.part("abc", 0) == b""  # it is not kept any longer than needed


async def test_a_bad_file_fails_with_the_answer_that_it_would_have_got_at_once(uploads_of: Any, until: Any) -> None:
    uploads, _, _ = await uploads_of()
    await uploads.accept("bad", File(b'{"broken', "x.json"), owner=None, options={})

    async def failed() -> bool:
        return await state(uploads, "bad") == "failed"

    await until(failed)
    found = await uploads.state("bad", owner=None)
    assert found["answer"]["code"] == "invalid_json"
    assert found["answer"]["processing_id"] == "bad"


async def test_an_upload_whose_process_died_is_done_by_the_next(uploads_of: Any, until: Any) -> None:
    uploads, jobs, processor = await uploads_of(begin=False)
    await uploads.accept("abc", File(CSV * 3), owner=None, options={})
    # It had begun, and left half a run behind.
    await uploads._set("abc", status="running", tries=1)
    await processor.store.begin_run("abc", filename="reviews.csv", format="csv")
    await jobs.start()

    async def complete() -> bool:
        return await state(uploads, "abc") == "complete"

    await until(complete)
    assert len(await processor.store.get_results("abc")) > 50


async def test_an_upload_without_a_job_is_found(uploads_of: Any, until: Any, monkeypatch: Any) -> None:
    uploads, jobs, _ = await uploads_of(begin=False)
    monkeypatch.setattr("bulletproof.jobs.uploads._UNQUEUED", 0.0)

    async def down(_: Any) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.tables, "enqueue", down)
        await uploads.accept("abc", File(CSV), owner=None, options={})
    await jobs.start()

    async def complete() -> bool:
        return await state(uploads, "abc") == "complete"

    await until(complete)


async def test_what_passes_is_tried_again_and_what_kills_its_process_is_given_up(
    uploads_of: Any, monkeypatch: Any
) -> None:
    uploads, _, processor = await uploads_of(begin=False)
    await uploads.accept("abc", File(CSV), owner=None, options={})
    passing = {"status": "error", "retryable": True, "details": "the LLM is down", "code": "service_unavailable"}

    async def down(*_: Any) -> dict[str, Any]:
        return passing

    monkeypatch.setattr(processor, "process_file", down)
    for _ in range(4):
        with pytest.raises(StoreError, match="the LLM is down"):
            await uploads.run("abc")
    await uploads.run("abc")
    assert (await uploads.state("abc", owner=None)) == {"status": "failed", "answer": passing}
    await uploads.accept("deadly", File(CSV), owner=None, options={})
    await uploads._set("deadly", tries=20)
    await uploads.run("deadly")
    assert (await uploads.state("deadly", owner=None))["answer"]["code"] == "internal_error"


async def test_what_is_withdrawn_is_not_processed_and_leaves_nothing(uploads_of: Any, monkeypatch: Any) -> None:
    uploads, _, processor = await uploads_of(begin=False)
    await uploads.accept("abc", File(CSV), owner="ada", options={})
    assert not await uploads.withdraw("abc", owner="bob")
    assert await uploads.withdraw("abc", owner="ada")
    assert not await uploads.withdraw("abc", owner="ada")
    assert await state(uploads, "abc", "ada") is None
    assert await uploads.part("abc", 0) == b""
    await uploads.run("abc")
    assert await processor.store.get_run("abc") is None
    # In the middle of it, or when it is done but nobody has heard of it.
    process = processor.process_file
    for when in ("before", "after"):
        await uploads.accept(when, File(CSV), owner="ada", options={})

        async def withdrawn(file: Any, options: Any, when: str = when) -> dict[str, Any]:
            if when == "before":
                assert await uploads.withdraw(when, owner="ada")
            answer: dict[str, Any] = await process(file, options)
            if when == "after":
                assert await uploads.withdraw(when, owner="ada")
            return answer

        monkeypatch.setattr(processor, "process_file", withdrawn)
        await uploads.run(when)
        assert await processor.store.get_run(when) is None
        assert await state(uploads, when, "ada") is None


async def test_an_upload_counts_once_on_the_quota_of_whoever_sent_it(uploads_of: Any, monkeypatch: Any) -> None:
    uploads, _, processor = await uploads_of(begin=False)
    await uploads.accept("abc", File(CSV), owner="ada", options={}, subject="key:ada")
    with monkeypatch.context() as patched:
        original = uploads._set

        async def dies(processing_id: str, **values: Any) -> bool:
            if values["status"] == "complete":
                raise StoreError("the process dies here")
            return bool(await original(processing_id, **values))

        patched.setattr(uploads, "_set", dies)
        with pytest.raises(StoreError, match="dies here"):
            await uploads.run("abc")
    await uploads.run("abc")
    assert await state(uploads, "abc", "ada") == "complete"
    used = await SqlUsage(processor.store.access, "other").exchange([], ["key:ada"], now=time.time())
    assert [(row.subject, row.what, row.amount) for row in used] == [("key:ada", "records", 50)]
