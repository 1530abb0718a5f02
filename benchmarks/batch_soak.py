"""Half an hour of batches: memory, sockets and file handles of the service stay where they are.

Against a real service and a local site that misbehaves now and then: batches of five hundred pages, some of which are
missing, some broken off, some slow, some refused for a moment; a few batches are paused, cancelled and deleted. At the
end every batch is complete, every item has its outcome, and what the service holds has not grown.

    python -m benchmarks.batch_soak --minutes 30
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import RESULTS, machine
from benchmarks.serving import Server, ours, running
from tests.support.web import Site

MIB = 2**20
SIZE = 500
BAD = {
    "/status/404": "failed",
    "/status/403": "failed",
    "/png": "failed",
    "/short": "failed",
    "/bomb/gzip?mib=64": "failed",
    "/loop": "failed",
}


class Soak:
    """Submits batches, watches them end, and watches the service."""

    def __init__(self, server: Server, site: Site, minutes: float) -> None:
        self.server, self.site = server, site
        self.end = time.monotonic() + 60 * minutes
        self.began = time.monotonic()
        self.samples: list[dict[str, float]] = []
        self.outcomes: Counter[str] = Counter()
        self.batches: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self) -> None:
        """Go on until the time is over and the last batches are done."""
        address = f"http://127.0.0.1:{self.server.port}"
        async with httpx.AsyncClient(base_url=address, timeout=120) as client:
            watch = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._submit(client, random.Random(seed)) for seed in range(2)))
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            self.samples.append(await asyncio.to_thread(self._sample))
            await asyncio.sleep(5)

    def _sample(self) -> dict[str, float]:
        pids = [self.server.process.pid, *self.server.tree()]
        found = {"second": round(time.monotonic() - self.began, 1), "processes": len(set(pids))}
        main = Path(f"/proc/{self.server.process.pid}")
        found["memory_mb"] = round(int((main / "statm").read_text().split()[1]) * 4096 / MIB, 1)
        links = [str(link.readlink()) for link in (main / "fd").iterdir() if link.is_symlink()]
        return found | {"handles": len(links), "sockets": sum(link.startswith("socket:") for link in links)}

    async def _submit(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        while time.monotonic() < self.end:
            bad = {self.site.url(f"{path}{'&' if '?' in path else '?'}x={rng.random()}"): path for path in BAD}
            slow = [self.site.url(f"/page/{rng.randrange(10**6)}?delay=0.5") for _ in range(5)]
            bursts = [self.site.url(f"/burst/{rng.random()}?fail=1") for _ in range(5)]
            good = [self.site.url(f"/page/{rng.randrange(10**9)}") for _ in range(SIZE - len(bad) - 10)]
            urls = [*bad, *slow, *bursts, *good]
            rng.shuffle(urls)
            made = (await client.post("/batches", json={"urls": urls})).json()
            place, what = f"/batches/{made['batch_id']}", rng.random()
            if what < 0.1:
                await client.post(f"{place}/pause")
                await asyncio.sleep(2)
                await client.post(f"{place}/resume")
            elif what < 0.15:
                await client.post(f"{place}/cancel")
            report = await self._ended(client, place)
            self.batches[report["status"]] += 1
            if report["status"] == "complete":
                self.outcomes.update({"success": report["success"], "failed": report["failed"]})
                if report["failed"] != len(BAD) or report["success"] != made["total"] - len(BAD):
                    self.wrong.append(f"{place}: {report['success']} succeeded, {report['by_code']}")
            await client.delete(place)

    async def _ended(self, client: httpx.AsyncClient, place: str) -> dict[str, Any]:
        while True:
            report: dict[str, Any] = (await client.get(place)).json()
            if report["status"] in ("complete", "cancelled"):
                return report
            if time.monotonic() > self.end + 300:
                self.wrong.append(f"{place} does not end: {report['by_status']}")
                return report
            await asyncio.sleep(0.5)


def tell(soak: Soak, minutes: float) -> int:
    """Print what came of it, write it down, and return whether something was wrong."""
    part = max(1, len(soak.samples) // 5)
    flat = True
    figures: dict[str, dict[str, float]] = {}
    for name, slack in (("memory_mb", 25.0), ("handles", 20), ("sockets", 20), ("processes", 2)):
        values = [sample[name] for sample in soak.samples]
        early, late = statistics.median(values[part : 2 * part]), statistics.median(values[-part:])
        figures[name] = {"after_a_fifth": early, "at_the_end": late, "most": max(values)}
        flat &= late <= early * 1.05 + slack
        print(f"{name:<10} {figures[name]}")
    print(f"batches {dict(soak.batches)}, items {dict(soak.outcomes)}, not as planned: {soak.wrong or 'none'}")
    good = flat and not soak.wrong
    print("passed" if good else "FAILED")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "batch_soak.json").write_text(
        json.dumps(
            {
                "benchmark": "batch_soak", **machine(), "minutes": minutes, "passed": good, "figures": figures,
                "batches": dict(soak.batches), "items": dict(soak.outcomes), "wrong": soak.wrong,
                "samples": soak.samples[:: max(1, len(soak.samples) // 60)],
            },
            indent=1,
        )
        + "\n"
    )  # fmt: skip
    return 0 if good else 1


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, Site() as site:
        environment = {
            "BULLETPROOF_DATA_DIR": folder,
            "BULLETPROOF_LOG_LEVEL": "critical",
            "BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1",
        }
        with running("bulletproof", ours(), **environment) as server:
            soak = Soak(server, site, minutes)
            asyncio.run(soak.run())
    return tell(soak, minutes)


if __name__ == "__main__":
    sys.exit(main())
