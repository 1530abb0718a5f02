"""How fast durable batches go through: in this process, on SQLite, on PostgreSQL with one and with three workers.

The plain row is ``AIProcessingPipeline.process_batch`` with the same store and no durable jobs. All get the same number
of pages from a local site, in interleaved rounds, with warm workers; the time is from the submission to the last item.
A worker is a process (``bulletproof worker``) and has as many cores as there are left: on two cores three cannot be
three times as fast as one.

    python -m benchmarks durable
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from benchmarks.pipeline import site
from bulletproof import AIProcessingPipeline
from bulletproof.jobs import BatchJobs
from bulletproof.settings import Settings
from bulletproof.store import BatchStore, ResultStore

PAGES, ROUNDS, CONCURRENT = 2000, 3, 50
Way = Callable[[list[str]], Awaitable[None]]


async def plain(stack: AsyncExitStack, folder: Path) -> Way:
    """The pipeline alone."""
    store = ResultStore(data_dir=folder)
    stack.push_async_callback(store.aclose)
    pipeline = AIProcessingPipeline(CONCURRENT, allow_hosts=("127.0.0.1",), store=BatchStore(store.access))
    await stack.enter_async_context(pipeline)

    async def run(urls: list[str]) -> None:
        report = await pipeline.process_batch(urls)
        assert report["success"] == len(urls), report

    return run


async def durable(stack: AsyncExitStack, folder: Path, url: str | None, workers: int) -> Way:
    """Jobs, worked on by so many processes."""
    settings = Settings(data_dir=folder, batch_concurrency=0)
    store = ResultStore(url, data_dir=folder)
    stack.push_async_callback(store.aclose)
    jobs = BatchJobs(settings, store=BatchStore(store.access))
    stack.callback(jobs.tables.close)
    environment = {
        **os.environ, "BULLETPROOF_DATA_DIR": str(folder), "BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1",
        "BULLETPROOF_LOG_LEVEL": "critical",
    } | ({"BULLETPROOF_DATABASE_URL": url} if url else {})  # fmt: skip
    command = [sys.executable, "-m", "bulletproof", "worker", "--concurrency", str(CONCURRENT), "--drain", "1"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    for process in processes:
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)

    async def run(urls: list[str]) -> None:
        batch = await jobs.submit(urls)
        while not (await jobs.store.batch(batch.id)).finished_at:
            await asyncio.sleep(0.05)
        report = await jobs.status(batch.id)
        assert report["success"] == len(urls), report

    return run


async def measure(address: str, folder: Path, database: Callable[[], str], pages: int) -> dict[str, list[float]]:
    """Return items per second for each way, one for each round."""
    rates: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        ways = {
            "plain": await plain(stack, folder / "plain"),
            "SQLite, one worker": await durable(stack, folder / "sqlite", None, 1),
            "PostgreSQL, one worker": await durable(stack, folder / "one", database(), 1),
            "PostgreSQL, three workers": await durable(stack, folder / "three", database(), 3),
        }
        first = 0
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                count = pages if number else 300  # the first round warms up
                urls = [f"{address}/page/{page}" for page in range(first, first + count)]
                first += count
                began = time.perf_counter()
                await way(urls)
                if number:
                    rates.setdefault(name, []).append(round(count / (time.perf_counter() - began), 1))
    return rates


def main() -> int:
    """Measure, print and write ``benchmarks/results/durable.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=PAGES)
    pages = parser.parse_args().pages
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from tests.conftest import Postgres

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, site() as address:
        server = Postgres(Path(name) / "postgres")
        server.start_first()
        try:
            rates = asyncio.run(measure(address, Path(name), server.create_database, pages))
        finally:
            server.stop()
    median: dict[str, Any] = {way: statistics.median(values) for way, values in rates.items()}
    for way, rate in median.items():
        print(f"{way:<28}{rate:>8.1f} items/s   {rate / median['plain']:.2f} of plain   {rates[way]}")
    RESULTS.mkdir(exist_ok=True)
    figures = {"benchmark": "durable", **machine(), "pages": pages, "items_per_second": median, "rounds": rates}
    (RESULTS / "durable.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
