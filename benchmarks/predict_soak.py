"""Ten minutes of mixed traffic: good, bad, hanging, crashing, greedy requests, and clients that hang up.

Against a real service with the shipped model and an isolated one that does what its input says. At the end every
request has been answered as documented, memory is where it was, and no worker is lost.

    python -m benchmarks.predict_soak --minutes 10
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
import joblib

from benchmarks.harness import RESULTS, machine
from benchmarks.peers.serving_model import Moody
from benchmarks.predict import BAD, CLASSES, FOUR
from benchmarks.serving import Server, ours, running
from bulletproof.models import Limits, ModelRegistry

MIB = 2**20
GOOD = {"input_data": [5.1, 3.5, 1.4, 0.2]}
TENSOR = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}


def moody(deed: int) -> dict[str, Any]:
    """Return a request to the model that does what it is told."""
    return {"input_data": [deed, 0, 0, 0], "model": "moody"}


# What is sent, how often among a thousand, and the statuses that are right. A model that has just died may be busy
# starting again, and be too full to take more: 503.
KINDS: dict[str, tuple[int, set[int]]] = {
    "good": (500, {200}),
    "good batch": (100, {200}),
    "good, other protocol": (60, {200}),
    "good, isolated": (80, {200, 503, 504}),
    "bad": (200, {400, 404, 422}),
    "raises": (20, {500, 503, 504}),
    "hangs": (12, {503, 504}),
    "crashes": (12, {503, 504}),
    "takes all memory": (6, {503, 504}),
    "hangs up": (10, {0}),
}


class Soak:
    """Sends and counts."""

    def __init__(self, server: Server, minutes: float) -> None:
        self.server = server
        self.end = time.monotonic() + 60 * minutes
        self.outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.wrong: Counter[str] = Counter()
        self.memory: list[tuple[float, float, int]] = []

    async def run(self) -> None:
        """Send until the time is over."""
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        address = f"http://127.0.0.1:{self.server.port}"
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            await asyncio.gather(self._watch(), *(self._client(client, random.Random(seed)) for seed in range(12)))

    async def _watch(self) -> None:
        began = time.monotonic()
        while time.monotonic() < self.end:
            main = int(Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]) * 4096 / MIB
            tree = await asyncio.to_thread(self.server.tree)
            self.memory.append((round(time.monotonic() - began, 1), round(main, 1), len(tree)))
            await asyncio.sleep(2)

    async def _client(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
        while time.monotonic() < self.end:
            kind = rng.choices(kinds, weights)[0]
            status, code = await self._send(client, kind, rng)
            self.outcomes[kind][f"{status} {code}".strip()] += 1
            if status not in KINDS[kind][1]:
                self.wrong[f"{kind}: {status} {code}"] += 1
            await asyncio.sleep(rng.uniform(0, 0.02))

    async def _send(self, client: httpx.AsyncClient, kind: str, rng: random.Random) -> tuple[int, str]:
        deeds = {"good, isolated": 0, "hangs": 1, "crashes": 2, "takes all memory": 3, "raises": 4, "hangs up": 1}
        path, headers = "/predict", {"X-Request-Timeout": "3"} if kind in deeds else {}
        body: dict[str, Any] = moody(deeds[kind]) if kind in deeds else GOOD
        if kind == "good batch":
            body = {"input_data": [GOOD["input_data"]] * 100, "model_version": "v1.1"}
        elif kind == "good, other protocol":
            path, body = "/v2/models/iris/infer", {"inputs": [TENSOR]}
        content = rng.choice(list(BAD.values())) if kind == "bad" else json.dumps(body).encode()
        if kind == "hangs":
            headers = {"X-Request-Timeout": "0.5"}
        try:
            patience = 0.2 if kind == "hangs up" else 60
            response = await client.post(path, content=content, headers=headers, timeout=patience)
        except httpx.ReadTimeout:
            return (0, "hung up") if kind == "hangs up" else (-1, "no answer")
        except httpx.HTTPError as error:
            return -1, type(error).__name__
        found = response.json()
        if response.status_code != 200 and not {"code", "error_type", "details", "hint"} <= set(found):
            return -1, f"{response.status_code} untyped"
        if kind == "hangs up":  # refused before we could
            return 0, found["code"]
        return response.status_code, found.get("code", "")


def main() -> int:
    """Send, print and write ``benchmarks/results/predict_soak.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        joblib.dump(Moody(), folder / "moody.joblib")
        limits = Limits(memory_bytes=200 * MIB, max_concurrent=2, max_queued=32)
        ModelRegistry(folder / "models").add(
            "moody", "v1.0", folder / "moody.joblib", type="sklearn", input=FOUR, output=CLASSES, limits=limits,
            isolated=True,
        )  # fmt: skip
        environment = {"BULLETPROOF_DATA_DIR": name, "BULLETPROOF_LOG_LEVEL": "critical", "SLOW_MS": "0"}
        with running("bulletproof", ours(), **environment) as server:
            server.post(json.dumps(moody(0)))
            time.sleep(5)
            workers = len(server.tree())
            soak = Soak(server, minutes)
            asyncio.run(soak.run())
            time.sleep(5)
            after = [server.post(json.dumps(moody(0))).status_code for _ in range(10)]
            left = len(server.tree())
            seen = httpx.get(f"http://127.0.0.1:{server.port}/metrics").json()["predictions"]["outcomes"]
    return tell(soak, minutes, workers, left, after, seen)


def tell(soak: Soak, minutes: float, workers: int, left: int, after: list[int], seen: dict[str, int]) -> int:
    """Print what came of it, write it down, and return whether something was wrong."""
    main_mb = [mb for _, mb, _ in soak.memory]
    fifth = max(1, len(main_mb) // 5)
    parts = {"start": main_mb[:fifth], "middle": main_mb[2 * fifth : 3 * fifth], "end": main_mb[-fifth:]}
    memory = {part: round(statistics.median(values or main_mb), 1) for part, values in parts.items()}
    total = sum(sum(counts.values()) for counts in soak.outcomes.values())
    for kind, counts in soak.outcomes.items():
        print(f"{kind:<22}{sum(counts.values()):>8}   {dict(counts.most_common())}")
    print(f"{total} requests in {minutes:g} minutes; not as documented: {dict(soak.wrong) or 'none'}")
    print(f"memory of the service in MB: {memory}; its processes: {workers} before, {left} after; then {after}")
    flat = memory["end"] <= memory["middle"] * 1.05 + 10
    good = not soak.wrong and flat and left >= workers and after == [200] * 10
    print("passed" if good else "FAILED")
    RESULTS.mkdir(exist_ok=True)
    figures = {
        "benchmark": "predict_soak", **machine(), "minutes": minutes, "requests": total, "passed": good,
        "outcomes": {kind: dict(counts) for kind, counts in soak.outcomes.items()}, "wrong": dict(soak.wrong),
        "memory_mb": memory, "processes": [workers, left], "counted_by_the_service": seen,
        "samples": soak.memory[:: max(1, len(soak.memory) // 60)],
    }  # fmt: skip
    (RESULTS / "predict_soak.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
