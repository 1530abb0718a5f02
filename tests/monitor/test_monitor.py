"""What the collector answers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof.errors import InvalidFileError
from bulletproof.monitor import AIErrorMonitor, default_monitor, record_exception

SEED_KEYS = {"total_errors", "by_service", "by_severity", "by_type", "error_rate", "trending_errors"}


def test_empty_summary_has_the_keys_with_nothing_in_them(monitor: AIErrorMonitor) -> None:
    summary = monitor.get_error_summary()
    assert {key: summary[key] for key in SEED_KEYS} == {
        "total_errors": 0,
        "by_service": {},
        "by_severity": {},
        "by_type": {},
        "error_rate": 0.0,
        "trending_errors": [],
    }
    assert summary["failure_ratio"] is None
    assert summary["by_code"] == {}
    assert summary["top_errors"] == []


def test_record_error_returns_nothing_and_is_counted_by_each_name(monitor: AIErrorMonitor) -> None:
    assert monitor.record_error("model_error", "ml_service", "high", "no weights", model_path="/m.onnx") is None
    monitor.record_error("validation_error", "api", "medium", "not a number", code="not_numeric")
    monitor.record_error("validation_error", "api", "low", "not a number", code="not_numeric")
    summary = monitor.get_error_summary()
    assert summary["total_errors"] == 3
    assert summary["by_service"] == {"api": 2, "ml_service": 1}
    assert summary["by_severity"] == {"high": 1, "medium": 1, "low": 1}
    assert summary["by_type"] == {"validation_error": 2, "model_error": 1}
    assert summary["by_code"] == {"not_numeric": 2}


def test_all_arguments_may_be_given_by_name(monitor: AIErrorMonitor) -> None:
    monitor.record_error(error_type="model_error", service="ml", severity="high", message="m", self="me")
    assert monitor.recent(1)[0].context == {"self": "me"}


@pytest.mark.parametrize("hours", [1, 2, 0.5, 24])
def test_error_rate_is_errors_a_minute_over_the_window(monitor: AIErrorMonitor, hours: float) -> None:
    for _ in range(30):
        monitor.record_error("model_error", "ml", "low", "m")
    assert monitor.get_error_summary(hours)["error_rate"] == pytest.approx(30 / (60 * hours))


@pytest.mark.parametrize("hours", [0, -1, float("nan"), True])
def test_a_window_that_makes_no_sense_is_refused(monitor: AIErrorMonitor, hours: float) -> None:
    for ask in (monitor.get_error_summary, monitor.timeline):
        with pytest.raises(ValueError, match="hours must be a positive number"):
            ask(hours)


def test_a_window_longer_than_the_retention_is_all_of_it(make: Callable[..., AIErrorMonitor], time: Any) -> None:
    monitor = make(2)
    monitor.record_error("model_error", "ml", "low", "m")
    time.pass_(hours=1.5)
    summary = monitor.get_error_summary(hours=48)
    assert (summary["hours"], summary["total_errors"], summary["error_rate"]) == (2, 1, 1 / 120)


@pytest.mark.parametrize("options", [{"retention_hours": 0}, {"retention_hours": -1}, {"objective": 1}, {"samples": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AIErrorMonitor(**options)


def test_an_error_leaves_the_window_when_it_is_older(monitor: AIErrorMonitor, time: Any) -> None:
    monitor.record_error("model_error", "ml", "high", "m")
    time.pass_(3600)
    assert monitor.get_error_summary(1)["total_errors"] == 1
    time.pass_(1)
    assert monitor.get_error_summary(1)["total_errors"] == 0
    assert monitor.get_error_summary(2)["total_errors"] == 1


def test_cleanup_returns_how_many_it_dropped(monitor: AIErrorMonitor, time: Any) -> None:
    for _ in range(3):
        monitor.record_error("model_error", "ml", "high", "old")
    time.pass_(hours=23)
    monitor.record_error("model_error", "ml", "high", "young")
    assert monitor.cleanup_old_errors() == 0
    time.pass_(hours=1, seconds=1)
    assert monitor.cleanup_old_errors() == 3
    assert monitor.cleanup_old_errors() == 0
    assert monitor.get_error_summary(24)["total_errors"] == 1


def test_what_was_dropped_on_the_way_is_in_the_number(monitor: AIErrorMonitor, time: Any) -> None:
    monitor.record_error("model_error", "ml", "high", "old")
    time.pass_(hours=30)
    monitor.record_error("model_error", "ml", "high", "young")
    assert monitor.get_error_summary(24)["total_errors"] == 1
    assert monitor.cleanup_old_errors() == 1


@pytest.mark.parametrize("step", [timedelta(hours=30), timedelta(hours=-30), timedelta(days=400)])
def test_setting_the_time_of_the_machine_loses_and_doubles_nothing(
    monitor: AIErrorMonitor, time: Any, step: timedelta
) -> None:
    for _ in range(10):
        monitor.record_error("model_error", "ml", "high", "m")
        time.pass_(30)
    time.moment += step
    for _ in range(10):
        monitor.record_error("model_error", "ml", "high", "m")
        time.pass_(30)
    assert monitor.get_error_summary(1)["total_errors"] == 20
    assert sum(row["total"] for row in monitor.timeline(1)) == 20
    assert monitor.cleanup_old_errors() == 0


@pytest.mark.parametrize("severity", ["catastrophic", "", "5", "warning"])
def test_an_unknown_severity_counts_as_medium(monitor: AIErrorMonitor, severity: str) -> None:
    monitor.record_error("model_error", "ml", severity, "m")
    assert monitor.get_error_summary()["by_severity"] == {"medium": 1}
    assert monitor.recent()[0].severity == "medium"


def test_recent_gives_events_the_newest_first(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(5):
        monitor.record_error("model_error", "ml", "high", f"number {number}", number=number)
        time.pass_(1)
    events = monitor.recent(3)
    assert [event.message for event in events] == ["number 4", "number 3", "number 2"]
    assert [event.context["number"] for event in events] == [4, 3, 2]
    assert events[0].timestamp == datetime(2025, 3, 1, 12, 0, 4, tzinfo=UTC)
    assert len({event.fingerprint for event in events}) == 1
    assert events[0].as_dict()["timestamp"] == "2025-03-01T12:00:04+00:00"


def test_recent_can_be_narrowed_to_a_kind_or_a_service(monitor: AIErrorMonitor) -> None:
    monitor.record_error("model_error", "ml", "high", "one")
    monitor.record_error("model_error", "api", "high", "two")
    assert [event.message for event in monitor.recent(service="api")] == ["two"]
    kind = monitor.recent(service="ml")[0].fingerprint
    assert [event.message for event in monitor.recent(fingerprint=kind)] == ["one"]
    assert monitor.recent(0) == []


def test_top_errors_tell_since_when_and_how_often(monitor: AIErrorMonitor, time: Any) -> None:
    for number in range(7):
        monitor.record_error("external_service_error", "llm", "medium", f"timed out after {number} s", code="x")
        time.pass_(minutes=1)
    monitor.record_error("model_error", "ml", "high", "no weights")
    first, second = monitor.get_error_summary()["top_errors"]
    assert first["count"] == 7
    assert first["first_seen"] == "2025-03-01T12:00:00+00:00"
    assert first["last_seen"] == "2025-03-01T12:06:00+00:00"
    assert (first["service"], first["error_type"], first["code"]) == ("llm", "external_service_error", "x")
    assert first["template"] == "timed out after <num> s"
    assert first["message"] == "timed out after 6 s"
    assert second["count"] == 1


def test_timeline_has_each_error_in_its_minute(monitor: AIErrorMonitor, time: Any) -> None:
    time.seconds = 60_000.0
    monitor.record_error("model_error", "ml", "high", "m")
    time.pass_(minutes=10)
    monitor.record_error("model_error", "ml", "high", "m")
    monitor.record_error("validation_error", "api", "low", "m")
    line = monitor.timeline(1)
    assert len(line) == 60
    assert [row["total"] for row in line[-11:]] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert line[-1]["by_type"] == {"model_error": 1, "validation_error": 1}
    assert line[-1]["start"] == "2025-03-01T12:10:00+00:00"
    assert {row["seconds"] for row in line} == {60}


def test_the_first_step_of_a_timeline_holds_all_that_the_window_does(monitor: AIErrorMonitor, time: Any) -> None:
    time.seconds = 60_010.0
    monitor.record_error("model_error", "ml", "high", "m")
    time.pass_(3600 - 5)
    assert monitor.get_error_summary(1)["total_errors"] == 1
    assert [row["total"] for row in monitor.timeline(1)] == [1] + [0] * 59


@pytest.mark.parametrize("hours", [0.01, 1, 2, 24, 30, 72, 24 * 30])
def test_timeline_is_short_enough_for_a_chart_and_misses_nothing(
    make: Callable[..., AIErrorMonitor], time: Any, hours: float
) -> None:
    monitor = make(24 * 30)
    for _ in range(8):
        monitor.record_error("model_error", "ml", "high", "m")
        time.pass_(hours=hours / 10)
    line = monitor.timeline(hours)
    assert 1 <= len(line) <= 120
    assert sum(row["total"] for row in line) == 8


def test_failure_ratio_is_the_failed_share_of_all_operations(monitor: AIErrorMonitor) -> None:
    for _ in range(90):
        monitor.record_success("api", duration=0.5)
    for _ in range(10):
        monitor.record_error("model_error", "api", "high", "m")
    summary = monitor.get_error_summary()
    assert summary["failure_ratio"] == pytest.approx(0.1)
    assert summary["operations"] == {"api": {"total": 100, "failed": 10, "mean_duration": 0.5}}


def test_an_observed_failure_and_its_error_are_one_failure(monitor: AIErrorMonitor) -> None:
    for number in range(10):
        monitor.observe("api", ok=number >= 4)
        if number < 4:
            monitor.record_error("model_error", "api", "high", "m")
    assert monitor.get_error_summary()["failure_ratio"] == pytest.approx(0.4)


def test_validation_errors_are_operations_that_did_not_fail(monitor: AIErrorMonitor) -> None:
    for _ in range(5):
        monitor.record_success("api")
        monitor.record_error("validation_error", "api", "low", "m")
    assert monitor.get_error_summary()["failure_ratio"] == 0


def test_record_exception_classifies_once_and_records(monitor: AIErrorMonitor) -> None:
    diagnosis = monitor.record_exception(InvalidFileError("broken", code="invalid_json", line=3), "api", file="a.json")
    event = monitor.recent()[0]
    assert diagnosis.code == "invalid_json"
    assert (event.error_type, event.severity) == ("validation_error", "low")
    assert event.message == "broken (line 3)"
    assert event.context["code"] == "invalid_json"
    assert event.context["file"] == "a.json"
    assert monitor.get_error_summary()["by_code"] == {"invalid_json": 1}


def test_the_default_monitor_is_one_for_the_process() -> None:
    before = default_monitor().get_error_summary()["total_errors"]
    record_exception(TimeoutError("late"), "llm")
    assert default_monitor().get_error_summary()["total_errors"] == before + 1
