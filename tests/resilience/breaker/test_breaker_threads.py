"""Hammered by threads and tasks, the totals are exact."""

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError, InputValidationError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState

THREADS, CALLS = 8, 6_000
MANY = 10**6
CONFIGS = {
    "window": CircuitConfig(failure_threshold=MANY),
    "consecutive": CircuitConfig(failure_threshold=MANY, mode="consecutive"),
    "rate_time": CircuitConfig(mode="rate", minimum_calls=MANY, slow_call_duration=50, monitor_window=1e6),
    "rate_time_small_grain": CircuitConfig(mode="rate", minimum_calls=MANY, monitor_window=0.25),
    "rate_count": CircuitConfig(mode="rate", minimum_calls=MANY, window_type="count", window_size=MANY),
    "rate_count_slow": CircuitConfig(
        mode="rate", failure_rate_threshold=1, window_type="count", window_size=MANY, slow_call_duration=50
    ),
}


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Let threads be interrupted as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammer(work: Callable[[int], None]) -> None:
    """Run a function in eight threads that start together."""
    start = threading.Barrier(THREADS)

    def body(number: int) -> None:
        start.wait()
        work(number)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def outcome(number: int) -> str:
    if number % 10 == 3:
        raise ConnectionError("boom")
    if number % 10 == 7:
        raise InputValidationError("the caller's mistake")
    return "done"


@pytest.mark.parametrize("name", CONFIGS)
def test_no_call_is_lost_or_counted_twice(name: str) -> None:
    breaker = AIServiceCircuitBreaker("llm", CONFIGS[name])
    decorated = breaker(outcome)

    def work(thread: int) -> None:
        for number in range(CALLS):
            try:
                if number % 3 == 0:
                    breaker.call_sync(outcome, number)
                elif number % 3 == 1:
                    decorated(number)
                else:
                    with breaker:
                        outcome(number)
            except (ConnectionError, InputValidationError):
                if number % 100 == 3:
                    breaker.get_metrics()

    hammer(work)
    metrics = breaker.get_metrics()
    total = THREADS * CALLS
    assert (metrics["successes"], metrics["failures"], metrics["neutral"]) == (
        total * 8 // 10,
        total // 10,
        total // 10,
    )
    assert (metrics["total_calls"], metrics["rejected"], metrics["state"]) == (total, 0, "closed")
    if name.startswith("rate") and "small" not in name and breaker._inner is not None:
        rates = breaker._inner.machine.rates
        assert rates is not None
        assert (rates.total, rates.failures) == (total * 9 // 10, total // 10)


def test_only_successes_stay_on_the_fast_way_and_are_all_counted() -> None:
    breaker = AIServiceCircuitBreaker("llm")
    hammer(lambda thread: [breaker.call_sync(int) for _ in range(5_000)] and None)  # type: ignore[func-returns-value]
    assert breaker.get_metrics()["successes"] == THREADS * 5_000


def test_every_refusal_is_counted() -> None:
    breaker = AIServiceCircuitBreaker("llm")
    for _ in range(5):
        breaker._record_failure(ConnectionError("boom"))
    ran: list[int] = []

    def work(thread: int) -> None:
        for _ in range(CALLS):
            with pytest.raises(CircuitOpenError):
                breaker.call_sync(ran.append, thread)

    hammer(work)
    assert (breaker.get_metrics()["rejected"], ran) == (THREADS * CALLS, [])


def test_of_many_threads_at_the_end_of_the_open_time_one_probes() -> None:
    time = [0.0]
    breaker = AIServiceCircuitBreaker("llm", clock=lambda: time[0])
    for round_number in range(20):
        breaker.reset()
        for _ in range(5):
            breaker._record_failure(ConnectionError("boom"))
        time[0] += 60.0
        running, refused = [], []
        everyone = threading.Barrier(THREADS)

        def probe() -> None:
            running.append(1)  # noqa: B023
            everyone.wait()  # noqa: B023 - holds the place until all others were refused

        def work(thread: int) -> None:
            try:
                breaker.call_sync(probe)
            except CircuitOpenError:
                refused.append(1)  # noqa: B023
                everyone.wait()  # noqa: B023

        hammer(work)
        assert (len(running), len(refused)) == (1, THREADS - 1), round_number
        assert breaker.state is CircuitState.HALF_OPEN


def test_it_opens_exactly_once_however_many_threads_fail_together() -> None:
    kinds: list[str] = []
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=50))
    breaker.add_listener(lambda event: kinds.append(event.kind))
    ran: list[int] = []

    def fail() -> None:
        ran.append(1)
        raise ConnectionError("boom")

    def work(thread: int) -> None:
        for _ in range(200):
            with pytest.raises((ConnectionError, CircuitOpenError)):
                breaker.call_sync(fail)

    hammer(work)
    metrics = breaker.get_metrics()
    assert kinds == ["open"]
    assert metrics["failures"] == 50
    late = len(ran) - 50
    assert 0 <= late < THREADS
    assert metrics["rejected"] == THREADS * 200 - len(ran)


def test_events_arrive_in_order_and_none_is_lost() -> None:
    breaker = AIServiceCircuitBreaker("llm")
    seen: list[Any] = []
    breaker.add_listener(seen.append)

    def work(thread: int) -> None:
        for _ in range(100):
            breaker.force_open()
            breaker.reset()

    hammer(work)
    assert len(seen) == breaker.get_metrics()["transitions"]
    assert all(before.new is after.old for before, after in itertools.pairwise(seen))


async def test_tasks_and_threads_at_once() -> None:
    breaker = AIServiceCircuitBreaker("llm", CONFIGS["window"])

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        outcome(number)

    async def many() -> None:
        for number in range(1_000):
            try:
                await breaker.call(work, number)
            except (ConnectionError, InputValidationError):
                continue

    thread = threading.Thread(target=lambda: asyncio.run(many()))
    thread.start()
    await asyncio.gather(many(), many())
    await asyncio.to_thread(thread.join)
    metrics = breaker.get_metrics()
    assert (metrics["successes"], metrics["failures"], metrics["neutral"]) == (2_400, 300, 300)
