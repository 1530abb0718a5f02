"""A limit that finds its own size."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import OverloadedError, RateLimitedError
from bulletproof.resilience import AdaptiveLimit


class Service:
    """Answers in 0.1 s up to so many calls at once; beyond it they queue up."""

    def __init__(self, fake, capacity):
        self.fake, self.capacity = fake, capacity

    def round(self, limit):
        """Fill all places with calls that begin and end together."""
        entries = [limit.enter() for _ in range(limit.limit)]
        self.fake.at += 0.1 * max(1.0, len(entries) / self.capacity)
        for entry in entries:
            limit.leave(entry, None)


def test_it_grows_while_answers_stay_fast(fake):
    limit = AdaptiveLimit("llm", initial=5, max_limit=100, clock=fake.clock)
    service = Service(fake, capacity=1000)
    for _ in range(100):
        service.round(limit)
    assert limit.limit == 100


def test_it_settles_near_what_the_service_bears_and_stays_there(fake):
    limit = AdaptiveLimit("llm", initial=5, max_limit=1000, clock=fake.clock)
    service = Service(fake, capacity=40)
    sizes = []
    for _ in range(1000):
        service.round(limit)
        sizes.append(limit.limit)
    assert 40 <= sum(sizes[-500:]) / 500 <= 70
    assert max(sizes) <= 80
    assert min(sizes[-500:]) >= 20


def test_it_shrinks_when_the_service_gets_narrower(fake):
    limit = AdaptiveLimit("llm", initial=50, max_limit=60, clock=fake.clock)
    for _ in range(20):
        Service(fake, capacity=1000).round(limit)
    narrow = Service(fake, capacity=5)
    for _ in range(100):
        narrow.round(limit)
    assert limit.limit <= 15


def test_it_gets_used_to_a_service_that_is_slower_for_good(fake):
    limit = AdaptiveLimit("llm", initial=20, max_limit=100, clock=fake.clock)
    for _ in range(20):
        limit.call(len, "")
    for _ in range(3000):
        entries = [limit.enter() for _ in range(limit.limit)]
        fake.at += 5
        for entry in entries:
            limit.leave(entry, None)
    assert limit.limit >= 40


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["good", "overload", "bug", "cancel"])), max_size=300))
def test_whatever_happens_it_keeps_between_its_bounds(calls):
    at = 0.0
    limit = AdaptiveLimit("llm", initial=5, min_limit=2, max_limit=9, clock=lambda: at)
    errors = {"good": None, "overload": TimeoutError(), "bug": ValueError(), "cancel": asyncio.CancelledError()}
    for seconds, end in calls:
        entries = [limit.enter() for _ in range(limit.limit)]
        at += seconds
        for entry in entries:
            limit.leave(entry, errors[end])
        assert 2 <= limit.limit <= 9
        assert limit.in_use == 0


def test_overload_errors_shrink_it_and_others_do_not(fake, script):
    limit = AdaptiveLimit("llm", initial=50, clock=fake.clock)
    with pytest.raises(ValueError):
        limit.call(script(ValueError()).plain)
    assert limit.limit == 50
    with pytest.raises(RateLimitedError):
        limit.call(script(RateLimitedError("x")).plain)
    assert limit.limit == 45
    for _ in range(100):
        with pytest.raises(TimeoutError):
            limit.call(script(TimeoutError()).plain)
    assert limit.limit == 1


async def test_a_cancelled_call_says_nothing_and_gives_its_place_back(fake):
    limit = AdaptiveLimit("llm", initial=5, clock=fake.clock)
    task = asyncio.create_task(limit.call(asyncio.sleep, 60))
    await asyncio.sleep(0)
    assert limit.in_use == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (limit.in_use, limit.limit) == (0, 5)


def test_beyond_its_size_calls_are_refused(fake):
    limit = AdaptiveLimit("llm", initial=1, clock=fake.clock)
    limit.enter()
    with pytest.raises(OverloadedError):
        limit.enter()


def test_little_load_leaves_it_as_it_is(fake):
    limit = AdaptiveLimit("llm", initial=50, clock=fake.clock)
    for _ in range(100):
        limit.call(len, "")
    assert limit.limit == 50


async def test_those_that_wait_get_in_when_it_grows(fake):
    limit = AdaptiveLimit("llm", initial=4, max_queued=100, clock=fake.clock)
    await asyncio.gather(*(limit.call(asyncio.sleep, 0) for _ in range(80)))
    assert limit.in_use == 0
    assert limit.limit > 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": 0},
        {"initial": 500},
        {"min_limit": 0},
        {"max_limit": 0},
        {"tolerance": 0.5},
        {"smoothing": 0},
        {"max_wait": 0},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        AdaptiveLimit("llm", **wrong)
