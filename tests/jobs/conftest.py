"""Jobs are tested on SQLite and on PostgreSQL."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bulletproof.jobs import BatchJobs, KeptCalls
from bulletproof.jobs.executor import Executor, Handler
from bulletproof.jobs.lease import leases_of
from bulletproof.jobs.system import JobTables
from bulletproof.pipeline import AIProcessingPipeline, ProcessingItem
from bulletproof.resilience import RetryPolicy
from bulletproof.settings import Settings
from bulletproof.store import Batch, BatchStore, ResultStore
from bulletproof.store.access import StoreAccess
from bulletproof.store.address import Address, parse_address
from support import batch_process
from support.kept_calls import Service, Wall


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """A fresh database of either kind."""
    url = request.getfixturevalue("new_postgres_url")() if request.param == "postgresql" else None
    return parse_address(url, tmp_path / "data")


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something is true."""

    async def wait(true: Callable[[], Any], seconds: float = 20) -> None:
        limit = time.monotonic() + seconds
        while True:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < limit, "it did not come true"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
async def executor_of(place: Address) -> AsyncIterator[Callable[..., Any]]:
    """Start an executor of the place; it is closed at the end."""
    made: list[tuple[Executor, JobTables]] = []

    async def start(work: Handler, *, ready: bool = True, **more: Any) -> tuple[Executor, JobTables]:
        async def no_sweep() -> None: ...

        tables = JobTables(place)
        settings: dict[str, Any] = {"queues": {"work": (4, 0.2)}, "sweep": no_sweep, "tick": 0.2}
        executor = Executor(tables, leases_of(place), {"work": work}, **(settings | more))
        made.append((executor, tables))
        await executor.start()
        if ready:
            await asyncio.wait_for(executor.ready(), 20)
        return executor, tables

    yield start
    for executor, tables in made:
        await executor.aclose(0)
        tables.close()


class Web:
    """Stages of a pipeline that cost nothing; counts what was fetched."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.seconds = 0.0
        self.broken: dict[str, BaseException] = {}
        self.analyzer_down: BaseException | None = None
        self.store_down: BaseException | None = None
        self.analyses = 0
        self.policies: dict[str, RetryPolicy] | None = None

    def pipeline(self, store: BatchStore, settings: Settings) -> AIProcessingPipeline:
        web = self

        class Canned(AIProcessingPipeline):
            async def download_content(self, url: str) -> str:
                web.hits[url] += 1
                await asyncio.sleep(web.seconds)
                if url in web.broken:
                    raise web.broken[url]
                return f"About {url}"

            async def extract_text(self, content: str) -> str:
                return content

            async def analyze_sentiment(self, text: str) -> float:
                assert text.startswith("About ")
                web.analyses += 1
                if web.analyzer_down is not None:
                    raise web.analyzer_down
                return 0.5

        class Picky(Canned):
            async def store_result(self, item: ProcessingItem) -> bool:
                if web.store_down is not None:
                    raise web.store_down
                return await super().store_result(item)

        kind = Canned if web.store_down is None else Picky
        return kind(8, store=store, settings=settings, retry_policies=web.policies)


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def jobs_of(place: Address, tmp_path: Path, web: Web) -> AsyncIterator[Callable[..., Any]]:
    """Start batch jobs on the place, with stages that cost nothing; closed at the end."""
    made: list[tuple[BatchJobs, ResultStore]] = []

    async def start(*, begin: bool = True, chunk: int = 10, concurrency: int = 8, tick: float = 0.2) -> BatchJobs:
        settings = Settings(data_dir=tmp_path / "data", batch_chunk_items=chunk, batch_concurrency=concurrency)
        results = ResultStore(place.dsn, data_dir=settings.data_dir)
        store = BatchStore(results.access)
        jobs = BatchJobs(settings, store=store, make_pipeline=lambda: web.pipeline(store, settings), tick=tick)
        made.append((jobs, results))
        if begin:
            await jobs.start()
            await asyncio.wait_for(jobs.executor.ready(), 20)
        return jobs

    yield start
    for jobs, results in made:
        await jobs.aclose(0)
        await results.aclose()


@pytest.fixture
def processes(place: Address, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start processes that work on the batches of the place; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(count: int = 1, **options: Any) -> list[subprocess.Popen[str]]:
        command = [sys.executable, batch_process.__file__, str(tmp_path / "data"), str(tmp_path / "log")]
        command += ["--url", place.dsn] if place.dsn is not None else []
        for name, value in options.items():
            command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        new = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        started.extend(new)
        for process in new:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return new

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Make a batch that is nowhere stored."""

    def make(name: str, **options: Any) -> Batch:
        moment = datetime(2030, 1, 1, tzinfo=UTC)
        return Batch(
            id=name, status="queued", owner=None, key=None, options=options, schema_version=1, chunk_size=10, given=100,
            total=100, created_at=moment, updated_at=moment, finished_at=None,
        )  # fmt: skip

    return make


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def service(wall: Wall) -> Service:
    return Service(wall)


@pytest.fixture
async def kept_of(place: Address, wall: Wall) -> AsyncIterator[Callable[..., KeptCalls]]:
    """Make what keeps calls in the place, as another process would."""
    made: list[KeptCalls] = []

    def make(**options: Any) -> KeptCalls:
        given = {"now": wall, "sleep": wall.forward, "rng": lambda: 0.0} | options
        made.append(KeptCalls(StoreAccess(place), **given))
        return made[-1]

    yield make
    for kept in made:
        await kept.aclose()
        await kept.store.access.aclose()


@pytest.fixture
def kept(kept_of: Callable[..., KeptCalls]) -> KeptCalls:
    return kept_of()


@pytest.fixture
async def alone(tmp_path: Path, wall: Wall) -> AsyncIterator[KeptCalls]:
    """For what has nothing to do with the kind of database."""
    kept = KeptCalls(StoreAccess(parse_address(None, tmp_path)), now=wall, sleep=wall.forward, rng=lambda: 0.0)
    yield kept
    await kept.aclose()
    await kept.store.access.aclose()
