"""A second call when the first is late."""

import asyncio
import threading

import pytest

from bulletproof.resilience import Hedge, deadline, no_waits, remaining


async def test_a_fast_answer_needs_no_second_call(script):
    ask = script("answer")
    assert await Hedge(delay=60).call(ask.coroutine) == "answer"
    assert ask.runs == 1


async def test_no_waits_does_not_make_every_call_twice(script):
    ask = script("answer")

    async def slow():
        await asyncio.sleep(0.001)
        return ask.plain()

    with no_waits():
        assert await Hedge(delay=60).call(slow) == "answer"
    assert ask.runs == 1


async def test_the_loser_is_cancelled_and_awaited():
    ended = []

    @Hedge(delay=0.001)
    async def ask():
        number = len(ended) + len(running)
        running.append(number)
        try:
            if number == 0:
                await asyncio.sleep(60)
            return number
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append(number)
            raise

    running = []
    assert await ask() == 1
    assert ended == [0]
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_counts_only_when_no_other_call_is_left():
    calls = []

    @Hedge(delay=0.001)
    async def ask():
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(0.01)
            raise ConnectionError("the first")
        await asyncio.sleep(0.02)
        return "the second"

    assert await ask() == "the second"

    with pytest.raises(ConnectionError):
        await Hedge(delay=60).call(_fail)


async def _fail():
    raise ConnectionError("at once")


async def test_a_cancellation_from_outside_ends_all_calls():
    running = []

    @Hedge(delay=0, max_extra=2)
    async def ask():
        running.append(1)
        try:
            await asyncio.sleep(60)
        finally:
            running.pop()

    task = asyncio.create_task(ask())
    while len(running) < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running == []


async def test_the_delay_is_a_quantile_of_the_latest_times(fake):
    hedge = Hedge(quantile=0.9, clock=fake.clock)

    async def ask(seconds):
        fake.at += seconds

    for number in range(19):
        await hedge.call(ask, number)
        assert hedge.delay is None
    await hedge.call(ask, 19)
    assert hedge.delay == 18


async def test_an_injected_sleep_waits_the_delay(fake, script):
    async def sleep(seconds):
        fake.waits.append(seconds)

    runs = []

    async def ask():
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(60)
        return "second"

    assert await Hedge(delay=5, sleep=sleep).call(ask) == "second"
    assert fake.waits == [5]


def test_plain_functions_run_in_threads_with_the_callers_context(fake):
    first = threading.Event()
    calls = []

    @Hedge(delay=0.01)
    def ask():
        calls.append(remaining())
        if len(calls) == 1:
            first.wait(10)
            return "slow"
        return "fast"

    with deadline(9, clock=fake.clock):
        assert ask() == "fast"
    first.set()
    assert calls == [9, 9]


def test_errors_of_plain_functions_are_raised_in_the_caller(script):
    with pytest.raises(ConnectionError):
        Hedge(delay=10).call(script(ConnectionError()).plain)


def test_generators_are_refused():
    def stream():
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Hedge()(stream)


@pytest.mark.parametrize("wrong", [{"delay": -1}, {"quantile": 0}, {"quantile": 1}, {"max_extra": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Hedge(**wrong)
