"""What the store takes and gives in rows a second, beside sqlite3 in a plain loop that does as little as it can.

The bar: 50,000 rows a second into SQLite. All in interleaved rounds; medians. Meanwhile a task watches how long the
event loop is ever held up by the store itself (CPU time of its thread between two turns).

    python -m benchmarks store [--url postgresql://...]
"""

import argparse
import asyncio
import gc
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, machine
from bulletproof.store import ResultRow, ResultStore

ROWS = 50_000
ROUNDS = 5
CHUNKS = (512, 2000)
BAR = 50_000

_TEXT = "It arrived on time, works as described, and the box was only slightly dented. I would buy it again. "
_rows = [ResultRow(n, f"{_TEXT}{n}", "positive", 0.5, 0.75, "en", "local/1.0") for n in range(1, ROWS + 1)]


class Held:
    """The longest time that the event loop was held up."""

    longest = 0.0

    async def watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.0005)
            self.longest = max(self.longest, time.thread_time() - before)


def plain(folder: Path, chunk: int) -> None:
    """Write the rows with sqlite3 alone."""
    connection = sqlite3.connect(folder / f"plain{time.monotonic_ns()}.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE results (run, row, text, sentiment, score, confidence, language, analyzer, l, c)")
    connection.execute("CREATE UNIQUE INDEX key ON results (run, row)")
    for start in range(0, ROWS, chunk):
        part = [(1, *row) for row in _rows[start : start + chunk]]
        with connection:
            connection.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", part)
    connection.close()


async def write(store: ResultStore, chunk: int) -> str:
    """Write the rows through the store."""
    run = f"run{time.monotonic_ns()}"
    await store.begin_run(run, filename="reviews.csv", format="csv")
    for start in range(0, ROWS, chunk):
        await store.add_chunk(run, _rows[start : start + chunk])
    await store.complete_run(
        run, records={}, summary={}, analyzer="local/1.0", degraded=False, reason=None, warnings=[], duration_ms=1
    )
    return run


async def read(store: ResultStore, run: str) -> None:
    """Read the rows page by page."""
    after = count = 0
    while page := await store.get_results(run, after=after, limit=1000):
        after, count = page[-1].row, count + len(page)
    assert count == ROWS


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Return rows a second, and the result."""
    gc.collect()
    started = time.perf_counter()
    result = await work()
    return ROWS / (time.perf_counter() - started), result


async def main(url: str | None) -> int:
    """Measure, print, write ``results/store.json``."""
    found: dict[str, list[float]] = {}
    held = Held()
    with tempfile.TemporaryDirectory() as name:
        store = ResultStore(url, data_dir=Path(name) / "data")
        await store.open()
        for _ in range(ROUNDS):
            for chunk in CHUNKS:
                speed, _ = await timed(lambda chunk=chunk: asyncio.to_thread(plain, Path(name), chunk))
                found.setdefault(f"sqlite3, plain loop, chunks of {chunk}", []).append(speed)
                gc.disable()
                watcher = asyncio.create_task(held.watch())
                speed, run = await timed(lambda chunk=chunk: write(store, chunk))
                watcher.cancel()
                gc.enable()
                found.setdefault(f"bulletproof, chunks of {chunk}", []).append(speed)
            speed, _ = await timed(lambda run=run: read(store, run))
            found.setdefault("bulletproof, read in pages of 1000", []).append(speed)
        await store.aclose()
    medians = {row: round(statistics.median(speeds)) for row, speeds in found.items()}
    for row, speed in medians.items():
        print(f"  {row:<44}{speed:>10,} rows/s")
    print(f"  the event loop was held up for at most {held.longest * 1000:.1f} ms")
    database = "postgresql" if url else "sqlite"
    RESULTS.mkdir(exist_ok=True)
    figures = {
        "benchmark": "store", "database": database, **machine(), "rows_per_s": medians,
        "event_loop_held_ms": round(held.longest * 1000, 2),
        "rounds": {row: [round(speed) for speed in speeds] for row, speeds in found.items()},
    }  # fmt: skip
    (RESULTS / ("store.json" if not url else "store-postgresql.json")).write_text(json.dumps(figures, indent=1) + "\n")
    return int(not url and min(medians[f"bulletproof, chunks of {chunk}"] for chunk in CHUNKS) < BAR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a PostgreSQL database to use instead of SQLite in a temporary folder")
    raise SystemExit(asyncio.run(main(parser.parse_args().url)))
