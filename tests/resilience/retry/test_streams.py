"""Generators are tried again before their first item, never from the middle."""

import asyncio
import inspect

import pytest

from bulletproof.errors import ServiceTimeoutError
from bulletproof.resilience import (
    AIServiceCircuitBreaker,
    Bulkhead,
    CircuitConfig,
    Fallback,
    Policy,
    RetryPolicy,
    no_waits,
    timeout,
)


class Streams:
    """A stream that fails before item ``fails_at`` on its first ``bad`` runs, plain and async."""

    def __init__(self, fails_at=0, bad=1, length=3):
        self.fails_at, self.bad, self.length, self.runs, self.closed = fails_at, bad, length, 0, 0

    def plain(self):
        self.runs += 1
        run = self.runs
        try:
            for item in range(self.length):
                if item == self.fails_at and run <= self.bad:
                    raise ConnectionError(f"run {run}")
                yield item
            return "end"
        finally:
            self.closed += 1

    async def coroutine(self):
        for item in self.plain():
            await asyncio.sleep(0)
            yield item


async def items(stream):
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


@pytest.fixture(params=["plain", "coroutine"])
def kind(request):
    return request.param


rules = RetryPolicy(max_attempts=3, base_delay=0)


async def test_a_failure_before_the_first_item_is_tried_again(kind):
    streams = Streams(fails_at=0, bad=2)
    assert await items(rules(getattr(streams, kind))()) == [0, 1, 2]
    assert streams.runs == streams.closed == 3


async def test_a_failure_after_the_first_item_is_raised(kind):
    streams = Streams(fails_at=1)
    got = []
    with pytest.raises(ConnectionError, match="run 1"):
        stream = rules(getattr(streams, kind))()
        if kind == "plain":
            got.extend(stream.__next__() for _ in range(2))
        else:
            async for item in stream:
                got.append(item)
    assert streams.runs == streams.closed == 1


async def test_an_empty_stream_is_an_answer(kind):
    streams = Streams(length=0)
    assert await items(rules(getattr(streams, kind))()) == []
    assert streams.runs == 1


async def test_nothing_runs_before_the_first_item_is_asked_for(kind):
    streams = Streams()
    stream = rules(getattr(streams, kind))()
    assert streams.runs == 0
    assert inspect.isgenerator(stream) or inspect.isasyncgen(stream)


def test_a_generator_keeps_send_throw_and_its_return_value():
    @rules
    def echo():
        sent = yield "first"
        try:
            while sent != "stop":
                sent = yield sent
        except KeyError:
            yield "thrown"
        return "value"

    stream = echo()
    assert next(stream) == "first"
    assert stream.send("a") == "a"
    assert stream.throw(KeyError()) == "thrown"
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == "value"


async def test_an_async_generator_keeps_asend_and_athrow():
    @rules
    async def echo():
        sent = yield "first"
        try:
            while True:
                sent = yield sent
        except KeyError:
            yield "thrown"

    stream = echo()
    assert await anext(stream) == "first"
    assert await stream.asend("a") == "a"
    assert await stream.athrow(KeyError()) == "thrown"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_early_closes_the_source(kind):
    streams = Streams(fails_at=None)
    stream = rules(getattr(streams, kind))()
    if kind == "plain":
        next(stream)
        stream.close()
    else:
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0)
    assert streams.closed == 1


async def test_the_time_of_an_attempt_ends_with_the_first_item():
    runs = []

    @RetryPolicy(attempt_timeout=0.02, base_delay=0)
    async def stream():
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(60)
        yield "first"
        await asyncio.sleep(0.05)
        yield "second"

    assert [item async for item in stream()] == ["first", "second"]
    assert len(runs) == 2


async def test_a_timeout_alone_bounds_the_first_item():
    @timeout(0.01)
    async def stream():
        await asyncio.sleep(60)
        yield 1

    with pytest.raises(ServiceTimeoutError):
        await anext(stream())


async def test_a_breaker_in_the_same_policy_counts_each_try_and_judges_at_the_end(kind):
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=5))
    streams = Streams(fails_at=2, bad=1)
    policy = Policy(retry=rules, breaker=breaker)
    with pytest.raises(ConnectionError):
        await items(policy(getattr(streams, kind))())
    assert breaker.get_metrics()["failures"] == 1
    streams.fails_at = 0
    streams.bad = 2
    assert await items(policy(getattr(streams, kind))()) == [0, 1, 2]
    assert breaker.get_metrics()["failures"] == 2
    assert breaker.get_metrics()["successes"] == 1


async def test_a_timeout_before_the_first_item_is_a_failure_for_the_breaker():
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig())

    @Policy(breaker=breaker, timeout=0.01)
    async def stream():
        await asyncio.sleep(60)
        yield 1

    with pytest.raises(ServiceTimeoutError):
        await anext(stream())
    assert breaker.get_metrics()["failures"] == 1


async def test_a_fallback_takes_over_before_the_first_item(kind):
    broken, good = Streams(fails_at=0, bad=9), Streams(fails_at=None, length=2)
    stream = Fallback(getattr(good, kind))(getattr(broken, kind))
    assert await items(stream()) == [0, 1]


async def test_a_bulkhead_holds_its_place_to_the_end_of_the_stream(kind):
    bulkhead = Bulkhead("streams", max_concurrent=1)
    stream = bulkhead(getattr(Streams(fails_at=None), kind))()
    assert (next(stream) if kind == "plain" else await anext(stream)) == 0
    assert bulkhead.in_use == 1
    await items(stream)
    assert bulkhead.in_use == 0


def test_waits_between_streams_are_left_out_too():
    streams = Streams(bad=2)
    with no_waits() as waits:
        assert list(RetryPolicy(base_delay=50, jitter="none", max_delay=None)(streams.plain)()) == [0, 1, 2]
    assert waits == [50, 100]
