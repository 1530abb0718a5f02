"""Workers restarted one by one, and stopped, under load: how many requests that costs.

``bulletproof serve --workers 2`` answers predictions and files without a pause while it gets SIGHUP, and SIGTERM to one
worker, again and again; clients keep their connections. Every answer that is not 200 is an error.

    python -m benchmarks.rolling           # --restarts 3 for a look
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import RESULTS, machine
from benchmarks.overload import PLANS
from benchmarks.serving import BODY, Server, ours, running

_LIMIT = 180.0


class Clients:
    """Send requests without a pause until told to stop."""

    def __init__(self, port: int) -> None:
        self.seen: dict[str, Counter[str]] = {"/predict": Counter(), "/process": Counter()}
        self.slowest = 0.0
        self._over = threading.Event()
        kinds = ["/predict"] * 4 + ["/process"] * 2
        self._threads = [threading.Thread(target=self._send, args=(port, kind), daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def _send(self, port: int, path: str) -> None:
        body = BODY if path == "/predict" else PLANS[path]["body"]
        headers = {"Content-Type": "application/json", **PLANS[path].get("headers", {})}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            while not self._over.wait(0.01):
                began = time.monotonic()
                try:
                    self.seen[path][str(client.post(path, content=body).status_code)] += 1
                except httpx.TransportError as error:
                    self.seen[path][type(error).__name__] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)

    def end(self) -> None:
        """Stop them."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def workers(server: Server) -> set[int]:
    """Return the ids of the workers: what listens at the port, but for the parent."""
    return {pid for pid in server.tree() if pid != server.process.pid and _listens(pid, server.port)}


def _listens(pid: int, port: int) -> bool:
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    nodes = {f"socket:[{one[9]}]" for one in sockets if one[1].endswith(f":{port:04X}") and one[3] == "0A"}
    try:
        return any(str(file.readlink()) in nodes for file in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def wait(server: Server, is_done: Any) -> None:
    """Wait until the workers are as they should be."""
    limit = time.monotonic() + _LIMIT
    while not is_done(workers(server)):
        if time.monotonic() > limit:
            raise RuntimeError(f"the workers are {workers(server)}")
        time.sleep(0.1)


def main() -> None:
    """Restart, print what it cost and write ``benchmarks/results/rolling.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=10)
    restarts = parser.parse_args().restarts
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        command = [*ours(), "--workers", "2"]
        with running("bulletproof", command, BULLETPROOF_DATA_DIR=name, BULLETPROOF_LOG_LEVEL="warning") as server:
            wait(server, lambda found: len(found) == 2)
            clients = Clients(server.port)
            for number in range(restarts):
                before = workers(server)
                server.process.send_signal(signal.SIGHUP)
                wait(server, lambda found, before=before: len(found) == 2 and found.isdisjoint(before))
                middle = workers(server)
                os.kill(min(middle), signal.SIGTERM)
                wait(server, lambda found, middle=middle: len(found) == 2 and found != middle)
                print(f"{number + 1}: { ({path: dict(seen) for path, seen in clients.seen.items()}) }", flush=True)
            clients.end()
    answers = {path: dict(seen) for path, seen in clients.seen.items()}
    figures = {
        "benchmark": "rolling", **machine(), "workers": 2, "rolling_restarts": restarts, "workers_stopped": restarts,
        "requests": sum(sum(seen.values()) for seen in answers.values()), "answers": answers,
        "errors": sum(count for seen in answers.values() for kind, count in seen.items() if kind != "200"),
        "slowest_answer": round(clients.slowest, 2), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(figures, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rolling.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
