"""Crash campaign: kills the processes that work on batches of URLs with -9, again and again, and counts what became of
every item.

Two settings: one worker on SQLite, killed and started anew; and three on PostgreSQL, of which one at a time is killed.
The moments are random: while a worker starts, recovers, works. The pages come from a local site, which counts every
request. In the end every item of every batch must be there once, terminal, with the result of its page.

    python -m benchmarks crash
    python -m benchmarks.crash --kills 20 --only sqlite
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.harness import RESULTS, machine
from bulletproof import AIProcessingPipeline
from bulletproof.jobs import BatchJobs
from bulletproof.jobs.worker import run_until_told
from bulletproof.settings import Settings
from bulletproof.store import BatchStore, ResultStore
from tests.support.web import Site

KILLS = {"sqlite": 75, "postgresql": 130}
ITEMS = 2000
CONCURRENCY = 8
_LIMIT = 240.0  # seconds without progress


class Light(AIProcessingPipeline):
    """Real downloads and a real store, with reading and analysis that cost nothing: more kills in the same time."""

    async def extract_text(self, content: str) -> str:
        found = re.search(r"<title>(.*?)</title>", content)
        return found[1] if found else content

    async def analyze_sentiment(self, text: str) -> float:
        return int(text.rpartition(" ")[2]) % 1000 / 1000 if text.startswith("Report") else 0.0


def work(settings: dict[str, Any], log: str, light: bool) -> None:
    """Be a worker: what ``bulletproof worker`` runs, without what it imports for the service."""
    logging.basicConfig(filename=log, format="%(process)d %(asctime)s %(name)s %(levelname)s %(message)s")
    chosen = Settings(**settings)

    async def run() -> None:
        results = ResultStore(chosen.database_url and chosen.database_url.get_secret_value(), data_dir=chosen.data_dir)
        store = BatchStore(results.access)

        def make() -> AIProcessingPipeline:
            return Light(CONCURRENCY, allow_hosts=chosen.fetch_allow_hosts, store=store, settings=chosen)

        await run_until_told(BatchJobs(chosen, store=store, make_pipeline=make if light else None), drain_seconds=5)
        await results.aclose()

    asyncio.run(run())


class Workers:
    """So many workers, each started anew after it was killed; forked from a process that has all modules loaded."""

    def __init__(self, count: int, settings: dict[str, Any], log: Path, light: bool) -> None:
        self._arguments = (settings, str(log), light)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bulletproof.jobs.worker", "dbos", "bulletproof.processor", "aiohttp"])
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> Any:
        process = self._context.Process(target=work, args=self._arguments)
        process.start()
        return process

    def kill(self, number: int) -> None:
        """Kill one with SIGKILL and start another in its place."""
        self.processes[number].kill()
        self.processes[number].join()
        self.processes[number] = self._start()

    def stop(self) -> list[int | None]:
        """Tell all to stop; return their exit codes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(60)
        return [process.exitcode for process in self.processes]


async def check(jobs: BatchJobs, batch_id: str, urls: list[str], site: Site, light: bool) -> dict[str, Any]:
    """Look at every item of a batch; raises when one is missing, open, there twice or has a wrong result."""
    status = (await jobs.store.batch(batch_id)).status
    rows = [row async for row in jobs.store.stream_results(batch_id)]
    seen = Counter(row.url for row in rows)
    assert status == "complete", f"the batch is {status}"
    assert set(seen) == set(urls), f"{len(set(urls) - set(seen))} items are lost"
    assert set(seen.values()) == {1}, "items are there more than once"
    states = Counter(row.status for row in rows)
    assert set(states) <= {"success", "failed"}, f"items are not terminal: {states}"
    fetches: Counter[int] = Counter()
    for row in rows:
        path = urlsplit(row.url).path
        if path != "/status/404":
            assert row.status == "success", f"{row.url} failed: {row.error}"
            fetches[site.hits[path]] += 1
        if path.startswith("/page/"):
            assert row.result is not None
            page = path.rpartition("/")[2]
            right = row.result["score"] == int(page) % 1000 / 1000 if light else row.result["title"] == f"Report {page}"
            assert right, f"{row.url} has the result of another page"
    return {"items": len(rows), "by_status": dict(states), "fetches_per_item": dict(sorted(fetches.items()))}


