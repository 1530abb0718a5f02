"""So many calls at once, the rest in a bounded queue."""

import asyncio
import threading
import time

import pytest

from bulletproof.errors import DeadlineExceededError, OverloadedError
from bulletproof.resilience import Bulkhead, deadline


async def test_no_more_than_the_limit_run_at_once_and_all_run_in_order():
    bulkhead = Bulkhead("llm", max_concurrent=3, max_queued=100)
    running, most, order = 0, 0, []

    @bulkhead
    async def ask(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        await asyncio.sleep(0)
        running -= 1

    await asyncio.gather(*(ask(number) for number in range(50)))
    assert most == 3
    assert order == list(range(50))
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


async def test_beyond_the_queue_calls_are_refused_at_once():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=1, retry_after=3)
    release = asyncio.Event()

    async def hold():
        async with bulkhead:
            await release.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="llm: all 1 places") as caught:
        await hold()
    assert caught.value.retry_after == 3
    assert (bulkhead.in_use, bulkhead.queued) == (1, 1)
    release.set()
    await asyncio.gather(*tasks)
    assert bulkhead.in_use == 0


async def test_waiting_too_long_is_refused():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5, max_wait=0.01)
    async with bulkhead:
        with pytest.raises(OverloadedError, match=r"within 0.01 s"):
            await bulkhead.call(asyncio.sleep, 0)
        assert bulkhead.queued == 0
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


async def test_the_callers_deadline_bounds_the_wait():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5)
    with bulkhead, deadline(0.01), pytest.raises(DeadlineExceededError):
        await bulkhead.call(asyncio.sleep, 0)
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


def test_threads_wait_so_long_too():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5, max_wait=0.01)
    with bulkhead, pytest.raises(OverloadedError, match=r"within 0.01 s"):
        bulkhead.call(len, "")
    with bulkhead, deadline(0.005), pytest.raises(DeadlineExceededError):
        bulkhead.call(len, "")
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


async def test_plain_code_never_blocks_an_event_loop():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5)
    with bulkhead, pytest.raises(OverloadedError, match="event loop"):
        bulkhead.call(len, "")
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


async def test_one_cancelled_in_the_queue_leaves_it():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5)
    async with bulkhead:
        waiting = asyncio.create_task(bulkhead.call(asyncio.sleep, 0))
        await asyncio.sleep(0)
        assert bulkhead.queued == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert bulkhead.queued == 0
    await bulkhead.call(asyncio.sleep, 0)


async def test_one_cancelled_just_as_it_gets_its_place_passes_it_on():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5)
    async with bulkhead:
        first, second = (asyncio.create_task(bulkhead.call(asyncio.sleep, 0, name)) for name in "ab")
        await asyncio.sleep(0)
    first.cancel()  # the place was handed to it a moment ago
    assert await second == "b"
    assert bulkhead.in_use == 0


async def test_a_place_is_given_back_however_the_call_ends(script):
    bulkhead = Bulkhead("llm", max_concurrent=1)
    with pytest.raises(ValueError):
        await bulkhead.call(script(ValueError()).coroutine)
    with pytest.raises(ValueError):
        bulkhead.call(script(ValueError()).plain)
    assert await bulkhead.call(lambda: asyncio.sleep(0, "awaited")) == "awaited"
    assert bulkhead.in_use == 0


def test_threads_and_tasks_of_several_loops_share_one_with_exact_totals():
    bulkhead = Bulkhead("llm", max_concurrent=4, max_queued=1000)
    lock, running, most, done = threading.Lock(), [0], [0], [0]

    def step(change):
        with lock:
            running[0] += change
            most[0] = max(most[0], running[0])
            done[0] += change > 0

    @bulkhead
    def plain():
        step(1)
        time.sleep(0)
        step(-1)

    @bulkhead
    async def coroutine():
        step(1)
        await asyncio.sleep(0)
        step(-1)

    def in_loop():
        async def all_of_them():
            await asyncio.gather(*(coroutine() for _ in range(200)))

        asyncio.run(all_of_them())

    def in_thread():
        for _ in range(200):
            plain()

    threads = [threading.Thread(target=target) for target in (in_loop, in_thread) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert done == [1200]
    assert most[0] <= 4
    assert (running, bulkhead.in_use, bulkhead.queued) == ([0], 0, 0)


def test_waiters_of_a_closed_loop_are_passed_over():
    bulkhead = Bulkhead("llm", max_concurrent=1, max_queued=5)
    with bulkhead:
        loop = asyncio.new_event_loop()
        lost = loop.create_task(bulkhead.call(asyncio.sleep, 0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.stop()
        loop.close()
        assert bulkhead.queued == 1
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)
    lost._log_destroy_pending = False
    lost.get_coro().close()
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


@pytest.mark.parametrize("wrong", [{"max_concurrent": 0}, {"max_queued": -1}, {"max_wait": 0}, {"retry_after": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Bulkhead("llm", **{"max_concurrent": 1, **wrong})
