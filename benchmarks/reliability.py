"""``docs/reliability.md``: what the campaigns found, from the files that they wrote.

python -m benchmarks.reliability                # writes the page from the files that there are
python -m benchmarks.reliability --run          # runs the campaigns before, for about two hours
python -m benchmarks.reliability --run --quick  # for about half an hour
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reliability.md"
_HEAD = """# Reliability in figures
What campaigns against the running service found; each is a program in `benchmarks/` (or `fuzz/`) that anybody can run
again, and writes the file named with it. `make bench-reliability` runs them and writes this page anew
(`ARGS=--quick` shortens them). Times depend on the machine, which was shared with other work; counts of what was lost
do not.
"""
Figures = dict[str, Any]


def crash(found: Figures) -> list[str]:
    """Kills of workers."""
    rows = [(name, one) for name, one in found.items() if isinstance(one, dict) and "kills" in one]
    return ["Workers are killed with `kill -9` at any moment and started again; then every item is looked at.",
            *_table(("store", "kills", "batches", "items", "lost", "duplicate results", "not terminal"),
                    [(name, one["kills"], one["batches"], one["items"], one["lost"], one["duplicate_results"],
                      one["not_terminal"]) for name, one in rows])]  # fmt: skip


def chaos(found: Figures) -> list[str]:
    """Faults of what the service depends on."""
    kept = [(name, one["stored"], one["stored_lost"], one["batches"], one["batches_unfinished"],
             one["batches_with_items_lost_or_doubled"]) for name, one in found["kept"].items()]  # fmt: skip
    return [
        (f"Database, LLM server, disk and network fail under load, {found['requests']:,} requests in "
        f"{found['seconds']:g} s; {len(found['problems'])} problems were found."),
        *_table(("fault", "for s", "seconds to recover", "slowest answer s"),
                [(one["fault"], one["seconds"], one["seconds_to_recover"], one["slowest_answer"])
                 for one in found["faults"]]),
        *_table(("store", "files stored", "lost", "batches", "unfinished", "with items lost or doubled"), kept),
    ]  # fmt: skip


def overload(found: Figures) -> list[str]:
    """Ten times the load."""
    rows = [(name, f"{one['capacity']:.0f}", f"{step['times']}x", f"{step['goodput']:.0f}", step["p99_ms"],
             f"{step['refused']:.0f}", step["refused_p50_ms"], step.get("refused_p95_ms"), step["refused_p99_ms"],
             step["probes"]["p99_ms"], step["idle_server"]["p99_ms"])
            for name, one in found.items() if isinstance(one, dict) and "steps" in one
            for step in one["steps"]]  # fmt: skip
    kept = "; ".join(f"{name} {one['kept']:.0%} and {one['kept_of_cpu']:.0%}" for name, one in found.items()
                     if isinstance(one, dict) and "steps" in one)  # fmt: skip
    return [
        (
            f"Requests per second and milliseconds, at so many times the capacity, in {found['rounds']} rounds of "
            f"{found['seconds']:g} s for each: rates are averages, times those of the worst round. Of the best "
            "goodput, and of what was answered for a second of the service's CPU time at best, ten times the capacity "
            f"left: {kept}. Answered is what came within {found['deadline_s']:g} s. The service had the cores "
            f"{found['service_cores']}, its clients {found['clients_cores']}. The last column is a server that does "
            "nothing, beside the clients at the same moment."
        ),
        *_table(("load on", "capacity", "load", "answered", "p99", "refused", "p50", "p95", "p99", "`/health/live` p99",
                 "idle server p99"), rows),
    ]  # fmt: skip


def rolling(found: Figures) -> list[str]:
    """Restarts."""
    return [
        (
            f"{found['rolling_restarts']} rolling restarts (`SIGHUP`) of {found['workers']} workers and "
            f"{found['workers_stopped']} times `SIGTERM` to one of them, in {found['seconds']:g} s under load: of "
            f"{found['requests']:,} requests on kept connections {found['errors']} failed; the slowest took "
            f"{found['slowest_answer']:g} s."
        )
    ]


def predict_soak(found: Figures) -> list[str]:
    """Mixed traffic."""
    memory = found["memory_mb"]
    return [
        (
            f"{found['minutes']:g} minutes of mixed traffic, {found['requests']:,} requests, among them models that "
            f"hang, crash and take all memory: {len(found['wrong'])} kinds of wrong answers; memory "
            f"{memory['start']:g} MB at the start, {memory['middle']:g} in the middle, {memory['end']:g} at the end."
        )
    ]


def batch_soak(found: Figures) -> list[str]:
    """Batches for half an hour."""
    return [
        (f"{found['minutes']:g} minutes of batches, {sum(found['items'].values()):,} items, {len(found['wrong'])} "
        "of them wrong."),
        *_table(("held", "after a fifth", "at the end", "most"),
                [(name.replace("_", " "), one["after_a_fifth"], one["at_the_end"], one["most"])
                 for name, one in found["figures"].items()]),
    ]  # fmt: skip


def faults(found: Figures) -> list[str]:
    """Injected failures."""
    return [
        (
            f"A pipeline of {found['items']:,} items, {found['share_of_calls_that_fail']:.0%} of whose calls fail by a "
            f"seeded plan: {found['success']:,} succeeded, {found['failed']:,} failed, "
            f"{found['not_as_the_plan_implies']} not as the plan implies."
        )
    ]


def pipeline(found: Figures) -> list[str]:
    """The cost of it."""
    return [
        f"A batch of {found['pages']:,} pages at {found['ratio']:.2f} of the pace of a bare gather of the same work."
    ]


def fuzz(found: Figures) -> list[str]:
    """Hostile input."""
    runs, total = found["runs"], found["total"]
    count = sum(len(run["findings"]) for run in runs)
    names = ", ".join(sorted({run["target"] for run in runs}))
    return [
        (
            f"{total['executions']:,} executions in {total['seconds']:,.0f} s of fuzzing ({names}); {count} findings "
            "in these runs. What was ever found is fixed and kept as a test."
        )
    ]


CAMPAIGNS: tuple[tuple[str, str, Callable[[Figures], list[str]]], ...] = (
    ("Killed workers", "benchmarks/results/crash.json", crash),
    ("Failing dependencies", "benchmarks/results/chaos.json", chaos),
    ("Too much load", "benchmarks/results/overload.json", overload),
    ("Restarts under load", "benchmarks/results/rolling.json", rolling),
    ("Mixed traffic", "benchmarks/results/predict_soak.json", predict_soak),
    ("Batches without end", "benchmarks/results/batch_soak.json", batch_soak),
    ("Injected failures", "benchmarks/results/faults.json", faults),
    ("The pace of a batch", "benchmarks/results/pipeline.json", pipeline),
    ("Hostile input", "fuzz/results.json", fuzz),
)

# The programs, and how they are shortened; that of killed workers has no figures for less than all of it.
RUNS = (
    ("benchmarks.overload", "--rounds 1"),
    ("benchmarks.rolling", "--restarts 3"),
    ("benchmarks.chaos", "--seconds 120"),
    ("benchmarks.crash", ""),
    ("benchmarks.faults", ""),
    ("benchmarks.predict_soak", "--minutes 2"),
    ("benchmarks.batch_soak", "--minutes 3"),
    ("fuzz", "--seconds 20"),
)


def page(root: Path = ROOT) -> str:
    """Return the page, from the files that there are."""
    parts = [_HEAD]
    for title, path, tell in CAMPAIGNS:
        if (root / path).exists():
            found = json.loads((root / path).read_text())
            about = found.get("machine", found) if isinstance(found.get("machine"), dict) else found
            when = f", {about['at'][:10]} at {about['commit']} on {about['machine']}" if "at" in about else ""
            parts += [f"## {title}", *tell(found), f"\n`{path}`{when}\n"]
    return "\n".join(parts)


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    text = ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*text, *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows), ""]


def _cell(value: Any) -> str:
    return (
        "-"
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.1f}"
        if isinstance(value, float)
        else str(value)
    )


def run(quick: bool) -> list[str]:
    """Run every campaign; return those that failed."""
    failed = []
    for command, short in RUNS:
        words = [*command.split(), *(short.split() if quick else ())]
        print(f"== {' '.join(words)}", flush=True)
        if subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False).returncode:
            failed.append(command)
    return failed


def main() -> int:
    """Write the page, after the campaigns if they are to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run the campaigns first")
    parser.add_argument("--quick", action="store_true", help="shorter ones")
    chosen = parser.parse_args()
    failed = run(chosen.quick) if chosen.run else []
    PAGE.write_text(page())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
