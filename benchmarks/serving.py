"""The servers that ``benchmarks/predict.py`` measures, each a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
SERVING = ROOT / ".venv" / "serving" / "bin" / "python"
MODEL = ROOT / "src" / "bulletproof" / "models" / "bundled" / "iris" / "v1.0" / "model.onnx"
BODY = '{"input_data": [5.1, 3.5, 1.4, 0.2], "model_version": "v1.0"}'
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A server that runs.

    Args:
        name: What it is.
        port: Where it listens.
        process: Its main process.
        body: A good request.
        headers: What a request needs besides.
    """

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    body: str = BODY
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, body: str | bytes, *, timeout: float = 30, **headers: str) -> httpx.Response:
        """Send one request."""
        return httpx.post(
            f"http://127.0.0.1:{self.port}/predict",
            content=body,
            headers={"Content-Type": "application/json", **self.headers, **headers},
            timeout=timeout,
        )

    def load(self, **plan: Any) -> dict[str, Any]:
        """Put load on it; see ``benchmarks/load.py``."""
        plan = {"port": self.port, "path": "/predict", "body": self.body, "headers": self.headers, **plan}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", json.dumps(plan)], cwd=ROOT, capture_output=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def memory_mb(self) -> float:
        """Return the resident memory of all its processes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.tree())
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self.tree()) / _TICKS

    def tree(self) -> list[int]:
        """Return the ids of all its processes."""
        parents: dict[int, list[int]] = {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                try:
                    parents.setdefault(int(_stat(int(path.name))[1]), []).append(int(path.name))
                except (OSError, IndexError):
                    continue
        found = [self.process.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _share_as_we(pid: int) -> None:
    """Have `nice` hold for a session of its own, which Linux otherwise gives the same share as any other."""
    for place in ("self", str(pid)):
        with suppress(OSError):
            Path(f"/proc/{place}/autogroup").write_text(str(os.nice(0)))


@contextmanager
def running(
    name: str, command: list[str], body: str = BODY, *, cores: set[int] | None = None, **environment: str
) -> Iterator[Server]:
    """Run a server until the block ends, on those cores if given; ``{port}`` in the command becomes its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.format(port=port) for part in command]
    variables = os.environ | {"MODEL": str(MODEL), "PYTHONPATH": f"{PEERS}:{ROOT}", **environment}
    key = environment.get("BULLETPROOF_API_KEYS")
    process = subprocess.Popen(
        command, env=variables, cwd=PEERS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    if cores:
        os.sched_setaffinity(process.pid, cores)  # before it has threads or children, which have the same
    _share_as_we(process.pid)
    server = Server(name, port, process, body, {"X-API-Key": key} if key else {})
    try:
        for _ in range(240):
            try:
                if server.post(body).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}")
            time.sleep(0.25)
        else:
            raise RuntimeError(f"{name} did not answer within a minute")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def ours() -> list[str]:
    """Return the command that starts this project's service."""
    return [sys.executable, "-m", "bulletproof", "serve", "--port", "{port}"]


def bare(*more: str) -> list[str]:
    """Return the command that starts FastAPI alone."""
    return [sys.executable, "-m", "uvicorn", "serving_fastapi:app", "--port", "{port}", *more]


def litserve() -> list[str]:
    """Return the command that starts LitServe."""
    return [str(SERVING), "serving_litserve.py", "{port}"]


def bentoml() -> list[str]:
    """Return the command that starts BentoML."""
    return [str(SERVING), "-m", "bentoml", "serve", "serving_bentoml:Iris", "--port", "{port}", "--host", "127.0.0.1"]
