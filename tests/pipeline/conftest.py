"""A pipeline whose stages do as a script says, on a clock that jumps instead of waiting."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof import AIErrorMonitor, AIProcessingPipeline, ProcessingItem
from bulletproof.settings import Settings

STAGES = ("download", "extract", "analyze", "store")


class Time:
    """Seconds that pass only when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)
        self.seconds += seconds


class Scripted(AIProcessingPipeline):
    """Raises what ``script`` holds for a URL and a stage, one error a call, and works from then on.

    An error that is alone, outside of a list, is raised every time.
    """

    def __init__(self, script: dict[tuple[str, str], Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.script = script or {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.running = self.peak = 0

    async def step(self, url: str, stage: str) -> None:
        self.calls[url, stage] += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(0)
            planned = self.script.get((url, stage))
            if isinstance(planned, Exception):
                raise planned.with_traceback(None)
            if isinstance(planned, type):
                raise planned("planned")
            if planned:
                raise planned.pop(0)
        finally:
            self.running -= 1

    async def download_content(self, url: str) -> str:
        await self.step(url, "download")
        return url

    async def extract_text(self, content: str) -> str:
        await self.step(content, "extract")
        return content

    async def analyze_sentiment(self, text: str) -> float:
        await self.step(text, "analyze")
        return 0.5

    async def store_result(self, item: ProcessingItem) -> bool:
        await self.step(item.url, "store")
        return True


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def monitor() -> AIErrorMonitor:
    return AIErrorMonitor()


@pytest.fixture
def scripted(time: Time, monitor: AIErrorMonitor) -> Callable[..., Scripted]:
    """Make scripted pipelines on the jumping clock."""

    def make(script: dict[tuple[str, str], Any] | None = None, **options: Any) -> Scripted:
        given = {"clock": time.clock, "now": time.now, "sleep": time.sleep, "monitor": monitor}
        return Scripted(script, **(given | options))

    return make


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    """Settings with a data folder of the test's own."""
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def urls() -> Iterator[Callable[[int], list[str]]]:
    """Make so many URLs of one host."""
    return lambda count, host="example.com": [f"https://{host}/{number}" for number in range(count)]
