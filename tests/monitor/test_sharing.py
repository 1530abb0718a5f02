"""What one process saw, all report, and a restart forgets nothing."""

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.monitor import AIErrorMonitor, ErrorBatch, MonitorSharing
from bulletproof.monitor.rows import ErrorKey, ErrorRow, Rows


class Shelf:
    """A store that keeps its promise; it can be away, and it can lose the answer to a write."""

    def __init__(self) -> None:
        self.batches: dict[tuple[str, int], ErrorBatch] = {}
        self.away = False
        self.answers = True
        self.writes = 0

    async def save_errors(self, batch: ErrorBatch) -> None:
        if self.away:
            raise ConnectionError("the store is away")
        self.batches[batch.source, batch.sequence] = batch
        self.writes += 1
        if not self.answers:
            raise ConnectionError("the answer was lost")

    async def load_errors(self, after: Mapping[str, int], since: datetime) -> Sequence[ErrorBatch]:
        if self.away:
            raise ConnectionError("the store is away")
        wanted = [b for b in self.batches.values() if b.until >= since and b.sequence >= after.get(b.source, 0)]
        return sorted(wanted, key=lambda batch: (batch.source, batch.sequence))

    async def forget_errors(self, before: datetime) -> None:
        self.batches = {key: batch for key, batch in self.batches.items() if batch.until >= before}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def start(make: Callable[..., AIErrorMonitor], shelf: Shelf, time: Any) -> Callable[[], MonitorSharing]:
    def start() -> MonitorSharing:
        return MonitorSharing(make(), shelf, clock=time.clock, now=time.now)

    return start


def total(sharing: MonitorSharing, hours: float = 24) -> int:
    return int(sharing._monitor.get_error_summary(hours)["total_errors"])


async def test_what_one_saw_all_report(start: Callable[[], MonitorSharing], time: Any) -> None:
    one, other = start(), start()
    one._monitor.record_error("model_error", "ml", "critical", "no weights", code="x", path="/m", password="p")
    for _ in range(30):
        one._monitor.record_success("api")
    other._monitor.record_error("model_error", "ml", "high", "no weights", code="x")
    await one.exchange()
    await other.exchange()
    await one.exchange()
    for sharing in (one, other):
        summary = sharing._monitor.get_error_summary()
        assert summary["total_errors"] == 2
        assert summary["by_severity"] == {"critical": 1, "high": 1}
        assert summary["by_code"] == {"x": 2}
        assert summary["operations"]["api"]["total"] == 30
        assert [row["count"] for row in summary["top_errors"]] == [2]
        assert sharing._monitor.get_health_status() == "degraded"
    assert other._monitor.recent(1, service="ml")
    shared = next(event for event in other._monitor.recent() if event.severity == "critical")
    assert shared.context["password"] == "***"
    assert shared.timestamp == time.now()


async def test_a_restart_forgets_nothing_up_to_the_retention(start: Callable[[], MonitorSharing], time: Any) -> None:
    old = start()
    for _ in range(30):
        old._monitor.record_error("model_error", "ml", "high", "m")
        await old.exchange()
        time.pass_(hours=1)
    new = start()
    assert total(new) == 0
    await new.exchange()
    assert total(new) == 24
    assert total(new, 12.5) == 12
    assert new._monitor.get_error_summary(24)["top_errors"][0]["count"] == 24


async def test_a_batch_that_grows_counts_once(start: Callable[[], MonitorSharing], shelf: Shelf, time: Any) -> None:
    one, other = start(), start()
    for expected in range(1, 41):  # at first within one tick of the clock
        one._monitor.record_error("model_error", "ml", "high", "m")
        await one.exchange()
        await other.exchange()
        await other.exchange()
        assert total(other) == total(one) == expected
        time.pass_(5 if expected > 3 else 0)
    assert len(shelf.batches) <= 5


async def test_nothing_new_is_not_written(start: Callable[[], MonitorSharing], shelf: Shelf, time: Any) -> None:
    one = start()
    one._monitor.record_error("model_error", "ml", "high", "m")
    for _ in range(50):
        await one.exchange()
        time.pass_(2)
    assert shelf.writes == 1


async def test_what_was_counted_while_the_store_was_away_is_handed_over(
    start: Callable[[], MonitorSharing], shelf: Shelf, time: Any
) -> None:
    one, other = start(), start()
    shelf.away = True
    for _ in range(100):
        one._monitor.record_error("model_error", "ml", "high", "m")
        with pytest.raises(ConnectionError):
            await one.exchange()
        time.pass_(60)
    shelf.away = False
    await one.exchange()
    await other.exchange()
    assert total(other) == total(one) == 100
    assert total(other, 0.5) == total(one, 0.5) == 30


