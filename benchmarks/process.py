"""How fast files go through, and how much memory that takes.

Rows per second of ``POST /process`` (a real server on a real socket) and of ``bulletproof process``, beside the same
analyzer in a plain loop over the same texts, in interleaved rounds; the latency of ``/health/live`` meanwhile; and the
peak memory of the command for 10 MB, 100 MB and 1 GB of distinct 2 KB texts.

    python -m benchmarks.process            # 10 MB and 100 MB
    python -m benchmarks.process --full     # 1 GB as well
"""

import argparse
import csv
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from bulletproof.analysis import LocalAnalyzer

RESULTS = Path(__file__).parent / "results"
MB = 10**6
ROUNDS = 3
WORDS = (
    "the and of it this product was is good bad great terrible love hate battery screen case works broke after days "
    "weeks never again very really quality price money cheap shipping arrived late early box colour size fits perfect "
    "awful disappointed happy recommend friend daughter gift phone charger cable sound loud quiet slow fast easy hard"
).split()


def text(rng: random.Random, words: int) -> str:
    """Return words at random."""
    return " ".join(rng.choices(WORDS, k=words))


def write_csv(path: Path, size: int, words: int) -> int:
    """Write a CSV file of about ``size`` bytes and return its number of rows."""
    rng = random.Random(size)
    rows = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "review"))
        while file.tell() < size:
            for _ in range(200):
                rows += 1
                writer.writerow((rows, f"{text(rng, words)} {rows}"))
    return rows


def plain_loop(path: Path) -> float:
    """Return the seconds that the analyzer takes for all texts of a file, 512 at a time."""
    analyzer = LocalAnalyzer()
    with path.open(newline="") as file:
        texts = [row["review"] for row in csv.DictReader(file)]
    analyzer.analyze_batch(texts[:512])
    started = time.perf_counter()
    for first in range(0, len(texts), 512):
        analyzer.analyze_batch(texts[first : first + 512])
    return time.perf_counter() - started


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run ``bulletproof serve`` and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"BULLETPROOF_DATA_DIR": str(folder), "BULLETPROOF_LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "bulletproof", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{address}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def over_http(address: str, path: Path) -> tuple[float, list[float]]:
    """Return the seconds of one upload and the latencies of ``/health/live`` meanwhile."""
    latencies: list[float] = []
    done = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=address) as client:
            while not done.is_set():
                started = time.perf_counter()
                client.get("/health/live")
                latencies.append(time.perf_counter() - started)
                done.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        started = time.perf_counter()
        with path.open("rb") as file:
            response = httpx.post(f"{address}/process", files={"file": ("bench.csv", file)}, timeout=600)
        seconds = time.perf_counter() - started
    finally:
        done.set()
        watcher.join()
    response.raise_for_status()
    return seconds, latencies


def by_command(path: Path, folder: Path) -> tuple[float, float]:
    """Return seconds and peak memory, in MB, of ``bulletproof process``; children of it included one by one."""
    environment = os.environ | {"BULLETPROOF_DATA_DIR": str(folder)}
    out = str(folder / "out.json")
    command = [sys.executable, "-m", "bulletproof", "process", str(path), "--format", "json", "--quiet", "--out", out]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"bulletproof process ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def commit() -> str:
    """Return the commit that is measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Measure, print and write ``benchmarks/results/process.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="measure memory for 1 GB as well")
    full = parser.parse_args().full
    console = Console()
    figures: dict[str, object] = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "bench.csv"
        rows = write_csv(path, 10 * MB, 20)
        seconds: dict[str, list[float]] = {"plain loop": [], "POST /process": [], "bulletproof process": []}
        latencies: list[float] = []
        with server(folder / "service") as address:
            for _ in range(ROUNDS):
                seconds["plain loop"].append(plain_loop(path))
                took, seen = over_http(address, path)
                seconds["POST /process"].append(took)
                latencies += seen
                seconds["bulletproof process"].append(by_command(path, folder)[0])
        plain = statistics.median(seconds["plain loop"])
        table = Table(title=f"10 MB CSV, {rows:,} rows of 20 words")
        for column in ("way", "rows/s", "of the plain loop"):
            table.add_column(column, justify="left" if column == "way" else "right")
        for way, took_all in seconds.items():
            middle = statistics.median(took_all)
            table.add_row(way, f"{rows / middle:,.0f}", f"{plain / middle:.2f}")
        console.print(table)
        latencies.sort()
        p99 = latencies[int(len(latencies) * 0.99)] * 1000
        console.print(f"/health/live meanwhile: p99 {p99:.1f} ms of {len(latencies)} requests")
        memory: dict[str, float] = {}
        for size in (10, 100, 1000) if full else (10, 100):
            write_csv(path, size * MB, 350)
            memory[f"{size} MB"] = by_command(path, folder)[1]
        console.print("peak memory: " + ", ".join(f"{size}: {peak:.0f} MB" for size, peak in memory.items()))
        figures |= {"rows": rows, "seconds": seconds, "health_live_p99_ms": p99, "peak_memory_mb": memory}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "process.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
