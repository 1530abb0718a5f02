"""The share of calls that may be retries."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.resilience import RetryBudget, RetryPolicy


@given(st.floats(0.01, 1), st.integers(0, 20), st.lists(st.sampled_from(["enter", "leave", "acquire", "release"])))
def test_retries_never_begin_beyond_the_share_or_the_floor(ratio, floor, steps):
    budget, calls, retries = RetryBudget(ratio, floor), 0, 0
    for step in steps:
        if step == "enter":
            budget.enter()
            calls += 1
        elif step == "leave" and calls:
            budget.leave()
            calls -= 1
        elif step == "acquire":
            allowed = retries < max(floor, int(calls * ratio))
            assert budget.acquire() is allowed
            retries += allowed
        elif step == "release" and retries:
            budget.release()
            retries -= 1
    assert (budget.calls, budget.retries) == (calls, retries)


def test_by_default_a_fifth_of_the_calls_and_at_least_three():
    budget = RetryBudget()
    assert [budget.acquire() for _ in range(4)] == [True, True, True, False]
    for _ in range(100):
        budget.enter()
    assert budget.limit == 20


def test_a_storm_of_failing_calls_retries_a_fifth_of_them(fake):
    """A hundred calls fail together: twenty of them wait for a retry, the others give up."""
    budget = RetryBudget()
    gathered, reasons = threading.Barrier(100), []

    def ask():
        gathered.wait()
        raise ConnectionError("down")

    def sleep(_):
        # Those that wait hold their places until all others have given up.
        while len(reasons) < 80:
            done.wait(0.001)
        gathered.abort()

    done = threading.Event()
    rules = RetryPolicy(
        max_attempts=2, budget=budget, sleep=sleep, retry_on=ConnectionError, on_giveup=lambda e: reasons.append(e)
    )

    def call():
        with pytest.raises((ConnectionError, threading.BrokenBarrierError)):
            rules.call(ask)

    threads = [threading.Thread(target=call) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.reason == "the retry budget is used up" for one in reasons) == 80
    assert (budget.calls, budget.retries) == (0, 0)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_places_are_given_back_however_the_call_ends(fake, script, kind):
    budget = RetryBudget(floor=1)
    rules = RetryPolicy(budget=budget, **fake.handles)
    for outcomes in ([1], [ConnectionError(), 1], [ConnectionError()], [ConnectionError(), ValueError()]):
        try:
            result = rules.call(getattr(script(*outcomes), kind))
            if kind == "coroutine":
                await result
        except (ConnectionError, ValueError):
            pass
        assert (budget.calls, budget.retries) == (0, 0)


def test_threads_hammering_a_budget_leave_exact_totals():
    budget = RetryBudget(ratio=1, floor=10**6)

    def hammer():
        for _ in range(5000):
            budget.enter()
            if budget.acquire():
                budget.release()
            budget.leave()

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.calls, budget.retries) == (0, 0)


@pytest.mark.parametrize("wrong", [{"ratio": 0}, {"ratio": 1.5}, {"floor": -1}, {"ratio": float("nan")}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        RetryBudget(**wrong)
