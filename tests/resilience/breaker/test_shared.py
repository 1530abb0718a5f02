"""Processes learn of each other's circuits and gates; alone they go on."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState, Gate, Notice, SharedState

START = datetime(2030, 1, 1, tzinfo=UTC)


class MemoryStore:
    """The protocol as simply as it can be kept, which can be broken on purpose."""

    def __init__(self, now: Any) -> None:
        self.now = now
        self.rows: dict[tuple[str, str], Notice] = {}
        self.error: Exception | None = None
        self.hangs = False

    async def publish(self, notices: Sequence[Notice]) -> None:
        await self._trouble()
        for notice in notices:
            old = self.rows.get((notice.topic, notice.name))
            if old is None or notice.by_operator or not old.held:
                self.rows[notice.topic, notice.name] = notice

    async def fetch(self) -> Sequence[Notice]:
        await self._trouble()
        return [row for row in self.rows.values() if row.expires is None or row.expires > self.now()]

    async def _trouble(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


class Process:
    """One process with a breaker of the name that all have."""

    def __init__(self, store: Any, clock: Any, name: str) -> None:
        self.clock = clock
        self.shared = SharedState(store, now=self.now, source=name, patience=0.05)
        self.breaker = AIServiceCircuitBreaker("llm", clock=clock, now=self.now)
        self.shared.add(self.breaker)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.clock.time)

    def fail(self) -> None:
        for _ in range(5):
            self.breaker._record_failure(ConnectionError("boom"))

    @property
    def state(self) -> str:
        return self.breaker.state


@pytest.fixture
def store(clock: Any) -> MemoryStore:
    return MemoryStore(lambda: START + timedelta(seconds=clock.time))


@pytest.fixture
def two(store: MemoryStore, clock: Any) -> tuple[Process, Process]:
    return Process(store, clock, "one"), Process(store, clock, "two")


async def exchange(*processes: Process) -> None:
    for process in (*processes, *processes):
        await process.shared.exchange()


async def test_opening_and_closing_spread(two: Any, clock: Any) -> None:
    one, other = two
    clock.time = 10.0
    one.fail()
    clock.time = 11.0
    await exchange(one, other)
    assert other.state == "open"
    assert other.breaker.get_metrics()["retry_after"] == pytest.approx(59.0)
    assert other.breaker.get_metrics()["failures"] == 0
    clock.time = 70.0
    for _ in range(3):
        other.breaker.call_sync(int)
    assert (one.state, other.state) == ("open", "closed")
    await exchange(other, one)
    assert one.state == "closed"


async def test_what_came_from_elsewhere_is_not_sent_back(two: Any, store: MemoryStore) -> None:
    one, other = two
    one.fail()
    await exchange(one, other)
    assert [row.source for row in store.rows.values()] == ["one"]
    assert other.shared.status()["pending"] == 0


async def test_a_process_that_starts_later_learns_of_an_open_circuit(two: Any, store: MemoryStore, clock: Any) -> None:
    one, _ = two
    one.fail()
    await one.shared.exchange()
    clock.time = 20.0
    late = Process(store, clock, "late")
    await late.shared.exchange()
    assert late.state == "open"
    another = AIServiceCircuitBreaker("other", clock=clock, now=late.now)
    late.shared.add(another)
    assert another.state is CircuitState.CLOSED


async def test_old_news_is_no_news(two: Any, clock: Any) -> None:
    one, other = two
    one.fail()
    await one.shared.exchange()
    clock.time = 61.0
    await other.shared.exchange()
    assert other.state == "closed"


@pytest.mark.parametrize("how", ["force_open", "disable", "shadow"])
async def test_what_an_operator_decides_holds_everywhere_until_undone(two: Any, clock: Any, how: str) -> None:
    one, other = two
    getattr(one.breaker, how)()
    await exchange(one, other)
    assert other.state == one.state != "closed"
    clock.time = 100_000.0
    await exchange(one, other)
    assert other.state == one.state != "closed"
    other.breaker.reset()
    await exchange(other, one)
    assert one.state == other.state == "closed"


async def test_calls_elsewhere_do_not_undo_what_an_operator_decided(two: Any, store: MemoryStore) -> None:
    one, other = two
    one.breaker.force_open()
    other.fail()
    await exchange(one, other)
    assert (one.state, other.state) == ("forced_open", "forced_open")
    assert [row.state for row in store.rows.values()] == ["forced_open"]


async def test_half_open_is_everyones_own_affair(two: Any, clock: Any) -> None:
    one, other = two
    one.fail()
    await exchange(one, other)
    clock.time = 60.0
    one.breaker.call_sync(int)
    await exchange(one, other)
    assert (one.state, other.state) == ("half_open", "open")


async def test_gates_hold_everywhere(store: MemoryStore, clock: Any) -> None:
    one, other = Process(store, clock, "one"), Process(store, clock, "two")
    gates = [
        process.shared.add_gate(Gate("llm", on_hold=process.shared.hold, clock=clock, now=process.now))
        for process in (one, other)
    ]
    gates[0].hold(30)
    clock.time = 1.0
    await exchange(one, other)
    assert gates[1].remaining == pytest.approx(29.0)


@pytest.mark.parametrize("trouble", ["error", "hang"])
async def test_without_the_store_each_goes_on_alone_and_says_so_once(
    two: Any, store: MemoryStore, clock: Any, caplog: Any, trouble: str
) -> None:
    one, other = two
    assert one.shared.status()["reachable"] is None
    store.error, store.hangs = (OSError("unreachable"), False) if trouble == "error" else (None, True)
    with caplog.at_level(logging.INFO):
        one.fail()
        for _ in range(3):
            await one.shared.exchange()
    assert len(caplog.records) == 1
    assert "go on alone" in caplog.text
    status = one.shared.status()
    assert (status["reachable"], status["pending"], status["since"]) == (False, 1, START)
    assert status["error"]
    assert (one.state, other.state) == ("open", "closed")
    store.error, store.hangs = None, False
    with caplog.at_level(logging.INFO):
        await exchange(one, other)
    assert "again" in caplog.records[-1].message
    assert one.shared.status()["reachable"] is True
    assert other.state == "open"


async def test_a_name_is_shared_once(two: Any) -> None:
    one, _ = two
    assert one.shared.add(one.breaker) is one.breaker
    with pytest.raises(ValueError, match="another breaker named 'llm'"):
        one.shared.add(AIServiceCircuitBreaker("llm"))


async def test_the_task_spreads_within_a_second_and_no_call_waits() -> None:
    store = MemoryStore(lambda: datetime.now(UTC))
    config = CircuitConfig(failure_threshold=1)
    members = []
    for name in ("one", "two"):
        shared = SharedState(store, source=name, interval=0.05)
        breaker = shared.add(AIServiceCircuitBreaker("llm", config))
        shared.start()
        members.append((shared, breaker))
    (first, one), (second, other) = members
    try:
        with pytest.raises(RuntimeError, match="already"):
            first.start()
        await asyncio.sleep(0.02)
        one._record_failure(ConnectionError("boom"))
        started = time.monotonic()
        while other.state is not CircuitState.OPEN:
            await asyncio.sleep(0.005)
            assert time.monotonic() - started < 1
        with pytest.raises(CircuitOpenError):
            await other.call(asyncio.sleep, 0)
        store.hangs = True
        one.reset()
        assert await one.call(asyncio.sleep, 0, "at once") == "at once"
    finally:
        await first.aclose()
        await second.aclose()


async def test_what_happened_last_is_published_at_the_end() -> None:
    store = MemoryStore(lambda: datetime.now(UTC))
    shared = SharedState(store, interval=60)
    breaker = shared.add(AIServiceCircuitBreaker("llm"))
    shared.start()
    await asyncio.sleep(0)
    breaker.force_open()
    await shared.aclose()
    assert [row.state for row in store.rows.values()] == ["forced_open"]


def test_a_program_without_an_event_loop_uses_a_thread() -> None:
    store = MemoryStore(lambda: datetime.now(UTC))
    shared = SharedState(store, interval=0.02)
    breaker = shared.add(AIServiceCircuitBreaker("llm"))
    shared.start_thread()
    breaker.force_open()
    started = time.monotonic()
    while not store.rows:
        time.sleep(0.005)
        assert time.monotonic() - started < 2
    shared.stop_thread()
    assert shared.status()["reachable"] is True
