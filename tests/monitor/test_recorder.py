"""Exact counts, bounded memory, whatever comes."""

import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.tally import OTHER, Problems


def test_counts_are_exact_under_threads() -> None:
    monitor = AIErrorMonitor()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    total, threads = 3000, 8
    stop = threading.Event()

    def record(number: int) -> None:
        for turn in range(total):
            monitor.record_error("model_error", f"svc{number % 3}", "high", f"message {turn % 7}", turn=turn % 5)
            monitor.record_success("svc0")

    def look() -> None:
        while not stop.is_set():
            monitor.get_error_summary()
            monitor.cleanup_old_errors()
            monitor.recent(10)

    try:
        workers = [threading.Thread(target=record, args=(number,)) for number in range(threads)]
        reader = threading.Thread(target=look)
        for thread in (*workers, reader):
            thread.start()
        for thread in workers:
            thread.join()
        stop.set()
        reader.join()
    finally:
        sys.setswitchinterval(switch)
    summary = monitor.get_error_summary()
    assert summary["total_errors"] == total * threads
    assert summary["by_service"] == {"svc0": 3 * total, "svc1": 3 * total, "svc2": 2 * total}
    assert sum(row["count"] for row in summary["top_errors"]) == total * threads
    assert monitor._operations["svc0"].ok.kept == total * threads


