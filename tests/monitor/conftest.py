"""A monitor whose time is in the hands of the test."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof.monitor import AIErrorMonitor


class Time:
    """A monotonic clock and a calendar that stand still until they are moved."""

    def __init__(self) -> None:
        self.seconds = 50_000.0
        self.moment = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.moment

    def pass_(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0) -> None:
        passed = seconds + 60 * minutes + 3600 * hours
        self.seconds += passed
        self.moment += timedelta(seconds=passed)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(time: Time) -> Callable[..., AIErrorMonitor]:
    def make(retention_hours: float = 24, **options: Any) -> AIErrorMonitor:
        return AIErrorMonitor(retention_hours, clock=time.clock, now=time.now, **options)

    return make


@pytest.fixture
def monitor(make: Callable[..., AIErrorMonitor]) -> AIErrorMonitor:
    return make()
