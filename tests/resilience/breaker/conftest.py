"""A clock that is moved by hand, and every way of making a call through a circuit breaker."""

from collections.abc import Callable
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError, InputValidationError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig


class Clock:
    """Seconds that pass when told to; counts how often it is asked."""

    def __init__(self) -> None:
        self.time = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.time


class Driver:
    """Makes calls that end as told, in one of the ways there are."""

    WAYS = ("call", "call_plain", "call_sync", "coroutine", "plain", "stream", "async_stream", "with", "async_with")

    def __init__(self, breaker: AIServiceCircuitBreaker, clock: Clock, way: str) -> None:
        self.breaker, self.clock, self.way = breaker, clock, way
        self.runs = 0

    async def call(self, error: BaseException | None = None, *, lasts: float = 0.0) -> None:
        """Make one call that takes so many seconds and ends with this error, or well."""

        def body() -> str:
            self.runs += 1
            self.clock.time += lasts
            if error is not None:
                raise error
            return "done"

        await getattr(self, f"_{self.way}")(body)

    async def success(self, **how: Any) -> None:
        """S: a call that ends well."""
        await self.call(**how)

    async def failure(self, error: Exception | None = None, **how: Any) -> None:
        """F: a call whose error counts, and comes out as it is."""
        error = error or ConnectionError("boom")
        with pytest.raises(type(error)) as caught:
            await self.call(error, **how)
        assert caught.value is error

    async def ignored(self) -> None:
        """X: a call that ends with the caller's mistake, which comes out as it is."""
        error = InputValidationError("the caller's mistake")
        with pytest.raises(InputValidationError) as caught:
            await self.call(error)
        assert caught.value is error

    async def refused(self) -> Any:
        """A call that is refused and not run."""
        before = self.runs
        with pytest.raises(CircuitOpenError) as caught:
            await self.call()
        assert self.runs == before
        return caught.value

    async def trip(self) -> None:
        """Open the circuit with failures at this moment."""
        for _ in range(self.breaker.config.failure_threshold):
            await self.failure()

    @property
    def metrics(self) -> dict[str, Any]:
        return self.breaker.get_metrics()

    async def _call(self, body: Callable[[], str]) -> None:
        async def work(one: int, *, two: int) -> str:
            assert (one, two) == (1, 2)
            return body()

        assert await self.breaker.call(work, 1, two=2) == "done"

    async def _call_plain(self, body: Callable[[], str]) -> None:
        assert await self.breaker.call(body) == "done"

    async def _call_sync(self, body: Callable[[], str]) -> None:
        assert self.breaker.call_sync(body) == "done"

    async def _coroutine(self, body: Callable[[], str]) -> None:
        @self.breaker
        async def work() -> str:
            return body()

        assert await work() == "done"

    async def _plain(self, body: Callable[[], str]) -> None:
        assert self.breaker(lambda: body())() == "done"

    async def _stream(self, body: Callable[[], str]) -> None:
        @self.breaker
        def work() -> Any:
            yield 1
            yield body()

        assert list(work()) == [1, "done"]

    async def _async_stream(self, body: Callable[[], str]) -> None:
        @self.breaker
        async def work() -> Any:
            yield 1
            yield body()

        assert [item async for item in work()] == [1, "done"]

    async def _with(self, body: Callable[[], str]) -> None:
        with self.breaker:
            body()

    async def _async_with(self, body: Callable[[], str]) -> None:
        async with self.breaker:
            body()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., AIServiceCircuitBreaker]:
    """Make a breaker on the clock from the values of its config."""

    def make(**config: Any) -> AIServiceCircuitBreaker:
        return AIServiceCircuitBreaker("llm", CircuitConfig(**config), clock=clock)

    return make


@pytest.fixture(params=Driver.WAYS)
def drive(request: pytest.FixtureRequest, make: Callable[..., AIServiceCircuitBreaker], clock: Clock) -> Any:
    """Make a breaker and call through it in each of the ways."""

    def drive(**config: Any) -> Driver:
        return Driver(make(**config), clock, request.param)

    return drive
