"""A token bucket."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import DeadlineExceededError, OverloadedError
from bulletproof.resilience import RateLimit, deadline


class Bucket:
    """The bucket as one would draw it: tokens that trickle in."""

    def __init__(self, rate, per, burst):
        self.rate, self.per, self.burst, self.tokens, self.at = rate, per, burst, burst, 0.0

    def take(self, now):
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate / self.per)
        self.at = now
        if self.tokens >= 1 - 1e-6:
            self.tokens -= 1
            return True
        return False


@given(
    st.floats(0.5, 50),
    st.floats(0.1, 60),
    st.floats(1, 20),
    st.lists(st.floats(0, 5).map(lambda x: round(x, 3)), max_size=60),
)
def test_it_lets_through_what_a_drawn_bucket_lets_through(rate, per, burst, pauses):
    at = 0.0
    limit, bucket = RateLimit(rate, per=per, burst=burst, max_wait=0, clock=lambda: at), Bucket(rate, per, burst)
    for pause in pauses:
        at += pause
        before = limit.tokens
        try:
            limit.reserve()
            through = True
        except OverloadedError:
            through = False
        if abs(before - 1) > 1e-5:  # at the very edge floats decide
            assert through == bucket.take(at)
        elif through:
            bucket.take(at)
            bucket.tokens = limit.tokens
        else:
            bucket.take(at)
            bucket.tokens, bucket.at = limit.tokens, at


@given(st.floats(0.5, 50), st.floats(1, 20), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_in_no_stretch_of_time_more_than_burst_plus_rate(rate, burst, pauses):
    at, moments = 0.0, []
    limit = RateLimit(rate, burst=burst, clock=lambda: at)
    for pause in pauses:
        at += pause
        moments.append(at + limit.reserve())
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            allowed = burst + rate * (moments[last] - moments[first])
            assert last - first + 1 <= allowed + 1 + 1e-6
    assert moments == sorted(moments)


def test_calls_wait_for_their_turn(fake):
    limit = RateLimit(2, per=1, burst=1, clock=fake.clock, sleep=fake.sleep)
    for _ in range(4):
        limit.call(len, "")
    assert fake.waits == [0.5, 0.5, 0.5]


async def test_tasks_reserve_one_after_another(fake):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    limit = RateLimit(10, burst=1, clock=fake.clock, sleep=sleep)
    await asyncio.gather(*(limit.call(asyncio.sleep, 0) for _ in range(5)))
    assert waits == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_who_would_wait_too_long_is_refused_and_takes_nothing(fake):
    limit = RateLimit(1, per=10, max_wait=5, clock=fake.clock, sleep=fake.sleep)
    limit.reserve()
    for _ in range(3):
        with pytest.raises(OverloadedError) as caught:
            limit.reserve()
        assert caught.value.retry_after == 10
    with deadline(3, clock=fake.clock):
        fake.at = 6
        with pytest.raises(DeadlineExceededError):
            limit.reserve()
    assert limit.reserve() == 4


async def test_one_cancelled_while_waiting_gives_its_token_back():
    limit = RateLimit(1, per=60, clock=lambda: 0.0)
    limit.reserve()
    before = limit.tokens
    task = asyncio.create_task(limit.enter_async())
    await asyncio.sleep(0)
    assert limit.tokens == before - 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limit.tokens == before


async def test_it_serves_with_and_async_with(fake):
    limit = RateLimit(1, burst=5, clock=fake.clock, sleep=fake.sleep)
    with limit:
        pass
    async with limit:
        pass
    assert limit.tokens == 3


def test_threads_hammering_it_take_exactly_what_is_there():
    limit, through = RateLimit(1, per=3600, burst=500, max_wait=0), []

    def hammer():
        for _ in range(200):
            try:
                limit.reserve()
            except OverloadedError:
                continue
            through.append(1)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(through) == 500


def test_several_tokens_at_once(fake):
    limit = RateLimit(10, burst=10, clock=fake.clock)
    assert limit.reserve(10) == 0
    assert limit.reserve(5) == 0.5
    with pytest.raises(ValueError, match="burst"):
        limit.reserve(11)


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"per": 0}, {"burst": 0.5}, {"max_wait": -1}, {"rate": float("inf")}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        RateLimit(**{"rate": 1, **wrong})
