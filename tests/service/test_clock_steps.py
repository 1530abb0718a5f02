"""The wall clock is set while the service runs: nothing is lost, doubled, or held for longer than was said."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bulletproof.jobs.chunk import _seconds_left
from bulletproof.jobs.lease import leases_of
from bulletproof.monitor import AIErrorMonitor
from bulletproof.pipeline import ProcessingItem
from bulletproof.pipeline.rows import RowKey
from bulletproof.processor import AIDataProcessor
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Gate, Notice, SharedState
from bulletproof.service.quota import Limit, Meter
from bulletproof.settings import Settings
from bulletproof.store import ItemRow, ResultStore

STEPS = [timedelta(days=400), timedelta(hours=2), timedelta(seconds=-30), timedelta(hours=-2), timedelta(days=-400)]


class Wall:
    """A wall clock that is set as the test says; the monotonic one beside it only goes on."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
        self.monotonic = 1000.0

    def now(self) -> datetime:
        return self.moment

    def clock(self) -> float:
        return self.monotonic

    def seconds(self) -> float:
        return self.moment.timestamp()

    def go_on(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.monotonic += seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_the_monitor_counts_each_error_once(wall: Wall, step: timedelta) -> None:
    monitor = AIErrorMonitor(clock=wall.clock, now=wall.now)
    for _ in range(3):
        monitor.record_error("resource_error", "api", "high", "before")
    wall.moment += step
    for _ in range(4):
        monitor.record_error("resource_error", "api", "high", "after")
    wall.go_on(60)
    assert monitor.get_error_summary(hours=1)["total_errors"] == 7
    assert monitor.get_health_status() == "degraded"
    wall.go_on(3 * 3600)
    assert monitor.get_error_summary(hours=1)["total_errors"] == 0
    assert monitor.get_error_summary(hours=24)["total_errors"] == 7


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_circuit_stays_open_for_its_time(wall: Wall, step: timedelta) -> None:
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(timeout=60), clock=wall.clock, now=wall.now)
    for _ in range(5):
        breaker._record_failure(ConnectionError("down"))
    wall.moment += step
    wall.go_on(59)
    assert not breaker._should_attempt_call()
    wall.go_on(2)
    assert breaker._should_attempt_call()


class Shelf:
    """Keeps the notices of all processes."""

    def __init__(self) -> None:
        self.notices: dict[tuple[str, str], Notice] = {}

    async def publish(self, notices: Sequence[Notice]) -> None:
        self.notices |= {(notice.topic, notice.name): notice for notice in notices}

    async def fetch(self) -> Sequence[Notice]:
        return list(self.notices.values())


@pytest.mark.parametrize("step", [step for step in STEPS if step < timedelta()], ids=str)
async def test_a_circuit_and_a_gate_of_another_process_hold_no_longer_than_was_said(
    wall: Wall, step: timedelta
) -> None:
    shelf = Shelf()
    one, two = (SharedState(shelf, now=wall.now, source=source) for source in ("one", "two"))
    config = CircuitConfig(timeout=60)
    there, here = (AIServiceCircuitBreaker("llm", config, clock=wall.clock, now=wall.now) for _ in range(2))
    one.add(there)
    two.add(here)
    gates = [Gate("llm", clock=wall.clock, now=wall.now, on_hold=shared.hold) for shared in (one, two)]
    one.add_gate(gates[0])
    two.add_gate(gates[1])
    for _ in range(5):
        there._record_failure(ConnectionError("down"))
    gates[0].hold(60)
    await one.exchange()
    wall.moment += step
    await two.exchange()
    assert not here._should_attempt_call()
    assert gates[1].remaining <= 60
    wall.go_on(61)
    assert here._should_attempt_call()
    assert gates[1].remaining == 0


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_quotas_go_on_being_counted(wall: Wall, step: timedelta) -> None:
    limit = Limit("requests", 5, 60)
    meter = Meter([limit], now=wall.seconds)
    for _ in range(5):
        meter.admit("alice")
    wall.moment += step
    used = meter.used("alice", limit)
    assert 0 <= used <= 5
    while meter.used("alice", limit) + 1 <= 5:
        meter.admit("alice")
    with pytest.raises(Exception, match="used up") as caught:
        meter.admit("alice")
    assert 0 < caught.value.retry_after <= 120  # type: ignore[attr-defined]
    wall.go_on(120)
    meter.admit("alice")


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_a_run_under_way_is_stored_whole_or_not_at_all_and_always_answered(
    wall: Wall, step: timedelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, analysis_workers=0)
    store = ResultStore(data_dir=tmp_path, now=wall.now)
    texts = b"\n".join(b'{"text": "number %d"}' % number for number in range(3000))
    add, chunks = store.add_chunk, 0

    async def add_chunk(*arguments: Any) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 2:
            wall.moment += step
            other = ResultStore(data_dir=tmp_path, now=wall.now)  # a process that starts now, and sweeps
            await other.open()
            await other.aclose()
        await add(*arguments)

    monkeypatch.setattr(store, "add_chunk", add_chunk)
    async with AIDataProcessor(settings=settings, store=store) as processor:
        answer = await processor.process_file(texts)
        assert chunks > 1
        assert (answer["status"], answer["records"]["analyzed"]) == ("success", 3000)
        assert answer["stored"] is (step < timedelta(hours=1))
        run = await store.get_run(answer["processing_id"])
        assert (run is not None) is answer["stored"]
        if run is not None:
            assert len(await store.get_results(answer["processing_id"], limit=5000)) == 3000


@pytest.mark.parametrize("back", [0, 3600, 400 * 86_400])
def test_an_item_that_waits_for_another_try_waits_no_longer_than_was_said(back: int) -> None:
    saved = datetime.now(UTC) + timedelta(seconds=back)  # as the clock stood before it was set back
    row = ItemRow(position=0, url="http://example.com/", updated_at=saved, not_before=saved + timedelta(seconds=30))
    assert 29 < _seconds_left(ProcessingItem(row.url, key=RowKey("batch", row))) <= 30


async def test_a_lease_is_a_lock_and_knows_no_time(tmp_path: Path) -> None:
    store = ResultStore(data_dir=tmp_path)
    one, two = leases_of(store.access.address), leases_of(store.access.address)
    assert await one.take("0")
    for file in (tmp_path / "executors").iterdir():
        os.utime(file, (0, 0))  # as old as can be
    assert not await two.take("0")
    await one.free("0")
    assert await two.take("0")
    await two.free("0")
