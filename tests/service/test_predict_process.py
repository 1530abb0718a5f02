"""A real service whose isolated model hangs, crashes and eats memory: every request is answered, the next one too."""

import concurrent.futures
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.models import OutputSchema
from support import hostile
from support.shelf import shelve

TESTS = str(Path(__file__).parents[1])
MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(folder: Path, serve_in: Callable[[Path], Any]) -> Iterator[httpx.Client]:
    shelve(folder / "data", hostile.Hostile(), isolated=True, max_concurrent=1, memory_bytes=200 * MIB)
    number = OutputSchema(kind="regression")
    shelve(folder / "data", hostile.WhoAmI(folder / "pid"), "whoami", isolated=True, max_concurrent=1, output=number)
    shelve(folder / "data", hostile.DiesOnLoad(), "deadly", isolated=True)
    server = serve_in(folder)
    with httpx.Client(base_url=server(PYTHONPATH=TESTS), timeout=60) as client:
        for model in ("hostile", "whoami"):
            assert ask(client, hostile.FINE, model=model).status_code == 200
        yield client
    server.stop()


def ask(client: httpx.Client, deed: float, *, model: str = "hostile", seconds: float | None = None) -> httpx.Response:
    headers = {} if seconds is None else {"X-Request-Timeout": str(seconds)}
    return client.post("/predict", json={"input_data": [deed, 1], "model": model}, headers=headers)


@pytest.mark.parametrize(
    ("deed", "seconds", "status", "code"),
    [
        (hostile.HANGS, 0.5, 504, "prediction_timeout"),
        (hostile.NATIVE, 0.5, 504, "prediction_timeout"),
        (hostile.SEGFAULTS, None, 503, "model_crashed"),
        (hostile.GROWS, None, 503, "out_of_memory"),
    ],
)
def test_a_model_that_dies_is_a_typed_answer_and_the_next_request_is_served(
    service: httpx.Client, deed: int, seconds: float | None, status: int, code: str
) -> None:
    failed = ask(service, deed, seconds=seconds)
    assert (failed.status_code, failed.json()["code"]) == (status, code), failed.text
    assert ("retry-after" in failed.headers) == (status == 503)
    started = time.monotonic()
    fine = ask(service, hostile.FINE)
    assert (fine.status_code, fine.json()["label"]) == (200, "positive")
    assert time.monotonic() - started < 10


def test_a_model_that_kills_whoever_loads_it_hinders_no_other(service: httpx.Client) -> None:
    found = ask(service, hostile.FINE, model="deadly")
    assert (found.status_code, found.json()["code"]) == (503, "model_load_failed")
    assert ask(service, hostile.FINE).status_code == 200


def test_the_work_of_a_client_that_hangs_up_is_ended(service: httpx.Client, folder: Path) -> None:
    body = b'{"input_data": [%d, 1], "model": "whoami"}' % hostile.HANGS
    with socket.create_connection((service.base_url.host, service.base_url.port or 80)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        time.sleep(0.5)
        worker = Path(f"/proc/{(folder / 'pid').read_text()}")
        assert worker.exists()
    started = time.monotonic()
    # It had the only place, and would have kept it for the ten seconds of the model's limit.
    assert ask(service, hostile.FINE, model="whoami").status_code == 200
    while worker.exists():
        assert time.monotonic() - started < 5
        time.sleep(0.01)
    counts = service.get("/metrics").json()["predictions"]["outcomes"]
    assert counts["cancelled"] == 1


def test_no_prediction_under_way_is_lost_when_the_service_is_told_to_stop(
    tmp_path: Path, serve_in: Callable[[Path], Any]
) -> None:
    shelve(tmp_path / "data", hostile.Hostile(), max_concurrent=4)
    server = serve_in(tmp_path)
    address = server(PYTHONPATH=TESTS)
    with httpx.Client(base_url=address, timeout=30) as client, concurrent.futures.ThreadPoolExecutor(12) as threads:
        assert ask(client, hostile.SLEEPS).status_code == 200
        asked = [threads.submit(ask, client, hostile.SLEEPS) for _ in range(12)]
        time.sleep(0.35)
        server.processes[0].send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in asked] == [200] * 12
    assert server.processes[0].wait(20) in (0, -signal.SIGTERM)
    server.stop()
