"""Fault campaign: takes all that a running service depends on through faults, under load, and checks what it promised.

Two ``bulletproof serve`` processes get files, predictions and batches of URLs all the time: one on PostgreSQL with an
LLM, one on SQLite on a small disk of its own. One after the other PostgreSQL is killed, cut off, reset and slowed down;
the LLM goes away, hangs, fails, limits, answers rubbish; the web sites refuse and break off; the disk is filled. The
network faults are those of ``bulletproof.chaos.TcpProxy``, the rest is done to the real thing.

Then it is counted: every 200 with ``stored: true`` must be readable, whole; every 202 batch must end complete, each
item once; every answer must be typed JSON; and every part must be well again without help, with the seconds that took.

    python -m benchmarks.chaos --seconds 300
"""

import argparse
import asyncio
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import RESULTS, machine
from bulletproof.chaos import TcpProxy
from bulletproof.errors import CODES, ErrorType

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.web import Site
from support.wire import WireServer, chat, problem, silence, texts_of

ROWS, URLS = 20, 5
PATIENCE = 90.0  # seconds after which a client gives up, which counts as no answer
_DISK_MIB = 48
_RECOVERY_LIMIT = 90.0
_ERROR_KEYS = {"error", "error_type", "details", "status", "code"}


@dataclass
class Seen:
    """An answer."""

    what: str
    started: float
    ended: float
    status: int
    code: str
    good: bool


