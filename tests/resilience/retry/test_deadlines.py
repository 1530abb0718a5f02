"""The time left, handed down."""

import asyncio

import pytest

from bulletproof.errors import DeadlineExceededError, ServiceTimeoutError
from bulletproof.resilience import check_deadline, deadline, remaining, timeout


def test_without_a_deadline_nothing_is_said():
    assert remaining() is None
    check_deadline()


def test_the_nearest_deadline_counts(fake):
    with deadline(10, clock=fake.clock):
        with deadline(60, clock=fake.clock):
            assert remaining() == 10
        with deadline(4, clock=fake.clock):
            assert remaining() == 4
        fake.at = 3
        assert remaining() == 7
    assert remaining() is None


def test_plain_code_stops_where_it_asks(fake):
    with deadline(10, clock=fake.clock):
        check_deadline()
        fake.at = 10
        assert remaining() == 0
        with pytest.raises(DeadlineExceededError):
            check_deadline()


async def test_async_with_interrupts():
    with pytest.raises(DeadlineExceededError):
        async with deadline(0.01):
            await asyncio.sleep(60)
    assert remaining() is None


async def test_tasks_started_inside_inherit_it(fake):
    async def left():
        return remaining()

    with deadline(10, clock=fake.clock):
        assert await asyncio.gather(left(), left()) == [10, 10]


async def test_one_that_ends_early_lets_go():
    async with deadline(0.01):
        pass
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [deadline, timeout])
def test_one_block_for_each(kind):
    once = kind(5)
    with once, pytest.raises(RuntimeError, match="in use"), once:
        pass
    with once:
        pass


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [deadline, timeout])
def test_times_that_make_no_sense_are_refused(kind, seconds):
    with pytest.raises(ValueError, match="seconds"):
        kind(seconds)


async def test_a_timeout_interrupts_a_coroutine_and_tells_plain_code(fake):
    with pytest.raises(ServiceTimeoutError):
        await timeout(0.01).call(asyncio.sleep, 60)
    assert timeout(5, clock=fake.clock).call(remaining) == 5
    with pytest.raises(ServiceTimeoutError):
        async with timeout(0.01):
            await asyncio.sleep(60)
    with timeout(5, clock=fake.clock):
        assert remaining() == 5


async def test_a_timeout_beyond_the_callers_deadline_ends_with_the_deadline():
    with deadline(0.01), pytest.raises(DeadlineExceededError):
        await timeout(60).call(asyncio.sleep, 60)


def test_no_timeout_leaves_the_function_alone():
    assert timeout(None)(len) is len
    with timeout(None):
        assert remaining() is None


async def test_no_timeout_leaves_a_block_alone():
    async with timeout(None):
        assert remaining() is None


async def test_an_inner_timeout_of_the_function_works_inside_ours():
    @timeout(60)
    async def ask():
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(0)
            return "caught"

    assert await ask() == "caught"


async def test_a_mock_or_future_that_is_no_coroutine_can_be_awaited_too():
    from unittest.mock import AsyncMock

    assert await timeout(5).call(AsyncMock(return_value=3)) == 3
