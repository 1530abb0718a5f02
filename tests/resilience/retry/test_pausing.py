"""Waiting, and leaving it out."""

import asyncio
import threading
import time

from bulletproof.resilience import RetryPolicy, no_waits


async def test_nested_testing_modes_each_hear_of_the_waits(script):
    with no_waits() as outer:
        with no_waits() as inner:
            RetryPolicy(jitter="none").call(script(ConnectionError(), 1).plain)
        await RetryPolicy(jitter="none").call(script(ConnectionError(), 1).coroutine)
    assert (outer, inner) == ([0.5, 0.5], [0.5])


def test_the_testing_mode_reaches_other_threads(script):
    with no_waits() as waits:
        thread = threading.Thread(
            target=RetryPolicy(base_delay=60, max_delay=60, jitter="none").call,
            args=(script(ConnectionError(), 1).plain,),
        )
        thread.start()
        thread.join(timeout=10)
    assert waits == [60]


async def test_a_left_out_wait_still_lets_other_tasks_run():
    turns = []

    async def other():
        turns.append("other")

    async def ask():
        turns.append("ask")
        if len(turns) == 1:
            asyncio.get_running_loop().create_task(other())
            raise ConnectionError

    with no_waits():
        await RetryPolicy().call(ask)
    assert turns == ["ask", "other", "ask"]


async def test_the_usual_sleeps_can_be_swapped_without_harm(script):
    """``time.sleep`` given to a coroutine must not block the loop, nor ``asyncio.sleep`` break plain code."""
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await RetryPolicy(base_delay=0.03, jitter="none", sleep=time.sleep).call(script(ConnectionError(), 1).coroutine)
    ticking.cancel()
    assert ticks > 3
    RetryPolicy(base_delay=0.001, sleep=asyncio.sleep).call(script(ConnectionError(), 1).plain)
