"""A clock that only moves when somebody waits."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest


class FakeTime:
    """Clock, wall clock and sleep in one; remembers the waits."""

    def __init__(self) -> None:
        self.at = 0.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)

    @property
    def handles(self) -> dict[str, Any]:
        return {"clock": self.clock, "now": self.now, "sleep": self.sleep}


class Script:
    """A function, plain and async, that raises or returns what it was told, in order; the last for ever."""

    def __init__(self, outcomes: Iterable[Any]) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    @property
    def runs(self) -> int:
        return len(self.calls)

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        outcome = self.outcomes[min(len(self.calls), len(self.outcomes)) - 1]
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def coroutine(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain(*args, **kwargs)


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def script() -> Callable[..., Script]:
    return lambda *outcomes: Script(outcomes)
