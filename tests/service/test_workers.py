"""Several worker processes, and a restart: what one of them saw, all report."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROUNDS = 8  # enough to reach both workers, which take turns as the system likes


def eventually(probe: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < limit, "it did not come about in time"
        time.sleep(0.25)


def ask(address: str, path: str, **options: Any) -> Any:
    """Ask with a connection of its own, so that any worker may answer."""
    return httpx.get(f"{address}{path}", verify=False, timeout=20, **options)


def all_agree(address: str, probe: Callable[[dict[str, Any]], bool], path: str = "/metrics") -> bool:
    return all(probe(ask(address, path).json()) for _ in range(ROUNDS))


def is_in(body: dict[str, Any], state: str) -> bool:
    return bool(body["breakers"]["database"]["state"] == state)


@pytest.mark.slow
def test_two_workers_report_as_one_and_remember_over_a_restart(serve: Any) -> None:
    address = serve(workers=2)
    for _ in range(10):
        bad = httpx.post(f"{address}/process", files={"file": ("t.json", b"[broken")})
        assert bad.status_code == 422
    httpx.post(f"{address}/process", files={"file": ("t.json", b'["good"]')})

    def seen(body: dict[str, Any]) -> bool:
        return bool(body["total_errors"] == 10 and body["files"] == {"invalid_json": 10, "success": 1})

    eventually(lambda: all_agree(address, seen))
    eventually(lambda: all_agree(address, lambda body: body["by_code"] == {"invalid_json": 10}))
    kind = ask(address, "/errors").json()["errors"][0]["fingerprint"]
    eventually(lambda: all_agree(address, lambda body: body["count"] == 10, f"/errors/{kind}"))
    for _ in range(ROUNDS):
        text = ask(address, "/metrics", headers={"Accept": "text/plain"}).text
        (count,) = re.findall(r"^bulletproof_errors_total{.*} (.*)$", text, re.MULTILINE)
        assert float(count) == 10
        assert 'bulletproof_breaker_state{breaker="database",state="closed"} 2.0' in text

    asked = {"X-Requested-With": "test"}
    httpx.post(f"{address}/breakers/database/force-open", headers=asked)
    eventually(lambda: all_agree(address, lambda body: is_in(body, "forced_open"), "/breakers"))
    httpx.post(f"{address}/breakers/database/enable", headers=asked)
    eventually(lambda: all_agree(address, lambda body: is_in(body, "closed"), "/breakers"))

    serve.stop()
    address = serve(workers=2)
    eventually(lambda: all_agree(address, lambda body: body["total_errors"] == 10 and not body["files"]))


def test_without_its_database_the_service_counts_alone_and_says_so_once(serve: Any, tmp_path: Any) -> None:
    log = tmp_path / "service.log"
    with log.open("wb") as output:
        address = serve(stderr=output, BULLETPROOF_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
        httpx.post(f"{address}/process", files={"file": ("t.json", b"[broken")})
        assert ask(address, "/metrics").json()["by_code"]["invalid_json"] == 1
        time.sleep(3)
        health = ask(address, "/health").json()
        assert health["status"] == "degraded"
        assert health["components"]["sharing"]["since"]
    assert log.read_text().count("error counts cannot be shared for now") == 1


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(serve: Any) -> None:
    serve(workers=2)
    parent = serve.processes.pop()
    family = children_of(parent.pid)
    assert len(family) >= 3
    parent.kill()
    parent.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


def children_of(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            number = int(stat.parent.name)
            found |= {number, *children_of(number)}
    return found
