"""The ways of calling through a circuit breaker: functions, methods, streams, blocks."""

import asyncio
import contextvars
import functools
import inspect
from contextlib import suppress
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError
from support.breakers import BOOM, CLOSED, HALF_OPEN, OPEN, trip

# Ways of calling.


def test_decorated_functions_keep_kind_name_and_signature(make: Any) -> None:
    breaker = make()

    async def coroutine(a: int, *, b: str = "x") -> str:
        """Say something."""
        return b

    def plain(a: int) -> int:
        return a

    def stream() -> Any:
        yield 1

    async def async_stream() -> Any:
        yield 1

    for function, test in (
        (coroutine, inspect.iscoroutinefunction),
        (stream, inspect.isgeneratorfunction),
        (async_stream, inspect.isasyncgenfunction),
        (plain, inspect.isfunction),
    ):
        wrapped = breaker(function)
        assert test(wrapped)
        assert wrapped.__wrapped__ is function
        assert (wrapped.__name__, wrapped.__doc__) == (function.__name__, function.__doc__)
        assert inspect.signature(wrapped) == inspect.signature(function)


async def test_methods_partials_and_callable_objects_can_be_decorated(make: Any) -> None:
    breaker = make()

    class Client:
        @breaker
        async def ask(self, text: str) -> str:
            return f"{self.name} {text}"

        @breaker
        def name_it(self, name: str) -> None:
            self.name = name

        async def __call__(self, text: str) -> str:
            return text

    client = Client()
    client.name_it("llm")
    assert await client.ask("yes") == "llm yes"
    assert await breaker(functools.partial(client.ask, "no"))() == "llm no"
    assert await breaker(client)("object") == "object"
    assert await breaker.call(client, "object") == "object"
    assert breaker.get_metrics()["successes"] == 6


async def test_call_awaits_whatever_a_plain_function_returns_to_be_awaited(make: Any) -> None:
    breaker = make(failure_threshold=1)

    async def fail() -> None:
        raise BOOM

    with pytest.raises(ConnectionError):
        await breaker.call(lambda: fail())
    assert breaker.state is OPEN
    breaker.reset()
    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    assert await breaker.call(lambda: future) == 3
    with pytest.raises(ConnectionError):
        await breaker.call_sync(fail)
    assert breaker.state is OPEN
    breaker.reset()
    with pytest.raises(ConnectionError):
        await breaker(lambda: fail())()
    assert breaker.state is OPEN


async def test_call_passes_a_keyword_named_func_on(make: Any) -> None:
    assert await make().call(lambda func, self: (func, self), func=1, self=2) == (1, 2)


async def test_streams_are_judged_at_their_end(make: Any) -> None:
    breaker = make(failure_threshold=1)

    def stream() -> Any:
        yield 1
        raise BOOM

    items = iter(await breaker.call(stream))
    assert next(items) == 1
    assert breaker.state is CLOSED
    with pytest.raises(ConnectionError):
        next(items)
    assert breaker.state is OPEN
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(stream)
    with pytest.raises(CircuitOpenError):
        next(breaker(stream)())


async def test_an_async_stream_given_to_call_is_judged_at_its_end(make: Any) -> None:
    breaker = make(failure_threshold=1)

    async def stream() -> Any:
        yield 1
        raise BOOM

    items = await breaker.call(stream)
    assert await anext(items) == 1
    with pytest.raises(ConnectionError):
        await anext(items)
    assert breaker.state is OPEN


async def test_a_stream_left_early_is_neutral_and_closed(make: Any, clock: Any) -> None:
    breaker = make()
    closed: list[str] = []

    @breaker
    def stream() -> Any:
        try:
            yield 1
        finally:
            closed.append("plain")

    @breaker
    async def async_stream() -> Any:
        try:
            yield 1
        finally:
            closed.append("async")

    trip(breaker)
    clock.time = 60.0
    items = stream()
    next(items)
    items.close()
    more = async_stream()
    await anext(more)
    await more.aclose()
    assert closed == ["plain", "async"]
    assert (breaker.state, breaker.get_metrics()["neutral"]) == (HALF_OPEN, 2)
    assert breaker._should_attempt_call()


async def test_a_stream_that_never_starts_keeps_no_place(make: Any, clock: Any) -> None:
    breaker = make()

    def stream() -> Any:
        yield 1

    trip(breaker)
    clock.time = 60.0
    kept = await breaker.call(stream), breaker(stream)()
    assert breaker._should_attempt_call()
    assert list(kept[0]) == [1]


async def test_streams_pass_on_what_is_sent_and_thrown(make: Any) -> None:
    @make()
    async def echo() -> Any:
        item = yield "ready"
        while True:
            try:
                item = yield item
            except KeyError as error:
                item = repr(error)

    stream = echo()
    assert await anext(stream) == "ready"
    assert await stream.asend("a") == "a"
    assert await stream.athrow(KeyError("b")) == "KeyError('b')"
    await stream.aclose()

    @make()
    def total() -> Any:
        got = yield "ready"
        return got

    plain = total()
    next(plain)
    with pytest.raises(StopIteration) as end:
        plain.send("sum")
    assert end.value.value == "sum"


async def test_blocks_nest_and_run_at_the_same_time(make: Any) -> None:
    breaker = make(failure_threshold=100)

    async def work(number: int) -> None:
        async with breaker:
            with breaker:
                await asyncio.sleep(0)
                if number % 2:
                    raise BOOM

    results = await asyncio.gather(*(work(number) for number in range(20)), return_exceptions=True)
    assert sum(result is BOOM for result in results) == 10
    metrics = breaker.get_metrics()
    assert (metrics["failures"], metrics["successes"]) == (20, 20)


async def test_a_block_entered_after_waiting_for_the_open_time_keeps_its_era(make: Any, clock: Any) -> None:
    breaker = make()
    with suppress(ConnectionError), breaker:
        trip(breaker)
        raise BOOM
    assert breaker.get_metrics()["failures"] == 5


def test_a_block_may_end_in_another_context(make: Any) -> None:
    breaker = make()
    contextvars.copy_context().run(breaker.__enter__)
    breaker.__exit__(ConnectionError, BOOM, None)
    assert breaker.get_metrics()["failures"] == 1


def test_a_refused_block_is_not_run_and_leaves_nothing_behind(make: Any) -> None:
    breaker = make()
    trip(breaker)
    with pytest.raises(CircuitOpenError), breaker:
        raise AssertionError("run")
    breaker.reset()
    with breaker:
        pass
    assert breaker.get_metrics()["successes"] == 1
