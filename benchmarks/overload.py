"""What the service does with ten times more than it can: goodput, times of what is taken and of what is refused.

``bulletproof serve`` with one worker and with two; small files at ``/process``, and ``/predict`` with a model that
takes 40 ms. The capacity is what a closed load of many clients gets; then 1, 2, 5 and 10 times as many requests
a second come, whether they are answered or not, in several rounds; rates are averages of the rounds, times those of
the worst. Goodput is what is answered with 200 within two seconds. Probes ask for ``/health/live`` meanwhile, and a
server that does nothing at all: what that takes is the machine's own delay. The service has all cores but the last, and
the clients that one: neither takes time from the other.

    python -m benchmarks.overload           # --quick for a look
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, machine
from benchmarks.predict import SLOW_MS, shelves
from benchmarks.serving import BODY, Server, ours, running

TIMES = (1, 2, 5, 10)
CLIENTS = 48
DEADLINE = 2.0  # seconds
_LINES = 20
_BOUNDARY = "a-boundary-of-the-benchmark"
console = Console(width=130)


def small_file() -> str:
    """Return a form with a CSV file of some 2 KB."""
    rows = "\n".join(f"{row},the {row}th delivery was quick and the people were friendly; I would buy there again"
                     for row in range(_LINES))  # fmt: skip
    return (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="small.csv"\r\n'
        f"Content-Type: text/csv\r\n\r\nid,text\n{rows}\n\r\n--{_BOUNDARY}--\r\n"
    )


PLANS: dict[str, dict[str, Any]] = {
    "/process": {"body": small_file(), "headers": {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}},
    "/predict": {"body": BODY[:-1] + ', "model": "slow"}', "headers": {"X-Request-Timeout": f"{DEADLINE:g}"}},
}


class Idle:
    """A server in a process of its own that does nothing but answer."""

    CODE = """
