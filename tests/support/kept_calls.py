"""What is kept calls of: a service that is down, at a time that is moved by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof.jobs import KeptCalls


class Wall:
    """A wall clock that moves only when somebody sleeps or moves it."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Service:
    """What is called: down or up; remembers what it did."""

    def __init__(self, wall: Wall) -> None:
        self.error: Exception | None = ConnectionError("down")
        self.done: list[Any] = []
        self.times: list[datetime] = []
        self._wall = wall

    def __call__(self, value: Any) -> str:
        self.times.append(self._wall())
        if self.error is not None:
            raise self.error
        self.done.append(value)
        return f"did {value}"


def protected(kept: KeptCalls, service: Service, **options: Any) -> Callable[..., Any]:
    @kept.keep(**({"name": "work"} | options))
    async def work(value: Any) -> str:
        """Do it."""
        return service(value)

    return work


async def fails(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the error of a call."""
    with pytest.raises(Exception) as caught:
        await work(*args, **kwargs)
    return caught.value
