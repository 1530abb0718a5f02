"""What a retry and a stack cost per call, beside other libraries where they are installed.

A call that succeeds at once, async and plain; a call that fails once and is tried again without waiting; retry and
breaker together; a policy with a deadline. All in interleaved rounds of thread CPU time, as medians over a bare call.

    python -m benchmarks resilience_retry
    pip install tenacity stamina backoff hyx pyfailsafe resilient-circuit aioresilience purgatory aiobreaker \\
        baldur-framework
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import Row, measure, report
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Policy, RetryPolicy, ai_api_retry

DIST = "bulletproof-ai"
SUCCESS, PLAIN, FAILURE, STACK, TIMED = (
    "retry, no failure, async",
    "retry, no failure, plain",
    "one failure, one retry, async",
    "retry and breaker, async",
    "with a time limit, async",
)


async def answer(value: int) -> int:
    """Return at once."""
    return value


def answer_plain(value: int) -> int:
    """Return at once."""
    return value


class EverySecond:
    """Fails at every other call."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, value: int) -> int:
        self.calls += 1
        if self.calls % 2:
            raise ConnectionError("down")
        return value

    @property
    def function(self) -> Callable[[int], Any]:
        """The same as a coroutine function, which some libraries insist on."""

        async def every_second(value: int) -> int:
            return await self(value)

        return every_second


