import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.service import create_app
from bulletproof.service.quota import Meter
from bulletproof.settings import Settings
from support.wire import fine, judge, wire

__all__ = ["fine", "judge", "wire"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_upload_bytes=12 * 2**20)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Any]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: Any, client_of: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
def client_of() -> Callable[..., httpx.AsyncClient]:
    """Make a client of an app in this process, as if it came from the given peer."""

    def make(app: Any, *, peer: str = "127.0.0.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(peer, 50000))
        return httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60)

    return make


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serve:
    """Starts ``bulletproof serve`` as a process of its own and returns its address."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, *, workers: int = 1, stderr: Any = None, **environment: str) -> str:
        command = [sys.executable, "-m", "bulletproof", "serve", "--port", str(self._port), "--workers", str(workers)]
        variables = {"PATH": "/usr/bin:/bin", "BULLETPROOF_DATA_DIR": str(self._folder / "data"), **environment}
        self.processes.append(subprocess.Popen(command, env=variables, cwd=self._folder, stderr=stderr))
        address = f"http://127.0.0.1:{self._port}"
        for _ in range(400):
            try:
                if httpx.get(f"{address}/health/ready").status_code == 200:
                    return address
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the service did not start in twenty seconds")

    def stop(self) -> None:
        """End all that were started and wait for it."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        self.processes.clear()


@pytest.fixture(scope="session")
def serve_in() -> Callable[[Path], Serve]:
    """Like ``serve``, in a folder and for as long as the test likes."""

    def make(folder: Path) -> Serve:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return Serve(folder, int(probe.getsockname()[1]))

    return make


@pytest.fixture
def serve(tmp_path: Path, free_port: int) -> Iterator[Serve]:
    """Start ``bulletproof serve`` as a process of its own and return its address; ``stop()`` ends it."""
    serve = Serve(tmp_path, free_port)
    yield serve
    serve.stop()


@pytest.fixture
def mid_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meters stand in the middle of this minute: none begins while requests are counted."""
    moment = time.time() // 60 * 60 + 30
    monkeypatch.setitem(Meter.__init__.__kwdefaults__ or {}, "now", lambda: moment)