import asyncio
async def answer(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

    def __init__(self) -> None:
        command = [sys.executable, "-c", self.CODE]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


class Probe:
    """Asks for ``/health/live`` every 50 ms, on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.times: list[float] = []
        self.failed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(f"http://127.0.0.1:{port}/health/live",), daemon=True)
        self._thread.start()

    def _ask(self, url: str) -> None:
        with httpx.Client(timeout=10) as client:
            while not self._over.wait(0.05):
                began = time.perf_counter()
                try:
                    self.failed += client.get(url).status_code != 200
                except httpx.TransportError:
                    self.failed += 1
                self.times.append(time.perf_counter() - began)

    def end(self) -> dict[str, Any]:
        """Stop, and return what was seen."""
        self._over.set()
        self._thread.join()
        times = sorted(self.times)
        return {"asked": len(times), "failed": self.failed, "p99_ms": round(1000 * times[len(times) * 99 // 100], 1)}


def measure(server: Server, idle: Idle, path: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Find the capacity of a path, and send it multiples of that, in turns: the machine's own pace changes."""
    plan = {"path": path, **PLANS[path]}
    server.load(**plan, connections=4, seconds=6)  # warms up, models included
    capacity = server.load(**plan, connections=CLIENTS, seconds=seconds)["200"]["rate"]
    told: dict[int, list[dict[str, Any]]] = {times: [] for times in TIMES}
    for turn in range(rounds):
        for times in TIMES if turn % 2 == 0 else reversed(TIMES):
            told[times].append(step(server, idle, plan, times, capacity, seconds))
    found: dict[str, Any] = {"capacity": capacity, "steps": [merged(parts) for parts in told.values()]}
    for key, name in (("goodput", "kept"), ("answered_per_cpu_second", "kept_of_cpu")):
        peak = max(one[key] for one in found["steps"])
        found[name] = round(found["steps"][-1][key] / peak, 3) if peak else 0.0
    return found


def step(
    server: Server, idle: Idle, plan: dict[str, Any], times: int, capacity: float, seconds: float
) -> dict[str, Any]:
    """Send so many times the capacity for some seconds."""
    probe, beside, before = Probe(server.port), Probe(idle.port), server.memory_mb()
    spent = server.cpu_seconds()
    told = server.load(**plan, rate=times * capacity, seconds=seconds, deadline=DEADLINE)
    spent = server.cpu_seconds() - spent
    good, refused = told.get("200", {}), told.get("503", {})
    return {
        "times": times, "offered": round(told["offered"], 1),
        "sent": round(sum(told["statuses"].values()) / told["seconds"], 1),
        "goodput": told["rate_meanwhile"].get("200", 0.0), "p50_ms": good.get("p50_ms"), "p99_ms": good.get("p99_ms"),
        "refused": refused.get("rate", 0.0), "refused_p50_ms": refused.get("p50_ms"),
        "refused_p95_ms": refused.get("p95_ms"), "refused_p99_ms": refused.get("p99_ms"),
        "other": {status: count for status, count in told["statuses"].items() if status not in ("200", "503")},
        "probes": probe.end(), "idle_server": beside.end(), "memory_mb": [before, server.memory_mb()],
        "cpu_seconds": round(spent, 2),
        "answered_per_cpu_second": round(told["statuses"].get("200", 0) / max(spent, 0.01), 1),
    }  # fmt: skip


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what came of the same load in several rounds: rates on average, times of the worst round."""
    known = lambda name: [part[name] for part in parts if part[name] is not None]  # noqa: E731
    whole: dict[str, Any] = {"times": parts[0]["times"], "rounds": [part["goodput"] for part in parts]}
    for name in ("offered", "sent", "goodput", "refused", "cpu_seconds", "answered_per_cpu_second"):
        whole[name] = round(statistics.fmean(known(name)), 2)
    for name in ("p50_ms", "p99_ms", "refused_p50_ms", "refused_p95_ms", "refused_p99_ms"):
        whole[name] = max(known(name), default=None)
    whole["other"] = dict(sum((Counter(part["other"]) for part in parts), Counter()))
    for name in ("probes", "idle_server"):
        whole[name] = {
            "asked": sum(part[name]["asked"] for part in parts), "failed": sum(part[name]["failed"] for part in parts),
            "p99_ms": max(part[name]["p99_ms"] for part in parts),
        }  # fmt: skip
    return whole | {"memory_mb": [parts[0]["memory_mb"][0], parts[-1]["memory_mb"][1]]}


def show(title: str, found: dict[str, Any]) -> None:
    """Print one table."""
    table = Table(title=f"{title}: capacity {found['capacity']:,.0f}/s, at ten times {found['kept']:.0%} of the peak")
    for column in ("load", "sent/s", "answered/s", "p50 ms", "p99 ms", "refused/s", "p50 ms", "p95 ms", "p99 ms",
                   "other",
                   "probe p99 ms", "failed", "idle server p99 ms"):  # fmt: skip
        table.add_column(column, justify="right")
    number = lambda value: "-" if value is None else f"{value:,.0f}"  # noqa: E731
    for step in found["steps"]:
        table.add_row(
            f"{step['times']}x", number(step["sent"]), number(step["goodput"]), number(step["p50_ms"]),
            number(step["p99_ms"]), number(step["refused"]), number(step["refused_p50_ms"]),
            number(step["refused_p95_ms"]), number(step["refused_p99_ms"]),
            str(sum(step["other"].values())), number(step["probes"]["p99_ms"]),
            str(step["probes"]["failed"]), number(step["idle_server"]["p99_ms"]),
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure, print and write ``benchmarks/results/overload.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a load in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one worker, one round, nothing written")
    parser.add_argument("--only", choices=tuple(PLANS))
    chosen = parser.parse_args()
    seconds, rounds = chosen.seconds, 1 if chosen.quick else chosen.rounds
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours_too = set(cores[:-1]), {cores[-1]}
    os.sched_setaffinity(0, ours_too)  # the generator's, too
    figures: dict[str, Any] = {
        "benchmark": "overload", **machine(), "seconds": seconds, "rounds": rounds, "model_ms": SLOW_MS,
        "deadline_s": DEADLINE,
        "service_cores": sorted(theirs), "clients_cores": sorted(ours_too),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        shelves(Path(name))
        idle = Idle()
        data = {"BULLETPROOF_DATA_DIR": name, "SLOW_MS": str(SLOW_MS)}
        for workers in (1,) if chosen.quick else (1, 2):
            with running(f"{workers} workers", [*ours(), "--workers", str(workers)], cores=theirs, **data) as server:
                for path in PLANS:
                    if chosen.only in (None, path):
                        found = measure(server, idle, path, seconds, rounds)
                        figures[f"{path}, {workers} worker{'s' * (workers > 1)}"] = found
                        show(f"{path}, {workers} worker(s)", found)
        idle.end()
    if not chosen.quick and chosen.only is None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "overload.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