@dataclass
class Load:
    """Sends requests and writes down what came back."""

    client: httpx.AsyncClient
    sites: TcpProxy
    seen: list[Seen] = field(default_factory=list)
    stored: dict[str, list[str]] = field(default_factory=dict)
    batches: dict[str, float] = field(default_factory=dict)
    whole: list[tuple[float, float]] = field(default_factory=list)  # when batches without a failed item began and ended
    problems: list[str] = field(default_factory=list)
    number: int = 0
    running: bool = True

    async def ask(self, what: str, method: str, path: str, good: Callable[[Any], bool], **body: Any) -> Any:
        """Send one request; the answer, or None when it is an error."""
        started = time.monotonic()
        try:
            answer = await self.client.request(method, path, **body)
        except httpx.TransportError as error:
            self.problems.append(f"{what} {method} {path}: no answer, {type(error).__name__}")
            return None
        status, found = answer.status_code, None
        with suppress(ValueError):
            found = answer.json()
        typed = isinstance(found, dict) and (status < 400 or _is_typed(found))
        if not typed:
            self.problems.append(f"{what}: an answer that is not typed: {status} {answer.text[:200]}")
            found = {}
        elif status in (429, 503) and "retry-after" not in answer.headers:
            self.problems.append(f"{what}: {status} without Retry-After")
        fine = status < 400 and typed and good(found)
        self.seen.append(Seen(what, started, time.monotonic(), status, found.get("code", ""), fine))
        return found if status < 400 else None

    async def files(self, what: str, rows: int = ROWS) -> None:
        """Send a file; write down what is stored."""
        self.number += 1
        texts = [f"This is good report {self.number} line {row}" for row in range(rows)]
        content = "\n".join(["text", *texts]).encode()
        llm = what == "process"  # the other service has none
        found = await self.ask(
            what, "POST", "/process", lambda body: body["stored"] and not (llm and body["degraded"]),
            files={"file": (f"{self.number}.csv", content, "text/csv")},
        )  # fmt: skip
        if found and found["stored"]:
            self.stored[found["processing_id"]] = texts

    async def predictions(self) -> None:
        """Ask for a prediction."""
        await self.ask(
            "predict",
            "POST",
            "/predict",
            lambda _: True,
            json={"input_data": [5.1, 3.5, 1.4, 0.2], "model_version": "v1.0"},
        )

    async def submissions(self) -> None:
        """Submit a batch and follow it for a while."""
        self.number += 1
        started = time.monotonic()
        urls = [f"http://127.0.0.1:{self.sites.port}/page/{self.number * URLS + n}" for n in range(URLS)]
        found = await self.ask("batches", "POST", "/batches", lambda _: True, json={"urls": urls})
        if not found:
            return
        self.batches[found["batch_id"]] = started
        for _ in range(8):
            await asyncio.sleep(1)
            state = await self.ask("batch", "GET", f"/batches/{found['batch_id']}", lambda _: True)
            if state and state["status"] == "complete":
                if state["success"] == URLS:
                    self.whole.append((started, time.monotonic()))
                return

    async def readings(self) -> None:
        """Read back something that was stored."""
        if self.stored:
            run = random.choice(list(self.stored))
            found = await self.ask("read", "GET", f"/results/{run}", lambda _: True)
            if found and len(found["results"]) != len(self.stored[run]):
                self.problems.append(f"run {run} has {len(found['results'])} results")
            if self.seen[-1].code == "not_found":
                self.problems.append(f"run {run} is not found while it runs")

    async def forever(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        """Do it again and again."""
        while self.running:
            await work()
            await asyncio.sleep(pause)

    async def check(self) -> dict[str, int]:
        """Read everything that was acknowledged."""
        lost = torn = 0
        for run, texts in self.stored.items():
            answer = await self.client.get(f"/results/{run}")
            if answer.status_code != 200:
                lost += 1
            elif [row["text"] for row in answer.json()["results"]] != texts:
                torn += 1
        unfinished, items, doubled = set(self.batches), Counter[str](), 0
        limit = time.monotonic() + 180
        while unfinished and time.monotonic() < limit:
            for batch in list(unfinished):
                state = (await self.client.get(f"/batches/{batch}")).json()
                if state.get("status") == "complete":
                    unfinished.discard(batch)
                    items.update({"success": state["success"], "failed": state["failed"]})
                    rows = (await self.client.get(f"/batches/{batch}/items")).json()["items"]
                    doubled += len(rows) != URLS or len({row["url"] for row in rows}) != URLS
            await asyncio.sleep(0.5)
        for count, said in ((lost, "lost"), (torn, "not whole")):
            if count:
                self.problems.append(f"{count} stored runs are {said}")
        if unfinished or doubled:
            self.problems.append(f"{len(unfinished)} batches never end, {doubled} have not each item once")
        return {
            "stored": len(self.stored), "stored_lost": lost, "stored_not_whole": torn, "batches": len(self.batches),
            "batches_unfinished": len(unfinished), "batches_with_items_lost_or_doubled": doubled, **items,
        }  # fmt: skip


def _is_typed(found: dict[str, Any]) -> bool:
    return found.keys() >= _ERROR_KEYS and found["code"] in CODES and found["error_type"] in set(ErrorType)


def judged(_: Any, asked: Any) -> bytes:
    """What a healthy LLM answers."""
    return chat({name: {"sentiment": "positive", "score": 0.8, "confidence": 0.9} for name in texts_of(asked)})


@contextmanager
def serving(folder: Path, name: str, **environment: str) -> Iterator[str]:
    """Run a service; its log goes to a file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(folder / name), "BULLETPROOF_ANALYSIS_WORKERS": "0",
        "BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1", "BULLETPROOF_LOG_FORMAT": "json", **environment,
    }  # fmt: skip
    with folder.with_name(f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "bulletproof", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=log)
        try:
            for _ in range(600):
                with suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            if process.wait(60) not in (0, -15):
                print(f"{name} ended with {process.returncode}")


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk there; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


@dataclass
class Fault:
    """One thing that goes wrong."""

    name: str
    part: str
    start: Callable[[], Any]
    heal: Callable[[], Any]


async def _do(act: Callable[[], Any]) -> None:
    done = act()
    if asyncio.iscoroutine(done):
        await done


def faults_of(postgres: Any, proxies: dict[str, TcpProxy], llm: WireServer, disk: Path | None) -> list[Fault]:
    """Return all that is to go wrong."""

    def network(part: str, mode: Any = "pass", **more: Any) -> Fault:
        name = " ".join(
            [mode.replace("pass", ""), *(f"{key.replace('_', ' ')} {value:g}" for key, value in more.items())]
        )
        proxy = proxies[part]
        return Fault(f"{part}: network {name.strip()}", part, lambda: proxy.switch(mode, **more), proxy.switch)

    def saying(name: str, reply: Any) -> Fault:
        return Fault(
            f"llm: {name}", "llm", lambda: setattr(llm, "default", reply), lambda: setattr(llm, "default", judged)
        )

    found = [
        Fault("database: killed with -9, started again", "database", postgres.kill,
              lambda: asyncio.to_thread(postgres.start)),
        network("database", "blackhole"), network("database", "reset"), network("database", "refuse"),
        network("database", delay=0.2),
        network("llm", "refuse"), network("llm", "blackhole"), network("llm", cut_after=100),
        saying("HTTP 500", problem(500)), saying("HTTP 429", problem(429, retry_after="1")),
        saying("rubbish", chat("Sorry?")), saying("silence", silence),
        network("sites", "refuse"), network("sites", cut_after=300), network("sites", "blackhole"),
    ]  # fmt: skip
    if disk is not None:
        filler = disk / "filler"

        def fill() -> None:
            # What the log of the database has taken already would keep it going for a while.
            with closing(sqlite3.connect(disk / "small" / "results.db")) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                for size in (2**20, 4096, 1):
                    with suppress(OSError):
                        while True:
                            file.write(b"\0" * size)

        found.append(Fault("disk: full", "disk", fill, filler.unlink))
    return found


def recovered(part: str, load: Load, small: Load | None, healed: float) -> float | None:
    """Return when the part was first seen well after it was healed."""
    if part == "sites":
        return min((ended for started, ended in load.whole if started >= healed), default=None)
    source, what = (small, "small") if part == "disk" and small is not None else (load, "process")
    return min(
        (one.ended for one in source.seen if one.what == what and one.good and one.started >= healed), default=None
    )


async def strike(fault: Fault, load: Load, small: Load | None, seconds: float) -> dict[str, Any]:
    """Let one thing go wrong for so long, heal it, and wait until all is well."""
    began = time.monotonic()
    await _do(fault.start)
    await asyncio.sleep(seconds)
    await _do(fault.heal)
    healed = time.monotonic()
    while (well := recovered(fault.part, load, small, healed)) is None and time.monotonic() - healed < _RECOVERY_LIMIT:
        await asyncio.sleep(0.1)
    if well is None:
        load.problems.append(f"{fault.name}: not well again after {_RECOVERY_LIMIT:g} s")
    took = None if well is None else round(well - healed, 2)
    print(f"{fault.name:<44} for {healed - began:.1f} s; well again after {took} s", flush=True)
    return {"fault": fault.name, "seconds": round(healed - began, 1), "seconds_to_recover": took,
            "window": (began, healed)}  # fmt: skip


def tell_answers(outcome: dict[str, Any], loads: list[Load]) -> None:
    """Say how the requests were answered that came while something was wrong."""
    began, healed = outcome.pop("window")
    answers: dict[str, Counter[str]] = {}
    slowest = 0.0
    for one in (one for load in loads for one in load.seen if began <= one.started < healed):
        shade = "" if one.good or one.status >= 400 else " degraded or not stored"
        answers.setdefault(one.what, Counter())[f"{one.status} {one.code}".strip() + shade] += 1
        slowest = max(slowest, one.ended - one.started)
    outcome |= {"slowest_answer": round(slowest, 2), "answers": {what: dict(found) for what, found in answers.items()}}
    print(f"{outcome['fault']:<44} slowest answer {slowest:4.1f} s; {outcome['answers']}")


async def campaign(folder: Path, postgres: Any, seconds: float) -> dict[str, Any]:
    """Run all of it."""
    llm, loads, outcomes = WireServer(default=judged).start(), [], []
    with small_disk(folder / "disk") as mounted, Site() as site:
        async with TcpProxy("127.0.0.1", postgres.port) as database, TcpProxy("127.0.0.1", llm.port) as model, \
                TcpProxy("127.0.0.1", int(site.url().rsplit(":", 1)[1].strip("/"))) as sites:  # fmt: skip
            url = postgres.create_database().replace(str(postgres.port), str(database.port))
            main = serving(
                folder, "main", BULLETPROOF_DATABASE_URL=url, BULLETPROOF_LLM_BASE_URL=f"http://127.0.0.1:{model.port}/v1",
                BULLETPROOF_LLM_TIMEOUT="5", BULLETPROOF_LLM_OPEN_SECONDS="3", BULLETPROOF_FETCH_TIMEOUT="10",
            )  # fmt: skip
            with_disk = serving(folder / "disk", "small", BULLETPROOF_MIN_FREE_DISK_BYTES="0")
            with main as address, with_disk as other:
                limits = httpx.Limits(max_keepalive_connections=20)
                async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as client, \
                        httpx.AsyncClient(base_url=other, timeout=PATIENCE) as second:  # fmt: skip
                    load, small = Load(client, sites), Load(second, sites)
                    loads = [load, small]
                    work = [(lambda: load.files("process"), 0.1), (lambda: load.files("process"), 0.1),
                            (load.predictions, 0.2), (load.submissions, 0.5), (load.submissions, 0.5),
                            (load.readings, 0.5)]  # fmt: skip
                    tasks = [asyncio.create_task(load.forever(*one)) for one in work]
                    tasks += [asyncio.create_task(small.forever(lambda: small.files("small", 500), 0.2)),
                              asyncio.create_task(small.forever(small.readings, 0.5))]  # fmt: skip
                    await asyncio.sleep(5)
                    proxies = {"database": database, "llm": model, "sites": sites}
                    faults = faults_of(postgres, proxies, llm, folder / "disk" if mounted else None)
                    for fault in faults:
                        outcomes.append(await strike(fault, load, small, max(2.0, 0.5 * seconds / len(faults))))
                        await asyncio.sleep(1)
                    for one in loads:
                        one.running = False
                    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE + 30)
                    kept = {"postgresql": await load.check(), "sqlite": await small.check()}
                    for _ in range(60):
                        health = [(await one.client.get("/health")).json() for one in loads]
                        if all(found["components"]["store"]["status"] == "healthy" for found in health):
                            break
                        await asyncio.sleep(1)
                    else:
                        load.problems.append("a store is not healthy at the end")
    llm.stop()
    for outcome in outcomes:
        tell_answers(outcome, loads)
    answers = Counter(f"{one.what} {one.status}" for load in loads for one in load.seen)
    return {
        "disk_fault": "a full tmpfs" if mounted else "left out: mounting is not allowed here", "faults": outcomes,
        "kept": kept, "answers": dict(sorted(answers.items())), "requests": sum(answers.values()),
        "problems": [problem for load in loads for problem in load.problems],
    }  # fmt: skip


def main() -> int:
    """Run the campaign, print what came of it and write it down."""
    parser = argparse.ArgumentParser(description="Take a running service through faults of all it depends on.")
    parser.add_argument("--seconds", type=float, default=300, help="for all faults together; by default 300")
    given = parser.parse_args()
    from conftest import Postgres

    # PostgreSQL runs as another user under root, who has to get to its folder.
    with tempfile.TemporaryDirectory(prefix="bulletproof-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "run"
        folder.mkdir()
        Path(name).chmod(0o755)
        postgres = Postgres(Path(name) / "postgres")
        postgres.start_first()
        try:
            found = asyncio.run(campaign(folder, postgres, given.seconds))
        finally:
            postgres.stop()
        if found["problems"]:
            for log in Path(name).glob("*.log"):
                print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
    print(json.dumps(found["kept"]), f"{found['requests']} requests", *found["problems"][:20], sep="\n")
    figures = {**machine(), "load_average": os.getloadavg()[0], "seconds": given.seconds, **found}
    (RESULTS / "chaos.json").write_text(json.dumps(figures, indent=1) + "\n")
    return bool(found["problems"])


if __name__ == "__main__":
    sys.exit(main())
