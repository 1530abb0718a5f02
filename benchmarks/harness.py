"""What the benchmarks of small things share: interleaved rounds, medians over a bare call, a table, JSON, a chart."""

import asyncio
import gc
import importlib.metadata
import inspect
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Args:
        name: Shown in the table.
        fn: Called with one argument; its result is awaited when it is a coroutine function.
        group: Rows of one group are compared with each other.
        raises: What a call raises, where that belongs to it.
        library: Its distribution, whose version is recorded; empty for yardsticks.
    """

    name: str
    fn: Callable[[int], Any]
    group: str
    raises: type[BaseException] | None = None
    library: str = ""


def measure(rows: list[Row], *, calls: int = 5000, rounds: int = 21) -> dict[str, list[float]]:
    """Time the rows in turns, so that whatever disturbs the machine disturbs all of them.

    Args:
        rows: What to measure.
        calls: Calls in each round.
        rounds: Rounds.

    Returns:
        For each row the nanoseconds of thread CPU time per call, one for each round.
    """
    raw: dict[str, list[float]] = {_key(row): [] for row in rows}

    async def run() -> None:
        for number in range(rounds + 1):
            for row in rows:
                # Slow ones need fewer calls; the first round, which warms up, tells which.
                seen = raw[_key(row)]
                count = max(50, min(calls, int(4e7 / seen[0]))) if seen else max(50, calls // 20)
                gc.collect()
                gc.disable()
                try:
                    spent = await _async_loop(row, count) if inspect.iscoroutinefunction(row.fn) else _loop(row, count)
                finally:
                    gc.enable()
                seen.append(spent / count)
            if number == 0:
                first = {key: values[0] for key, values in raw.items()}
        for key, values in raw.items():
            del values[0]
            assert first[key]

    asyncio.run(run())
    return raw


def report(
    benchmark: str, rows: list[Row], raw: dict[str, list[float]], *, bare: dict[str, str], unit: dict[str, str]
) -> dict[str, float]:
    """Print a table, write ``results/BENCHMARK.json`` and ``results/BENCHMARK.svg``.

    Args:
        benchmark: Its name.
        rows: What was measured.
        raw: What ``measure`` gave.
        bare: For each group the row of the bare call, which is taken off all others.
        unit: For each group the row whose cost over the bare call is 1.

    Returns:
        For each row its cost over the bare call, as a multiple of its group's unit.
    """
    median = {key: statistics.median(values) for key, values in raw.items()}
    over = {_key(row): median[_key(row)] - median[f"{row.group}/{bare[row.group]}"] for row in rows}
    ratio = {_key(row): over[_key(row)] / over[f"{row.group}/{unit[row.group]}"] for row in rows}
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            print(f"\n{group}   (over {bare[group]}; 1 = {unit[group]})")
        key = _key(row)
        print(f"  {row.name:<44}{median[key]:>10.0f} ns{over[key]:>10.0f} ns{ratio[key]:>9.2f}x")
    libraries = sorted({row.library for row in rows if row.library})
    RESULTS.mkdir(exist_ok=True)
    figures = {
        "benchmark": benchmark,
        **machine(),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "median_ns": {key: round(value, 1) for key, value in median.items()},
        "over_bare_ns": {key: round(value, 1) for key, value in over.items()},
        "ratio": {key: round(value, 3) for key, value in ratio.items()},
        "rounds_ns": {key: [round(value, 1) for value in values] for key, values in raw.items()},
    }
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (RESULTS / f"{benchmark}.svg").write_text(chart(benchmark, rows, over))
    return ratio


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def chart(title: str, rows: list[Row], over: dict[str, float]) -> str:
    """Return bars, on a logarithmic scale, as SVG."""
    shown = [row for row in rows if over[_key(row)] > 0]
    top = max(over[_key(row)] for row in shown)
    lines = [f'<text x="10" y="24" font-size="16">{escape(title)}: ns over a bare call (logarithmic)</text>']
    for place, row in enumerate(shown):
        y = 44 + 22 * place
        width = 420 * math.log10(max(over[_key(row)], 10) / 10) / math.log10(top / 10)
        colour = "#c2410c" if row.name.startswith("bulletproof") else "#64748b"
        lines.append(f'<text x="440" y="{y + 12}" text-anchor="end">{escape(f"{row.group}: {row.name}")}</text>')
        lines.append(f'<rect x="450" y="{y}" width="{max(width, 1):.0f}" height="16" fill="{colour}"/>')
        lines.append(f'<text x="{456 + width:.0f}" y="{y + 12}">{over[_key(row)]:,.0f}</text>')
    height = 56 + 22 * len(shown)
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="960" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def _key(row: Row) -> str:
    return f"{row.group}/{row.name}"


def _loop(row: Row, count: int) -> int:
    fn, raises = row.fn, row.raises
    started = time.thread_time_ns()
    if raises is None:
        for _ in range(count):
            fn(1)
    else:
        for _ in range(count):
            try:  # noqa: SIM105 - suppress() would be measured too
                fn(1)
            except raises:
                pass
    return time.thread_time_ns() - started


async def _async_loop(row: Row, count: int) -> int:
    fn, raises = row.fn, row.raises
    started = time.thread_time_ns()
    if raises is None:
        for _ in range(count):
            await fn(1)
    else:
        for _ in range(count):
            try:  # noqa: SIM105
                await fn(1)
            except raises:
                pass
    return time.thread_time_ns() - started
