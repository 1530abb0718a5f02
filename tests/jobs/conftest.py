"""Jobs are tested on SQLite and on PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bulletproof.jobs.executor import Executor, Handler
from bulletproof.jobs.lease import leases_of
from bulletproof.jobs.system import JobTables
from bulletproof.store.address import Address, parse_address


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """A fresh database of either kind."""
    url = request.getfixturevalue("new_postgres_url")() if request.param == "postgresql" else None
    return parse_address(url, tmp_path / "data")


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something is true."""

    async def wait(true: Callable[[], Any], seconds: float = 20) -> None:
        limit = time.monotonic() + seconds
        while True:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < limit, "it did not come true"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
async def executor_of(place: Address) -> AsyncIterator[Callable[..., Any]]:
    """Start an executor of the place; it is closed at the end."""
    made: list[tuple[Executor, JobTables]] = []

    async def start(work: Handler, *, ready: bool = True, **more: Any) -> tuple[Executor, JobTables]:
        async def no_sweep() -> None: ...

        tables = JobTables(place)
        settings: dict[str, Any] = {"queues": {"work": 4}, "sweep": no_sweep, "tick": 0.2}
        executor = Executor(tables, leases_of(place), {"work": work}, **(settings | more))
        made.append((executor, tables))
        await executor.start()
        if ready:
            await asyncio.wait_for(executor.ready(), 20)
        return executor, tables

    yield start
    for executor, tables in made:
        await executor.aclose(0)
        tables.close()
