"""How fast batches of URLs go through, and how much memory they take.

Items per second of ``AIProcessingPipeline.process_batch`` beside a bare ``asyncio.gather`` over an ``aiohttp`` session
that does the same work: download, the same extraction in the same number of workers, the same analysis, the same rows
stored. The gather does it without retries, guards, limits, breakers, figures or statuses, analyses all texts in one
call and stores all rows in one. Both get the pages from a local site, in interleaved rounds, with warm workers.

Then the peak memory of batches of a thousand, a hundred thousand and a million URLs out of an iterator, with stages
that cost nothing: what the queue and the bookkeeping take.

    python -m benchmarks pipeline
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import RESULTS, machine
from bulletproof import AIProcessingPipeline, ProcessingItem
from bulletproof.analysis import LocalAnalyzer
from bulletproof.pipeline import Extractor
from bulletproof.store import BatchStore, ItemRow, ResultStore

PAGES = 2000
ROUNDS = 5
CONCURRENT = 50
QUEUED = (1_000, 100_000, 1_000_000)


@contextmanager
def site() -> Iterator[str]:
    """Serve pages from a process of its own; yields the address."""
    command = [sys.executable, "-m", "tests.support.web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().rstrip("/")
        finally:
            server.terminate()


class Bare:
    """The same work with nothing around it."""

    def __init__(self, store: BatchStore) -> None:
        self.store = store
        self.extractor = Extractor()
        self.analyzer = LocalAnalyzer()

    async def process_batch(self, urls: list[str]) -> int:
        """Process URLs and return how many there were."""
        gate = asyncio.Semaphore(CONCURRENT)

        async def read(url: str) -> Any:
            async with gate:
                async with session.get(url) as answer:
                    body = await answer.read()
                return await self.extractor.extract(body, media_type="text/html", charset="utf-8", url=url)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENT)) as session:
            extracts = await asyncio.gather(*map(read, urls))
        scores = (await self.analyzer.analyze([extract.text for extract in extracts])).results
        batch = await self.store.create([])
        rows = [
            ItemRow(
                position=number,
                url=url,
                status="success",
                stage="done",
                result={
                    "url": url, "title": extract.title, "language": score.language, "text_chars": len(extract.text),
                    "sentiment": score.sentiment, "score": score.score, "confidence": score.confidence,
                },
            )
            for number, (url, extract, score) in enumerate(zip(urls, extracts, scores, strict=True))
        ]  # fmt: skip
        await self.store.save(batch.id, rows)
        return len(rows)


@asynccontextmanager
async def ours(store: BatchStore, host: str) -> AsyncIterator[AIProcessingPipeline]:
    """A pipeline with warm workers, closed at the end."""
    async with AIProcessingPipeline(CONCURRENT, allow_hosts=[host], store=store) as pipeline:
        yield pipeline


async def race(address: str, folder: str) -> dict[str, list[float]]:
    """Return the items a second of both, round by round."""
    results = ResultStore(data_dir=folder)
    store = BatchStore(results.access)
    await results.open()
    bare = Bare(store)
    seconds: dict[str, list[float]] = {"bulletproof": [], "bare gather": []}
    async with ours(store, address.partition("//")[2]) as pipeline:
        for number in range(ROUNDS + 1):
            count = PAGES if number else 100  # the first round warms the workers up
            urls = [f"{address}/page/{number * PAGES + at}" for at in range(count)]
            for name, work in (("bulletproof", pipeline), ("bare gather", bare)):
                started = time.perf_counter()
                await work.process_batch(urls)
                if number:
                    seconds[name].append(count / (time.perf_counter() - started))
            assert pipeline.get_status_report()["success"] == count
    await bare.extractor.aclose()
    await results.aclose()
    return seconds


class Empty(AIProcessingPipeline):
    """All but the queue and the bookkeeping left out."""

    async def download_content(self, url: str) -> str:  # noqa: ARG002
        """Return a page at once."""
        return "A page of text."

    async def extract_text(self, content: str) -> str:
        """Return it as it is."""
        return content

    async def analyze_sentiment(self, text: str) -> float:  # noqa: ARG002
        """Have no opinion."""
        return 0.0

    async def store_result(self, item: ProcessingItem) -> bool:  # noqa: ARG002
        """Forget it."""
        return True


def memory(count: int) -> None:
    """Process so many URLs; prints the growth of the peak of memory in MB and the seconds it took."""
    pipeline = Empty(CONCURRENT)
    asyncio.run(pipeline.process_batch(["https://example.com/"]))
    before, started = peak(), time.perf_counter()
    report = asyncio.run(pipeline.process_batch(f"https://host{n % 1000}.example/{n}" for n in range(count)))
    assert report["success"] == count
    print(json.dumps({"growth_mb": round(peak() - before, 1), "seconds": round(time.perf_counter() - started, 1)}))


def peak() -> float:
    """Return the most memory that this process ever had, in MB."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def main() -> None:
    """Run everything, print a table, write the result."""
    logging.getLogger("bulletproof").setLevel(logging.WARNING)
    options = argparse.ArgumentParser()
    options.add_argument("--memory", type=int, help="only this, in this process")
    chosen = options.parse_args()
    if chosen.memory is not None:
        memory(chosen.memory)
        return
    with site() as address, tempfile.TemporaryDirectory() as folder:
        rounds = asyncio.run(race(address, folder))
    median = {name: statistics.median(values) for name, values in rounds.items()}
    ratio = median["bulletproof"] / median["bare gather"]
    print(f"{PAGES:,} pages of a local site, {CONCURRENT} at a time, {ROUNDS} rounds")
    for name, value in median.items():
        print(f"  {name:<14}{value:>8.0f} items/s")
    print(f"  ratio {ratio:.2f}")
    taken = {}
    for count in QUEUED:
        command = [sys.executable, "-m", "benchmarks.pipeline", "--memory", str(count)]
        taken[count] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"  {count:>9,} queued: {taken[count]['growth_mb']:>6.1f} MB more, {taken[count]['seconds']:>6.1f} s")
    figures = {
        "benchmark": "pipeline",
        **machine(),
        "pages": PAGES,
        "concurrent": CONCURRENT,
        "items_per_second": {name: round(value, 1) for name, value in median.items()},
        "ratio": round(ratio, 3),
        "rounds": {name: [round(value, 1) for value in values] for name, values in rounds.items()},
        "queued": taken,
    }
    (RESULTS / "pipeline.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
