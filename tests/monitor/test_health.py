"""How bad it is."""

from collections.abc import Callable
from typing import Any

import pytest

from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.health import MIN_OPERATIONS, PAIRS


def errors(
    monitor: AIErrorMonitor, number: int, severity: str = "high", service: str = "ml", kind: str = "model_error"
) -> None:
    for _ in range(number):
        monitor.record_error(kind, service, severity, "m")


def successes(monitor: AIErrorMonitor, number: int, service: str = "ml") -> None:
    for _ in range(number):
        monitor.record_success(service)


@pytest.mark.parametrize(
    ("severity", "number", "status"),
    [
        ("critical", 1, "degraded"),
        ("critical", 4, "degraded"),
        ("critical", 5, "critical"),
        ("high", 4, "healthy"),
        ("high", 5, "degraded"),
        ("high", 49, "degraded"),
        ("high", 50, "critical"),
        ("medium", 500, "healthy"),
        ("low", 500, "healthy"),
    ],
)
def test_without_a_denominator_the_last_five_minutes_count(
    monitor: AIErrorMonitor, time: Any, severity: str, number: int, status: str
) -> None:
    errors(monitor, number, severity)
    assert monitor.get_health_status() == status
    time.pass_(300)
    assert monitor.get_health_status() == status
    time.pass_(1)
    assert monitor.get_health_status() == "healthy"


def test_falling_back_to_counts_is_said(monitor: AIErrorMonitor) -> None:
    errors(monitor, 5, "critical")
    found = monitor.explain_health()
    assert found["status"] == "critical"
    assert found["basis"] == "counts"
    assert "ml: 5 critical errors in the last 5 minutes" in found["reasons"]
    assert any("no operations are reported" in reason for reason in found["reasons"])


def test_counts_are_added_up_over_services(monitor: AIErrorMonitor) -> None:
    errors(monitor, 3, "critical", "a")
    errors(monitor, 2, "critical", "b")
    assert monitor.get_health_status() == "critical"


def test_validation_errors_do_not_count_against_us(monitor: AIErrorMonitor) -> None:
    errors(monitor, 500, "critical", kind="validation_error")
    assert monitor.get_health_status() == "healthy"
    successes(monitor, 100)
    assert monitor.get_health_status() == "healthy"


@pytest.mark.parametrize(
    ("failed", "of", "status"),
    [
        (0, 1000, "healthy"),
        (10, 1000, "healthy"),
        (40, 1000, "degraded"),
        (70, 1000, "critical"),
        (200, 1000, "critical"),
        (999, 1000, "critical"),
    ],
)
def test_with_a_denominator_the_burning_of_the_budget_counts(
    monitor: AIErrorMonitor, failed: int, of: int, status: str
) -> None:
    successes(monitor, of - failed)
    errors(monitor, failed, "low")
    found = monitor.explain_health()
    assert found["status"] == status
    assert found["basis"] == "burn_rate"
    assert found["reasons"]


def test_a_critical_error_among_thousands_of_operations_is_within_the_budget(monitor: AIErrorMonitor) -> None:
    successes(monitor, 10_000)
    errors(monitor, 6, "critical")
    assert monitor.get_health_status() == "healthy"


def test_it_is_over_when_the_short_window_is_clean(monitor: AIErrorMonitor, time: Any) -> None:
    errors(monitor, 100)
    successes(monitor, 100)
    assert monitor.get_health_status() == "critical"
    for _ in range(35):
        time.pass_(minutes=1)
        successes(monitor, 50)
    found = monitor.explain_health()
    assert found["status"] == "degraded"
    assert {burn["short_hours"] for burn in found["burns"]} == {2}
    for _ in range(90):
        time.pass_(minutes=1)
        successes(monitor, 50)
    assert monitor.get_health_status() == "healthy"


def test_a_slow_burn_is_found_that_no_short_look_would_see(monitor: AIErrorMonitor, time: Any) -> None:
    for _ in range(6 * 60):
        successes(monitor, 92)
        errors(monitor, 8, "low")
        time.pass_(minutes=1)
    found = monitor.explain_health()
    assert found["status"] == "critical"
    assert [burn["long_hours"] for burn in found["burns"] if burn["status"] == "critical"] == [6]


def test_a_handful_of_operations_is_not_judged_by_its_share(monitor: AIErrorMonitor) -> None:
    successes(monitor, 1)
    errors(monitor, 3)
    found = monitor.explain_health()
    assert found["status"] == "healthy"
    assert found["basis"] == "counts"
    assert any(f"fewer than {MIN_OPERATIONS} operations" in reason for reason in found["reasons"])
    errors(monitor, 1, "critical")
    assert monitor.get_health_status() == "degraded"


def test_one_service_of_several_makes_it_degraded(monitor: AIErrorMonitor) -> None:
    successes(monitor, 10_000, "api")
    errors(monitor, 100, "low", "ml")
    successes(monitor, 10, "ml")
    found = monitor.explain_health()
    assert found["status"] == "degraded"
    assert any(reason.startswith("ml: 100 of 110 operations failed") for reason in found["reasons"])


def test_all_services_together_make_it_critical(monitor: AIErrorMonitor) -> None:
    for service in ("api", "ml"):
        successes(monitor, 50, service)
        errors(monitor, 50, "low", service)
    found = monitor.explain_health()
    assert found["status"] == "critical"
    assert found["reasons"][0].startswith("all services: 100 of 200 operations failed in the last 1 h")


def test_a_service_without_operations_is_judged_by_counts_beside_others(monitor: AIErrorMonitor) -> None:
    successes(monitor, 1000, "api")
    errors(monitor, 5, "critical", "disk")
    found = monitor.explain_health()
    assert found["status"] == "critical"
    assert found["basis"] == "burn_rate and counts"


def test_the_objective_sets_the_budget(make: Callable[..., AIErrorMonitor]) -> None:
    for objective, status in ((0.999, "critical"), (0.9, "healthy")):
        monitor = make(objective=objective)
        successes(monitor, 950)
        errors(monitor, 50, "low")
        assert monitor.get_health_status() == status


def test_the_pairs_are_those_of_the_workbook() -> None:
    assert [(pair.long, round(pair.short * 60), pair.burn) for pair in PAIRS] == [
        (1, 5, 14.4),
        (6, 30, 6),
        (24, 120, 3),
        (72, 360, 1),
    ]
