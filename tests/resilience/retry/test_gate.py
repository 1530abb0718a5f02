"""One wait for all callers of a service."""

import asyncio
import threading
from datetime import timedelta

import pytest

from bulletproof.errors import CircuitOpenError, OverloadedError, RateLimitedError
from bulletproof.resilience import Gate, RetryPolicy, deadline


def make(fake, **settings):
    return Gate("llm", **{**fake.handles, "rng": lambda: 0.5, **settings})


def test_an_open_gate_reads_no_clock():
    def broken():
        raise AssertionError("the clock was read")

    gate = Gate("llm", clock=broken)
    assert gate.call(len, "abc") == 3


def test_an_error_with_retry_after_holds_the_next_caller(fake, script):
    gate = make(fake, interval=0)
    with pytest.raises(RateLimitedError):
        gate.call(script(RateLimitedError("slow down", retry_after=20)).plain)
    fake.at = 5
    assert gate.remaining == 15
    assert gate.call(script("answer").plain) == "answer"
    assert fake.waits == [15]
    assert gate.remaining == 0


async def test_tasks_are_let_out_one_after_another(fake):
    gate = make(fake, interval=2)
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    gate = make(fake, interval=2, sleep=sleep)
    gate.hold(10)
    await asyncio.gather(*(gate.enter_async() for _ in range(5)))
    assert waits == [11, 13, 15, 17, 19]


def test_threads_are_spread_too():
    gate, waits = Gate("llm", interval=0.1, sleep=lambda seconds: waits.append(seconds), clock=lambda: 0.0), []
    gate.hold(10)
    threads = [threading.Thread(target=gate.enter) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits.sort()
    assert all(10 + 0.1 * place <= wait <= 10 + 0.1 * (place + 1) for place, wait in enumerate(waits))
    assert len(set(waits)) == 50


def test_a_hold_is_never_shortened(fake):
    gate = make(fake)
    gate.hold(20)
    gate.hold(5)
    assert gate.remaining == 20
    gate.hold(30)
    assert gate.remaining == 30


def test_who_waits_when_the_hold_grows_waits_on(fake):
    gate = make(fake, interval=0)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        fake.at += seconds
        if len(waits) == 1:
            gate.hold(7)

    gate.sleep = sleep
    gate.hold(10)
    gate.enter()
    assert waits == [10, 7]


def test_a_wait_beyond_the_maximum_or_the_deadline_is_refused_at_once(fake, script):
    gate = make(fake, max_wait=60)
    gate.hold(61)
    ask = script("answer")
    with pytest.raises(RateLimitedError) as caught:
        gate.call(ask.plain)
    assert caught.value.retry_after == 61
    fake.at = 50
    with deadline(5, clock=fake.clock), pytest.raises(RateLimitedError):
        gate.call(ask.plain)
    assert (ask.runs, fake.waits) == (0, [])


def test_opening_it_lets_new_callers_through(fake, script):
    gate = make(fake)
    gate.hold(60)
    gate.open()
    assert gate.call(script(1).plain) == 1
    assert fake.waits == []


def test_holds_are_published_once_and_those_observed_are_not(fake):
    published = []
    gate = make(fake, on_hold=lambda service, until: published.append((service, until)))
    gate.hold(20)
    gate.hold(10)
    gate.hold(20.01)
    gate.observe(fake.now() + timedelta(seconds=60))
    gate.observe(fake.now() - timedelta(seconds=60))
    assert published == [("llm", fake.now() + timedelta(seconds=20))]
    assert gate.remaining == 60


def test_a_publisher_that_fails_never_reaches_the_call(fake, caplog):
    def broken(service, until):
        raise OSError("unreachable")

    make(fake, on_hold=broken).hold(5)
    assert "could not be published" in caplog.text


async def test_retries_through_one_gate_come_back_spread(fake):
    """A hundred tasks meet the limit together; none of them comes back before, nor in step with another."""
    waits, calls = [], []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    gate = Gate("llm", interval=0.05, clock=fake.clock, now=fake.now, sleep=sleep)

    async def ask(number):
        calls.append(number)
        if calls.count(number) == 1:
            await asyncio.sleep(0)
            raise RateLimitedError("slow down", retry_after=5)
        return number

    rules = RetryPolicy(gate=gate, clock=fake.clock, now=fake.now, sleep=sleep)
    # The clock stands still, so the second attempts meet the gate still closed and take another turn.
    assert await asyncio.gather(*(rules.call(ask, number) for number in range(100))) == list(range(100))
    assert len(set(waits)) == len(waits)
    assert min(waits) >= 5


async def test_cancelling_one_that_is_held_ends_at_once(fake):
    gate = Gate("llm")
    gate.hold(60)
    task = asyncio.create_task(gate.enter_async())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_our_own_limits_ask_for_does_not_close_it(fake, script):
    gate = make(fake)
    for error in (CircuitOpenError("llm", "open", 30), OverloadedError("full", retry_after=30)):
        with pytest.raises(type(error)):
            gate.call(script(error).plain)
    assert gate.remaining == 0


async def test_its_own_refusal_ends_a_retry_and_is_published_to_nobody(fake, script):
    published = []
    gate = make(fake, max_wait=60, on_hold=lambda *_: published.append(1))
    gate.hold(100)
    for kind in ("plain", "coroutine"):
        with pytest.raises(RateLimitedError, match="asked everybody"):
            await RetryPolicy(gate=gate, **fake.handles).call(getattr(script(1), kind))
    assert (fake.waits, published) == ([], [1])
