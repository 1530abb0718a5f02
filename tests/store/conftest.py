"""Every behaviour of the store is tested on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bulletproof.store import RejectionRow, ResultRow, ResultStore


class Wall:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, **by: float) -> None:
        self.moment += timedelta(**by)


@dataclass
class Place:
    """A fresh database of one kind."""

    kind: str
    url: str | None
    data_dir: Path

    def arguments(self) -> dict[str, Any]:
        return {"url": self.url, "data_dir": self.data_dir}


class Helper:
    """Shorthands for a run."""

    @staticmethod
    def rows(start: int, stop: int) -> list[ResultRow]:
        return [
            ResultRow(number, f"text {number} ☕", "positive", 0.5, 0.75, "en", "local/1.0")
            for number in range(start, stop)
        ]

    @staticmethod
    async def begin(store: ResultStore, run: str, **more: Any) -> None:
        await store.begin_run(run, **({"filename": "reviews.csv", "format": "csv"} | more))

    @staticmethod
    async def complete(store: ResultStore, run: str, **more: Any) -> None:
        values: dict[str, Any] = {
            "records": {"received": 3, "analyzed": 2, "rejected": 1},
            "summary": {"sentiment": {"positive": 2}},
            "analyzer": "local/1.0",
            "degraded": False,
            "reason": None,
            "warnings": [],
            "duration_ms": 12.5,
        }
        await store.complete_run(run, **(values | more))

    async def store(
        self,
        store: ResultStore,
        run: str,
        rows: Sequence[ResultRow],
        rejections: Sequence[RejectionRow] = (),
        **more: Any,
    ) -> None:
        await self.begin(store, run, **more)
        await store.add_chunk(run, rows, rejections)
        await self.complete(store, run)


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def helper() -> Helper:
    return Helper()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh database of either kind."""
    url = request.getfixturevalue("new_postgres_url")() if request.param == "postgresql" else None
    return Place(request.param, url, tmp_path / "data")


@pytest.fixture
async def new_store(wall: Wall) -> AsyncIterator[Callable[..., ResultStore]]:
    """Make stores that are closed at the end."""
    made: list[ResultStore] = []

    def make(**arguments: Any) -> ResultStore:
        made.append(ResultStore(**({"now": wall} | arguments)))
        return made[-1]

    yield make
    for store in made:
        await store.aclose()


@pytest.fixture
def store(place: Place, new_store: Callable[..., ResultStore]) -> ResultStore:
    """A store on a fresh database of either kind."""
    return new_store(**place.arguments())
