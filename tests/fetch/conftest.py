"""Fetchers that may reach the test's own web servers."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bulletproof.fetch import Fetcher, FetchLimits


@pytest.fixture
def quick() -> FetchLimits:
    """Limits that do not keep a test waiting."""
    return FetchLimits(connect_timeout=2, read_timeout=0.4, total_timeout=3, rate_window=0.2)


@pytest.fixture
async def new_fetcher(quick: FetchLimits) -> AsyncIterator[Callable[..., Fetcher]]:
    """Make fetchers with short limits, closed at the end; this machine is allowed unless said otherwise."""
    made: list[Fetcher] = []

    def make(**options: Any) -> Fetcher:
        made.append(Fetcher(**({"allow_hosts": ["127.0.0.1"], "limits": quick} | options)))
        return made[-1]

    yield make
    for fetcher in made:
        await fetcher.aclose()


@pytest.fixture
def fetcher(new_fetcher: Callable[..., Fetcher]) -> Fetcher:
    """A fetcher that may reach this machine."""
    return new_fetcher()