async def test_a_write_whose_answer_was_lost_counts_once(start: Callable[[], MonitorSharing], shelf: Shelf) -> None:
    one, other = start(), start()
    one._monitor.record_error("model_error", "ml", "high", "m")
    shelf.answers = False
    with pytest.raises(ConnectionError):
        await one.exchange()
    await other.exchange()
    shelf.answers = True
    await one.exchange()
    await other.exchange()
    assert total(other) == total(one) == 1


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_happens_all_agree_in_the_end(rng: random.Random) -> None:
    asyncio.run(_whatever_happens(rng))


async def _whatever_happens(rng: random.Random) -> None:
    seconds, moment = [0.0], [datetime.fromisoformat("2025-01-01T00:00:00+00:00")]
    shelf, recorded = Shelf(), 0
    clocks: dict[str, Any] = {"clock": lambda: seconds[0], "now": lambda: moment[0]}
    team = [MonitorSharing(AIErrorMonitor(**clocks), shelf, **clocks) for _ in range(3)]
    for _ in range(60):
        for _ in range(rng.randrange(4)):
            rng.choice(team)._monitor.record_error(
                "model_error", rng.choice("ab"), "high", rng.choice(["m", "n 1", "n 2"])
            )
            recorded += 1
        shelf.away, shelf.answers = rng.random() < 0.2, rng.random() < 0.8
        with contextlib.suppress(ConnectionError):
            await rng.choice(team).exchange()
        passed = rng.choice([0, 1, 40, 90])
        seconds[0] += passed
        moment[0] += timedelta(seconds=passed)
    shelf.away, shelf.answers = False, True
    for _ in range(2):
        for sharing in team:
            await sharing.exchange()
    late = MonitorSharing(AIErrorMonitor(**clocks), shelf, **clocks)
    await late.exchange()
    for sharing in (*team, late):
        summary = sharing._monitor.get_error_summary(24)
        assert summary["total_errors"] == recorded
        assert sum(row["count"] for row in summary["top_errors"]) == recorded


async def test_old_batches_are_deleted(start: Callable[[], MonitorSharing], shelf: Shelf, time: Any) -> None:
    one = start()
    one._monitor.record_error("model_error", "ml", "high", "m")
    await one.exchange()
    time.pass_(hours=25)
    await one.exchange()
    assert shelf.batches == {}


async def test_a_damaged_batch_is_left_out_with_one_warning(
    start: Callable[[], MonitorSharing], shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = start(), start()
    one._monitor.record_error("model_error", "ml", "high", "m")
    await one.exchange()
    ((key, batch),) = shelf.batches.items()
    damaged = ("", "{}", "[]", "null", '{"version": 9}', '{"version": 1, "errors": [[1]], "operations": []}')
    for number, payload in enumerate(damaged, 1):
        shelf.batches[key] = replace(batch, payload=payload, until=batch.until + timedelta(seconds=number))
        caplog.clear()
        await other.exchange()
        await other.exchange()
        assert len(caplog.records) == 1, payload
    assert total(other) == 0


async def test_the_clock_of_another_machine_may_be_wrong(start: Callable[[], MonitorSharing], time: Any) -> None:
    one, other = start(), start()
    time.moment += timedelta(hours=2)
    one._monitor.record_error("model_error", "ml", "high", "m")
    await one.exchange()
    time.moment -= timedelta(hours=2)
    await other.exchange()
    assert total(other, 0.1) == 1


async def test_a_store_that_is_away_is_reported_once_and_never_stops_the_exchange(
    make: Callable[..., AIErrorMonitor], shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bulletproof.monitor")
    one, other = (MonitorSharing(make(), shelf, interval=0.001) for _ in range(2))
    tasks = [asyncio.create_task(sharing.run()) for sharing in (one, other)]
    shelf.away = True
    one._monitor.record_error("model_error", "ml", "high", "m")
    await asyncio.sleep(0.05)
    assert len(caplog.records) == 2
    shelf.away = False
    async with asyncio.timeout(5):
        while total(other) != 1:
            await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sum("shared again" in record.message for record in caplog.records) == 2


def test_rows_stay_bounded_and_lose_no_count() -> None:
    rows = Rows()
    for number in range(20_000):
        key = ErrorKey(number // 100, "model_error", "ml", "high", "", f"message {number}")
        rows.add_error(key, ErrorRow(1, number * 0.6, "m", {"text": "x" * 300}))
        rows.add_operations(number, "api", 1, 0)
    assert sum(row.number for row in rows.errors.values()) == 20_000
    assert len(rows.errors) < 5100
    assert sum(ok for ok, _ in rows.operations.values()) == 20_000
    assert len(rows.operations) < 5400
    assert len(rows.to_json()) < 1_000_000
    again = Rows.from_json(rows.to_json())
    assert again.errors == rows.errors
    assert not again.beyond(rows)
    assert json.loads(rows.to_json())["version"] == 1
