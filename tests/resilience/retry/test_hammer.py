"""Threads and tasks at full load; the totals must be exact at the end."""

import asyncio
import random
import threading

import pytest

from bulletproof.errors import OverloadedError
from bulletproof.resilience import (
    AdaptiveLimit,
    AIServiceCircuitBreaker,
    Bulkhead,
    CircuitConfig,
    Gate,
    Policy,
    RateLimit,
    RetryBudget,
    RetryPolicy,
)

THREADS, CALLS = 6, 150


class Service:
    """Fails at random, and counts."""

    def __init__(self):
        self.lock = threading.Lock()
        self.good = self.bad = self.answered = self.gave_up = 0

    def ask(self, rng):
        good = rng.random() < 0.7
        with self.lock:
            self.good += good
            self.bad += not good
        if not good:
            raise ConnectionError("down")

    async def ask_async(self, rng):
        await asyncio.sleep(0)
        self.ask(rng)

    def ended(self, answered):
        with self.lock:
            self.answered += answered
            self.gave_up += not answered


def in_threads(service, policy):
    def work(number):
        rng = random.Random(number)
        for _ in range(CALLS):
            try:
                policy.call(service.ask, rng)
            except (ConnectionError, OverloadedError):
                service.ended(False)
            else:
                service.ended(True)

    def loop(number):
        async def one(rng):
            try:
                await policy.call(service.ask_async, rng)
            except (ConnectionError, OverloadedError):
                service.ended(False)
            else:
                service.ended(True)

        async def many():
            rng = random.Random(-number)
            await asyncio.gather(*(one(rng) for _ in range(CALLS)))

        asyncio.run(many())

    threads = [threading.Thread(target=target, args=(number,)) for number in range(THREADS) for target in (work, loop)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize("everything", [False, True])
def test_every_try_is_counted_once_and_every_place_given_back(everything):
    breaker = AIServiceCircuitBreaker("service", CircuitConfig(failure_threshold=10**9))
    budget = RetryBudget(ratio=1, floor=10)
    policy = Policy(
        retry=RetryPolicy(base_delay=0, budget=budget), breaker=breaker, deadline=600, timeout=300, gate=Gate("service")
    )
    bulkhead = Bulkhead("service", max_concurrent=8, max_queued=10**6)
    adaptive = AdaptiveLimit("service", initial=8, max_queued=10**6)
    if everything:
        policy = policy.replace(bulkhead=bulkhead, adaptive_limit=adaptive, rate_limit=RateLimit(10**9))
    service = Service()
    in_threads(service, policy)
    metrics = breaker.get_metrics()
    assert service.answered + service.gave_up == 2 * THREADS * CALLS
    assert service.answered == service.good
    assert (metrics["successes"], metrics["failures"]) == (service.good, service.bad)
    assert metrics["total_calls"] == service.good + service.bad
    assert (budget.calls, budget.retries) == (0, 0)
    assert (bulkhead.in_use, bulkhead.queued, adaptive.in_use) == (0, 0, 0)
