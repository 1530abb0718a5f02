"""What has just become worse."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.series import Series
from bulletproof.monitor.trending import trend_of


def steady(monitor: AIErrorMonitor, time: Any, minutes: int, per_minute: int = 1, message: str = "timed out") -> None:
    for _ in range(minutes):
        for _ in range(per_minute):
            time.pass_(60 / per_minute)
            monitor.record_error("external_service_error", "llm", "medium", message)


def test_a_steady_error_does_not_trend(monitor: AIErrorMonitor, time: Any) -> None:
    for _ in range(240):
        steady(monitor, time, 1)
        assert monitor.get_error_summary()["trending_errors"] == []


@pytest.mark.parametrize("offset", [0, 1, 17, 30, 59])
def test_a_threefold_step_is_found_within_six_minutes(monitor: AIErrorMonitor, time: Any, offset: int) -> None:
    time.pass_(offset)
    steady(monitor, time, 120, per_minute=1)
    steady(monitor, time, 6, per_minute=3)
    (row,) = monitor.get_error_summary()["trending_errors"]
    assert {"error_type", "service", "fingerprint", "recent", "baseline", "ratio"} <= set(row)
    assert (row["error_type"], row["service"]) == ("external_service_error", "llm")
    assert row["recent"] >= 18
    assert row["baseline"] == pytest.approx(6, abs=1)
    assert 2 <= row["ratio"] <= 3.5
    assert not row["new"]


def test_a_burst_shows_at_once(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 60)
    for _ in range(30):
        monitor.record_error("external_service_error", "llm", "medium", "timed out")
    assert monitor.get_error_summary()["trending_errors"][0]["recent"] >= 30


def test_asking_changes_nothing(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 60)
    steady(monitor, time, 6, per_minute=5)
    assert monitor.get_error_summary()["trending_errors"] == monitor.get_error_summary()["trending_errors"] != []


def test_an_alarm_stands_for_fifteen_minutes(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 120)
    begun = []
    for _ in range(25):
        steady(monitor, time, 1, per_minute=8)
        begun += [row["since"] for row in monitor.get_error_summary()["trending_errors"]]
    moments = sorted(set(begun))
    assert len(begun) >= 20
    assert len(moments) == 2
    assert moments[0][:16] == "2025-03-01T14:02"
    assert moments[1][:16] == "2025-03-01T14:17"


def test_fewer_than_five_do_not_trend(monitor: AIErrorMonitor, time: Any) -> None:
    time.pass_(hours=3)
    for _ in range(4):
        monitor.record_error("model_error", "ml", "high", "rare")
    assert monitor.get_error_summary()["trending_errors"] == []


def test_less_than_twice_the_usual_does_not_trend(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 60, per_minute=100)
    for _ in range(12):
        steady(monitor, time, 1, per_minute=180)
        assert monitor.get_error_summary()["trending_errors"] == []


def test_a_brand_new_error_trends_from_five_on(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 30)
    for number in range(5):
        assert all(row["service"] != "ml" for row in monitor.get_error_summary()["trending_errors"]), number
        monitor.record_error("model_error", "ml", "high", "never seen")
    (row,) = monitor.get_error_summary()["trending_errors"]
    assert row["new"]
    assert row["service"] == "ml"
    assert row["recent"] == 5
    assert row["ratio"] >= 2


def test_nothing_is_news_to_a_monitor_that_has_just_begun(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 5, per_minute=20)
    assert monitor.get_error_summary()["trending_errors"] == []


def test_the_worst_comes_first(monitor: AIErrorMonitor, time: Any) -> None:
    steady(monitor, time, 60)
    for message, number in (("some", 10), ("many", 40)):
        for _ in range(number):
            monitor.record_error("model_error", "ml", "high", message)
    assert [row["message"] for row in monitor.get_error_summary()["trending_errors"]] == ["many", "some"]


@pytest.mark.parametrize("rate", [0.05, 0.5, 2, 50])
def test_chance_alone_seldom_raises_an_alarm(rate: float) -> None:
    """A small part of what benchmarks/trending.py simulates."""
    rng = random.Random(7)
    alarms, days = 0, 10
    for _ in range(days):
        series, snoozed, first = Series(), 0.0, None
        at = 0.0
        due = rng.expovariate(rate) * 60
        for minute in range(1, 24 * 60 + 1):
            while due <= minute * 60:
                at = due
                first = at if first is None else first
                series.add(at, 1)
                due += rng.expovariate(rate) * 60
            now = minute * 60.0
            if first is not None and now >= snoozed and trend_of(series, at=now, born=0.0, first=first):
                alarms += 1
                snoozed = now + 15 * 60
    assert alarms / days <= 0.6


def test_what_other_processes_saw_is_part_of_the_test(make: Callable[..., AIErrorMonitor], time: Any) -> None:
    one, other = make(), make()
    one.start_sharing()
    steady(one, time, 60)
    for _ in range(30):
        one.record_error("external_service_error", "llm", "medium", "timed out")
    other.merge(one.take_unshared())
    (mine,), (theirs,) = one.get_error_summary()["trending_errors"], other.get_error_summary()["trending_errors"]
    assert {**mine, "baseline": 0} == {**theirs, "baseline": 0}
