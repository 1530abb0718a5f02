"""Kept calls and those who run them: threads, breakers and processes, never two for the same call."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bulletproof.jobs import KeptCalls
from bulletproof.resilience import (
    AIServiceCircuitBreaker,
    Backoff,
    CircuitConfig,
)
from bulletproof.store.access import StoreAccess
from bulletproof.store.address import Address
from support import kept_process
from support.kept_calls import Service, Wall, fails, protected


def test_plain_functions_are_kept_and_run_without_an_event_loop(place: Address) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, backoff=Backoff(base=0.1))
    ran = threading.Event()
    up = False

    @kept.keep(name="plain")
    def plain(text: str, *, times: int) -> str:
        if not up:
            raise ConnectionError("down")
        if threading.current_thread() is not threading.main_thread():
            ran.set()
        return text * times

    with pytest.raises(ConnectionError) as caught:
        plain("x", times=3)
    assert caught.value.kept_id  # type: ignore[attr-defined]
    up = True
    assert plain("x", times=3) == "xxx"
    kept.start_thread()
    assert ran.wait(20)
    kept.stop_thread()


async def test_when_the_breaker_closes_everything_is_run_at_once(place: Address, until: Any) -> None:
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=1, success_threshold=1, timeout=3600))
    kept = KeptCalls(StoreAccess(place), poll=60, backoff=Backoff(base=3600, cap=None, jitter="none"))
    done = []
    up = False

    async def ask(number: int) -> None:
        if not up:
            raise ConnectionError("down")
        done.append(number)

    @kept.keep(name="ask", breaker=breaker, rate=1000)
    async def work(number: int) -> None:
        await breaker.call(ask, number)

    async with kept:
        for number in range(4):
            await fails(work, number)
        assert [call.code for call in await kept.store.calls()] == ["service_unavailable", *["circuit_open"] * 3]
        up = True
        await asyncio.sleep(0.05)
        assert done == []
        breaker.reset()
        await until(lambda: len(done) == 4)
        assert done == [0, 1, 2, 3]
    await kept.store.access.aclose()


async def test_while_the_breaker_refuses_no_attempt_is_spent(alone: KeptCalls, service: Service, wall: Wall) -> None:
    breaker = AIServiceCircuitBreaker("llm")
    await fails(protected(alone, service, breaker=breaker), 1)
    breaker.force_open()
    wall.forward(100)
    assert await alone.run_due() == 0
    breaker.reset()
    service.error = None
    assert await alone.run_due() == 1


async def test_a_fresh_process_runs_what_another_one_kept(kept_of: Any, service: Service, wall: Wall) -> None:
    before = kept_of()
    await fails(protected(before, service), 1)
    await before.store.access.aclose()
    service.error = None
    after = kept_of()
    assert await after.run_due() == 0  # it does not know the function
    protected(after, service)
    wall.forward(5)
    assert await after.run_due() == 1
    assert service.done == [1]


async def test_closing_hands_back_what_is_under_way(place: Address, until: Any) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, backoff=Backoff(base=0))
    begun = asyncio.Event()
    up = False

    @kept.keep(name="long")
    async def long() -> None:
        if not up:
            raise ConnectionError("down")
        begun.set()
        await asyncio.sleep(60)

    await fails(long)
    up = True
    async with kept:
        await asyncio.wait_for(begun.wait(), 20)
        assert [call.state for call in await kept.store.calls()] == ["running"]
    assert [(call.state, call.attempts) for call in await kept.store.calls()] == [("waiting", 1)]
    await kept.store.access.aclose()


async def test_a_call_that_lost_its_claim_is_stopped_before_another_process_runs_it(place: Address) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, lease=0.4, backoff=Backoff(base=0))
    begun, stopped = asyncio.Event(), asyncio.Event()
    up = False

    @kept.keep(name="long")
    async def long() -> None:
        if not up:
            raise ConnectionError("down")
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    error = await fails(long)
    up = True
    async with kept:
        await asyncio.wait_for(begun.wait(), 20)
        await kept.store.drop(error.kept_id)
        await asyncio.wait_for(stopped.wait(), 20)
    await kept.store.access.aclose()


@pytest.fixture
def runners(place: Address, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that run kept calls of ``work``; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, kept_process.__file__, str(tmp_path / "data"), str(tmp_path / "log"), str(seconds)]
        process = subprocess.Popen([*command, *([place.dsn] if place.dsn else [])], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def log_of(folder: Path) -> list[list[str]]:
    path = folder / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def keep_some(place: Address, count: int) -> KeptCalls:
    kept = KeptCalls(StoreAccess(place), backoff=Backoff(base=0))

    @kept.keep(name="work")
    async def work(number: int) -> None:
        raise ConnectionError("down")

    for number in range(count):
        await fails(work, number)
    return kept


async def test_several_processes_run_each_call_once_in_order_and_never_two_at_a_time(
    place: Address, runners: Any, tmp_path: Path, until: Any
) -> None:
    kept = await keep_some(place, 12)
    for _ in range(3):
        runners(0.02)

    async def empty() -> bool:
        return await kept.store.calls() == []

    await until(empty)
    log = log_of(tmp_path)
    assert [[what, number] for _, what, number in log] == [
        [what, str(number)] for number in range(12) for what in ("begin", "end")
    ]
    await kept.store.access.aclose()


async def test_a_process_that_is_killed_loses_its_claim_and_another_one_runs_the_call(
    place: Address, runners: Any, tmp_path: Path, until: Any
) -> None:
    kept = await keep_some(place, 1)
    first = runners(60)
    await until(lambda: log_of(tmp_path))
    second = runners(0.01)
    await asyncio.sleep(1.5)  # longer than the lease: the first one is alive and holds on
    assert log_of(tmp_path) == [[str(first.pid), "begin", "0"]]
    first.kill()
    await until(lambda: [str(second.pid), "end", "0"] in log_of(tmp_path))

    async def counts() -> Any:
        return (await kept.store.counts())["work"]["done"] == 1

    await until(counts)
    await kept.store.access.aclose()