def hand_written(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The loop that people write when they have no library."""

    async def loop(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(3):
            try:
                return await fn(*args, **kwargs)
            except (ConnectionError, TimeoutError):
                if attempt == 2:
                    raise
                await asyncio.sleep(0)
        raise AssertionError

    return loop


def hand_written_plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same for plain functions."""

    def loop(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(3):
            try:
                return fn(*args, **kwargs)
            except (ConnectionError, TimeoutError):
                if attempt == 2:
                    raise
        raise AssertionError

    return loop


def frame(fn: Callable[..., Any]) -> Callable[..., Any]:
    """One more coroutine frame around the call, and nothing else."""

    async def outer(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return outer


def breaker() -> AIServiceCircuitBreaker:
    """Return a breaker of the default kind."""
    return AIServiceCircuitBreaker("benchmark", CircuitConfig())


def ours() -> Iterator[Row]:
    """Yield the yardsticks and our own rows."""
    now = RetryPolicy(base_delay=0)

    async def timed(value: int) -> int:
        async with asyncio.timeout(30):
            return await answer(value)

    async def suspended(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def suspended_timed(value: int) -> int:
        async with asyncio.timeout(30):
            return await suspended(value)

    yield Row("bare call", answer, SUCCESS)
    yield Row("one more frame", frame(answer), SUCCESS)
    yield Row("loop written by hand", hand_written(answer), SUCCESS)
    yield Row("bulletproof RetryPolicy", RetryPolicy()(answer), SUCCESS, library=DIST)
    yield Row("bulletproof ai_api_retry", ai_api_retry()(answer), SUCCESS, library=DIST)
    yield Row("bare call", answer_plain, PLAIN)
    yield Row("loop written by hand", hand_written_plain(answer_plain), PLAIN)
    yield Row("bulletproof RetryPolicy", RetryPolicy()(answer_plain), PLAIN, library=DIST)
    yield Row("bare call", answer, FAILURE)
    yield Row("loop written by hand", hand_written(EverySecond().function), FAILURE)
    yield Row("bulletproof RetryPolicy", now(EverySecond().function), FAILURE, library=DIST)
    yield Row("bare call", answer, STACK)
    yield Row("one more frame", frame(answer), STACK)
    yield Row("bulletproof Policy", Policy(retry=RetryPolicy(), breaker=breaker())(answer), STACK, library=DIST)
    stacked = RetryPolicy()(breaker()(answer))
    yield Row("bulletproof, two decorators", stacked, STACK, library=DIST)
    yield Row("bare call", answer, TIMED)
    yield Row("asyncio.timeout", timed, TIMED)
    whole = Policy(deadline=30, retry=RetryPolicy(), breaker=breaker())
    yield Row("bulletproof Policy: deadline, retry, breaker", whole(answer), TIMED, library=DIST)
    each = whole.replace(timeout=10)
    yield Row("bulletproof Policy: the same and a timeout", each(answer), TIMED, library=DIST)
    yield Row("asyncio.timeout, call that waits", suspended_timed, TIMED)
    yield Row("bulletproof Policy, call that waits", whole(suspended), TIMED, library=DIST)


def tenacity() -> Iterator[Row]:
    """The most used one."""
    import tenacity

    def settings() -> Any:
        return tenacity.retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type((ConnectionError, TimeoutError)),
            reraise=True,
        )

    yield Row("tenacity", settings()(answer), SUCCESS, library="tenacity")
    yield Row("tenacity", settings()(answer_plain), PLAIN, library="tenacity")
    yield Row("tenacity", settings()(EverySecond().function), FAILURE, library="tenacity")
    with contextlib.suppress(ImportError):
        import purgatory

        circuits = purgatory.AsyncCircuitBreakerFactory()
        guarded = circuits("benchmark")(answer)
        yield Row("tenacity and purgatory", settings()(guarded), STACK, library="purgatory")
    with contextlib.suppress(ImportError):
        import aiobreaker

        guarded = aiobreaker.CircuitBreaker()(answer)
        yield Row("tenacity and aiobreaker", settings()(guarded), STACK, library="aiobreaker")


def stamina() -> Iterator[Row]:
    """Tenacity with better defaults."""
    import stamina
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([])  # it would log each retry, which the others do not
    settings = stamina.retry(on=(ConnectionError, TimeoutError), attempts=3, wait_initial=0, wait_max=0, wait_jitter=0)
    yield Row("stamina", settings(answer), SUCCESS, library="stamina")
    yield Row("stamina", settings(answer_plain), PLAIN, library="stamina")
    yield Row("stamina", settings(EverySecond().function), FAILURE, library="stamina")


def backoff() -> Iterator[Row]:
    """Decorators with generators of waits."""
    import backoff

    settings = backoff.on_exception(
        backoff.constant, (ConnectionError, TimeoutError), max_tries=3, interval=0, jitter=None
    )
    yield Row("backoff", settings(answer), SUCCESS, library="backoff")
    yield Row("backoff", settings(answer_plain), PLAIN, library="backoff")
    yield Row("backoff", settings(EverySecond().function), FAILURE, library="backoff")


def hyx() -> Iterator[Row]:
    """Async only."""
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.retry import retry

    settings = retry(on=(ConnectionError, TimeoutError), attempts=3, backoff=0)
    yield Row("hyx", settings(answer), SUCCESS, library="hyx")
    yield Row("hyx", settings(EverySecond().function), FAILURE, library="hyx")
    yield Row("hyx", settings(consecutive_breaker(exceptions=ConnectionError)(answer)), STACK, library="hyx")


def pyfailsafe() -> Iterator[Row]:
    """Async only."""
    from failsafe import CircuitBreaker, Failsafe, RetryPolicy

    alone = Failsafe(retry_policy=RetryPolicy(3))
    both = Failsafe(retry_policy=RetryPolicy(3), circuit_breaker=CircuitBreaker())

    async def run(value: int) -> Any:
        return await alone.run(lambda: answer(value))

    async def run_both(value: int) -> Any:
        return await both.run(lambda: answer(value))

    flaky = EverySecond()

    async def run_flaky(value: int) -> Any:
        return await alone.run(lambda: flaky(value))

    yield Row("pyfailsafe", run, SUCCESS, library="pyfailsafe")
    yield Row("pyfailsafe", run_flaky, FAILURE, library="pyfailsafe")
    yield Row("pyfailsafe", run_both, STACK, library="pyfailsafe")


def resilient_circuit() -> Iterator[Row]:
    """Retry and breaker as policies."""
    from resilient_circuit import CircuitProtectorPolicy, RetryWithBackoffPolicy, SafetyNet

    yield Row("resilient-circuit", RetryWithBackoffPolicy()(answer), SUCCESS, library="resilient-circuit")
    yield Row("resilient-circuit", RetryWithBackoffPolicy()(answer_plain), PLAIN, library="resilient-circuit")
    yield Row(
        "resilient-circuit", RetryWithBackoffPolicy()(EverySecond().function), FAILURE, library="resilient-circuit"
    )
    net = SafetyNet(policies=(RetryWithBackoffPolicy(), CircuitProtectorPolicy(resource_key="benchmark")))
    yield Row("resilient-circuit", net(answer), STACK, library="resilient-circuit")


def aioresilience() -> Iterator[Row]:
    """Async only."""
    from aioresilience import CircuitBreaker, RetryConfig, RetryPolicy, with_circuit_breaker

    def policy() -> Any:
        return RetryPolicy(RetryConfig(max_attempts=3, initial_delay=0.001, jitter=0.0))

    alone, guarded = policy(), with_circuit_breaker(CircuitBreaker("benchmark"))(answer)

    async def run(value: int) -> Any:
        return await alone.execute(answer, value)

    async def run_both(value: int) -> Any:
        return await alone.execute(guarded, value)

    yield Row("aioresilience", run, SUCCESS, library="aioresilience")
    yield Row("aioresilience", run_both, STACK, library="aioresilience")


def baldur() -> Iterator[Row]:
    """A framework: its one call brings breaker and retry."""
    import baldur

    async def run(value: int) -> Any:
        return await baldur.aprotect("benchmark", lambda: answer(value), retry=True)

    yield Row("baldur-framework", run, STACK, library="baldur-framework")


PEERS = (tenacity, stamina, backoff, hyx, pyfailsafe, resilient_circuit, aioresilience, baldur)
UNIT = {
    SUCCESS: "loop written by hand",
    PLAIN: "loop written by hand",
    FAILURE: "loop written by hand",
    STACK: "one more frame",
    TIMED: "asyncio.timeout",
}
ORDER = list(UNIT)


def main() -> int:
    """Measure, print, write."""
    logging.disable(logging.CRITICAL)
    rows, missing = list(ours()), []
    for peer in PEERS:
        try:
            rows += list(peer())
        except ImportError as error:
            missing.append(error.name or peer.__name__)
    rows.sort(key=lambda row: ORDER.index(row.group))
    ratio = report("resilience_retry", rows, measure(rows), bare=dict.fromkeys(UNIT, "bare call"), unit=UNIT)
    if missing:
        print(f"\nnot installed, not measured: {', '.join(sorted(missing))}")
    loop, stack = ratio[f"{SUCCESS}/bulletproof RetryPolicy"], ratio[f"{STACK}/bulletproof Policy"]
    print(f"\nretry without failure: {loop:.2f} of a loop written by hand (at most 1.2)")
    print(f"retry and breaker: {stack:.2f} of one more frame (at most 2.5)")
    return 0 if loop <= 1.2 and stack <= 2.5 else 1


if __name__ == "__main__":
    sys.exit(main())