async def campaign(
    kind: str, url: str | None, kills: int, rng: random.Random, folder: Path, light: bool
) -> dict[str, Any]:
    """Kill workers until there were enough kills, batch after batch."""
    data = folder / kind
    settings = Settings(data_dir=data, batch_concurrency=0)
    results = ResultStore(url, data_dir=data)
    jobs = BatchJobs(settings, store=BatchStore(results.access))
    chosen = {"data_dir": str(data), "fetch_allow_hosts": ("127.0.0.1",), "batch_concurrency": CONCURRENCY}
    chosen |= {"database_url": url} if url else {}
    done: list[dict[str, Any]] = []
    instants: list[dict[str, Any]] = []
    began = time.monotonic()
    with Site() as site:
        workers = Workers(1 if kind == "sqlite" else 3, chosen, folder / f"{kind}.log", light)
        pages = 0
        while len(instants) < kills:
            urls = [site.url(f"/page/{number}") for number in range(pages, pages + ITEMS - 20)]
            urls += [site.url(f"/status/404?n={number}") for number in range(pages, pages + 10)]
            urls += [site.url(f"/burst/{number}?fail=1") for number in range(pages, pages + 10)]
            pages += ITEMS
            batch = await jobs.submit(urls)
            started, number, latest = time.monotonic(), len(done), 0
            while not (await jobs.store.batch(batch.id)).finished_at:
                now_done = (await jobs.store.counts(batch.id)).done
                if now_done > latest:
                    started, latest = time.monotonic(), now_done
                assert time.monotonic() - started < _LIMIT, f"batch {batch.id} stands still at {latest}"
                if len(instants) >= kills:
                    await asyncio.sleep(0.5)
                    continue
                before, counted = site_total(site), (await jobs.store.counts(batch.id)).done
                # Every fourth at any moment of its start, the others after some work.
                if rng.random() < 0.25:
                    await asyncio.sleep(rng.uniform(0.0, 3.0))
                else:
                    waited = time.monotonic()
                    while (await jobs.store.counts(batch.id)).done == counted and time.monotonic() - waited < 60:
                        await asyncio.sleep(0.1)
                    await asyncio.sleep(rng.uniform(0.0, 2.0))
                if (await jobs.store.batch(batch.id)).finished_at:
                    break
                workers.kill(rng.randrange(len(workers.processes)))
                instants.append({"batch": number, "seconds": round(time.monotonic() - began, 3),
                                 "fetches": site_total(site) - before})  # fmt: skip
            done.append(await check(jobs, batch.id, urls, site, light))
            print(f"{kind}: {len(instants)} kills, {len(done)} batches, {sum(b['items'] for b in done):,} items; "
                  f"fetches per item {done[-1]['fetches_per_item']}", flush=True)  # fmt: skip
        codes = workers.stop()
    left = await jobs.tables.find(status=["PENDING", "ENQUEUED"])
    assert not left, f"{len(left)} jobs are left"
    jobs.tables.close()
    await results.aclose()
    fetches: Counter[str] = Counter()
    for one in done:
        fetches.update(one["fetches_per_item"])
    items = sum(one["items"] for one in done)
    return {
        "stages": "real download and store, light reading and analysis" if light else "all real",
        "kills": len(instants), "kills_while_it_worked": sum(1 for one in instants if one["fetches"]),
        "batches": len(done), "items": items, "lost": 0, "duplicate_results": 0, "not_terminal": 0,
        "by_status": dict(sum((Counter(one["by_status"]) for one in done), Counter())),
        "fetches_per_item": dict(sorted(fetches.items())), "exit_codes_when_told_to_stop": codes,
        "seconds": round(time.monotonic() - began, 1), "instants": instants,
    }  # fmt: skip


def site_total(site: Site) -> int:
    """How many requests the site has had."""
    return sum(site.hits.values())


def main() -> None:
    """Run the campaign, print what came of it and write it down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, help="of each kind; by default 75 and 130")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--light", action="store_true", help="with reading and analysis that cost nothing")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    path = RESULTS / "crash.json"
    for kind in ("sqlite", "postgresql") if given.only is None else (given.only,):
        with tempfile.TemporaryDirectory(prefix="bulletproof-crash-", ignore_cleanup_errors=True) as name:
            one = asyncio.run(run(kind, given.kills or KILLS[kind], random.Random(given.seed), Path(name), given.light))
        print(f"{kind}: {one['kills']} kills over {one['items']:,} items of {one['batches']} batches: "
              f"{one['lost']} lost, {one['duplicate_results']} duplicate results, {one['not_terminal']} not terminal; "
              f"fetches per item {one['fetches_per_item']}")  # fmt: skip
        if given.kills is None:
            kept = json.loads(path.read_text()) if path.exists() else {}
            kept |= {f"{kind}, light" if given.light else kind: {"seed": given.seed, **one}, "machine": machine()}
            path.write_text(json.dumps(kept, indent=1) + "\n")


async def run(kind: str, kills: int, rng: random.Random, folder: Path, light: bool) -> dict[str, Any]:
    """Run one of the two, PostgreSQL on a server of its own."""
    if kind == "sqlite":
        return await campaign(kind, None, kills, rng, folder, light)
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from tests.conftest import Postgres

    server = Postgres(folder / "postgres")
    server.start_first()
    try:
        return await campaign(kind, server.create_database(), kills, rng, folder, light)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