def test_any_number_of_names_is_counted_in_a_bounded_number_of_rows(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(5000):
        monitor.record_error(f"type{number}", f"service{number}", "high", f"m{number}", code=f"code{number}")
        time.pass_(0.01)
    summary = monitor.get_error_summary()
    assert summary["total_errors"] == 5000
    for key in ("by_type", "by_service", "by_code"):
        assert len(summary[key]) <= 201
        assert summary[key][OTHER] > 0
        assert sum(summary[key].values()) == 5000


def test_what_no_longer_comes_makes_room_for_what_is_new(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(300):
        monitor.record_error("model_error", f"old{number}", "high", "m")
    time.pass_(hours=25)
    monitor.record_error("model_error", "new", "high", "m")
    assert monitor.get_error_summary()["by_service"] == {"new": 1}


def test_an_error_known_before_it_was_forgotten_is_counted_and_shown_anew(monitor: AIErrorMonitor, time: Any) -> None:
    for _ in range(3):
        monitor.record_error("model_error", "ml", "high", "m")
        monitor.cleanup_old_errors()
        time.pass_(hours=30)
    monitor.record_error("model_error", "ml", "high", "m")
    (row,) = monitor.get_error_summary(24)["top_errors"]
    assert row["count"] == 1
    assert row["first_seen"] == row["last_seen"] == time.now().isoformat()


STORM = 4000


def words(number: int) -> str:
    """A text of letters alone, another one for each number."""
    return "".join(chr(97 + int(digit)) for digit in str(number))


def test_a_frequent_error_is_found_among_any_number_of_rare_ones(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(20_000):
        monitor.record_error("model_error", "ml", "low", f"rare {words(number)}")
        if number % 20 == 0:
            monitor.record_error("model_error", "ml", "high", "frequent")
        time.pass_(0.006)
    summary = monitor.get_error_summary()
    top = summary["top_errors"][0]
    assert top["message"] == "frequent"
    assert 0.9 * 1000 <= top["count"] <= 1000
    assert summary["total_errors"] == 21_000
    assert len(monitor._problems) <= Problems.SIZE
    assert summary["unlisted_errors"] > 0


def test_a_storm_of_new_messages_is_counted_without_being_read(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(STORM):
        monitor.record_error("model_error", "ml", "high", f"never seen {words(number)}")
    summary = monitor.get_error_summary()
    assert summary["by_service"] == {"ml": STORM}
    assert summary["unlisted_errors"] >= 1000
    time.pass_(1)
    monitor.record_error("model_error", "ml", "high", "read again")
    assert monitor.recent(1)[0].message == "read again"


def test_a_storm_that_differs_in_numbers_alone_is_one_kind(monitor: AIErrorMonitor) -> None:
    for number in range(STORM + 5000):
        monitor.record_error("model_error", "ml", "high", f"timed out after {number} ms")
    summary = monitor.get_error_summary()
    assert [row["count"] for row in summary["top_errors"]] == [STORM + 5000]
    assert summary["unlisted_errors"] == 0


def test_an_error_with_a_strange_context_is_counted_in_a_storm_too(monitor: AIErrorMonitor) -> None:
    for number in range(STORM):
        monitor.record_error("model_error", "ml", "high", "m", deep={"number": number})
    assert monitor.get_error_summary()["top_errors"][0]["count"] == STORM
    assert len(monitor.recent(10_000)) == 1000


def test_the_number_of_samples_is_limited(make: Callable[..., AIErrorMonitor]) -> None:
    monitor = make(samples=10)
    for number in range(100):
        monitor.record_error("model_error", "ml", "high", f"number {number}")
    assert [event.message for event in monitor.recent(100)] == [f"number {number}" for number in range(99, 89, -1)]


def test_memory_stays_bounded_under_hostile_load(monitor: AIErrorMonitor, time: Any) -> None:
    def storm(first: int) -> None:
        for number in range(first, first + 1500):
            monitor.record_error(
                f"t{number}",
                f"s{number}",
                "high",
                f"{words(number)} " * 200,
                code=f"c{number}",
                a={"b": ["x" * 999] * 99},
            )
            monitor.observe(f"s{number}", ok=True)
            time.pass_(0.005)

    storm(0)
    tracemalloc.start()
    try:
        storm(1500)
        storm(3000)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What replaced the first storm; had it been kept, it would be more than 100 MB.
    assert grown < 30_000_000


def test_recording_inside_recording_does_not_hang(monitor: AIErrorMonitor) -> None:
    class NestedError(Exception):
        def __str__(self) -> str:
            monitor.record_error("model_error", "inner", "high", "m")
            monitor.get_error_summary()
            return "outer"

    monitor.record_error("model_error", "outer", "high", NestedError())  # type: ignore[arg-type]
    assert monitor.get_error_summary()["by_service"] == {"inner": 1, "outer": 1}


def test_months_are_kept_by_the_hour(make: Callable[..., AIErrorMonitor], time: Any) -> None:
    monitor = make(24 * 30)
    for _ in range(24 * 40):
        monitor.record_error("model_error", "ml", "high", "m")
        time.pass_(minutes=30)
        monitor.record_error("model_error", "ml", "high", "m")
        time.pass_(minutes=30)
    assert monitor.get_error_summary(24 * 30)["total_errors"] == pytest.approx(24 * 30 * 2, abs=2)
    assert monitor.get_error_summary(24)["total_errors"] == 48
    (cell,) = monitor._cells
    assert len(cell.series._last) <= 24 * 30 + 60


class MonitorMachine(RuleBasedStateMachine):
    """The monitor against a list of everything that was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0
        self.moment = datetime(2025, 1, 1, tzinfo=UTC)
        self.monitor = AIErrorMonitor(3, clock=lambda: self.seconds, now=lambda: self.moment)
        self.recorded: list[tuple[float, str, str, str]] = []
        self.cleaned = 0

    @rule(
        error_type=st.sampled_from(["model_error", "validation_error"]),
        service=st.sampled_from(["a", "b"]),
        severity=st.sampled_from(["low", "high", "critical"]),
        number=st.integers(1, 30),
    )
    def record(self, error_type: str, service: str, severity: str, number: int) -> None:
        for turn in range(number):
            self.monitor.record_error(error_type, service, severity, f"{service} {turn}")
            self.recorded.append((self.seconds, error_type, service, severity))

    @rule(seconds=st.one_of(st.floats(0, 200), st.floats(0, 3 * 3600)))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    @rule(hours=st.floats(-50, 50))
    def set_the_calendar(self, hours: float) -> None:
        self.moment += timedelta(hours=hours)

    @rule()
    def clean_up(self) -> None:
        self.cleaned += self.monitor.cleanup_old_errors()
        old = sum(at < self.seconds - 3 * 3600 - 60 for at, *_ in self.recorded)
        certainly = sum(at < self.seconds - 3 * 3600 for at, *_ in self.recorded)
        assert old <= self.cleaned <= certainly

    @rule(hours=st.sampled_from([0.1, 0.5, 1, 2.5]))
    def look(self, hours: float) -> None:
        summary = self.monitor.get_error_summary(hours)
        start = self.seconds - hours * 3600
        inside = [event for event in self.recorded if event[0] >= start]
        nearly = [event for event in self.recorded if event[0] // 60 >= start // 60]
        assert len(inside) <= summary["total_errors"] <= len(nearly)
        for place, key in ((1, "by_type"), (2, "by_service"), (3, "by_severity")):
            assert sum(summary[key].values()) == summary["total_errors"]
            for name, number in Counter(event[place] for event in inside).items():
                assert summary[key][name] >= number
        assert sum(row["total"] for row in self.monitor.timeline(hours)) >= len(inside)

    @invariant()
    def health_is_one_of_three(self) -> None:
        assert self.monitor.get_health_status() in ("healthy", "degraded", "critical")


TestMonitorMachine = MonitorMachine.TestCase
TestMonitorMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
