"""Told to stop, restarted or killed: no request that was taken is lost, and none waits for ever."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import hostile
from support.shelf import shelve

TESTS = str(Path(__file__).parents[1])
HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ROW = b'{"input_data": [5.1, 3.5, 1.4, 0.2]}'


class Stream:
    """Clients that send one small request after another, each on a connection that it keeps."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self.seen: Counter[str] = Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(address,), daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _send(self, address: str) -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/predict", content=ROW, headers={"Content-Type": "application/json"})
                    self.seen[str(answer.status_code)] += 1
                except httpx.TransportError as error:
                    self.seen[type(error).__name__] += 1
                time.sleep(0.02)

    def end(self) -> Counter[str]:
        self._over.set()
        for thread in self._threads:
            thread.join(90)
        return self.seen


def workers_of(process: "subprocess.Popen[bytes]") -> set[int]:
    """Return the worker processes: all that were spawned, but for the first, which is the dashboard's."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == process.pid and b"spawn_main" in line:
                found.add(int(folder.name))
    return found - {min(found)}


def until(probe: Callable[[], bool], seconds: float = 90) -> None:
    limit = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < limit, "it did not come about in time"
        time.sleep(0.1)


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@pytest.fixture
def two(serve: Any) -> tuple[str, Any]:
    return serve(workers=2, BULLETPROOF_DRAIN_SECONDS="10"), serve


@pytest.mark.slow
def test_workers_are_replaced_one_by_one_without_an_error(two: tuple[str, Any]) -> None:
    address, serve = two
    parent = serve.processes[0]
    before = workers_of(parent)
    stream = Stream(address)
    time.sleep(0.5)
    parent.send_signal(signal.SIGHUP)
    until(lambda: len(workers_of(parent)) == 2 and workers_of(parent).isdisjoint(before))
    middle = workers_of(parent)
    # One that is told to stop is replaced too, and loses nothing either.
    os.kill(min(middle), signal.SIGTERM)
    until(lambda: len(workers_of(parent)) == 2 and workers_of(parent) != middle)
    time.sleep(0.5)
    assert set(stream.end()) == {"200"}, stream.seen


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_the_other_goes_on(two: tuple[str, Any]) -> None:
    address, serve = two
    before = workers_of(serve.processes[0])
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(workers_of(serve.processes[0])) == 2 and workers_of(serve.processes[0]) != before)
    for _ in range(5):
        assert httpx.post(f"{address}/predict", content=ROW, headers={"Content-Type": "application/json"}).is_success
    # Told to stop in the middle of a rolling restart, it stops.
    serve.processes[0].send_signal(signal.SIGHUP)
    time.sleep(1.0)
    serve.processes[0].send_signal(signal.SIGTERM)
    assert serve.processes[0].wait(40) in (0, -signal.SIGTERM)


def test_what_was_taken_is_answered_and_what_hangs_is_told_when_the_time_is_over(
    tmp_path: Path, serve_in: Callable[[Path], Any]
) -> None:
    shelve(tmp_path / "data", hostile.Hostile(), max_concurrent=4)
    server = serve_in(tmp_path)
    address = server(PYTHONPATH=TESTS, BULLETPROOF_DRAIN_SECONDS="3")
    process = server.processes[0]
    with concurrent.futures.ThreadPoolExecutor(4) as threads, connect(address) as idle, connect(address) as slow:
        file = {"file": ("t.json", json.dumps([f"text {row} is good" for row in range(500)]).encode())}
        upload = threads.submit(httpx.post, f"{address}/process", files=file, timeout=60)
        asked = {"input_data": [hostile.SLEEPS, 1], "model": "hostile"}
        sleeping = threads.submit(httpx.post, f"{address}/predict", json=asked, timeout=60)
        slow.sendall(HEAD % 100 + b'{"input_data"')  # and the rest never comes
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        # Its connection was there before: the request that was just on its way is answered, and is the last one.
        idle.sendall(HEAD % len(ROW) + ROW)
        last = read_all(idle)
        assert last.startswith(b"HTTP/1.1 200 "), last
        assert b"connection: close" in last.lower()
        assert sleeping.result().status_code == 200
        assert upload.result().status_code == 200
        began = time.monotonic()
        told = read_all(slow)
        assert told.startswith(b"HTTP/1.1 503 "), told
        assert b"retry-after" in told.lower()
        assert b'"code":"overloaded"' in told
        assert process.wait(20) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 15
    with pytest.raises(OSError, match="refused"):
        connect(address)
    server.stop()


def test_too_many_connections_are_told_so_and_silent_ones_do_not_stay(serve: Any) -> None:
    address = serve(BULLETPROOF_MAX_CONNECTIONS="5")
    silent = [connect(address) for _ in range(5)]
    try:
        time.sleep(0.3)
        with connect(address) as one_more:
            told = read_all(one_more)
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert json.loads(body)["code"] == "overloaded"
    finally:
        for connection in silent:
            connection.close()
    until(lambda: httpx.get(f"{address}/health/live").status_code == 200, 5)
