# ruff: noqa: N802  # cases are named after their ids
"""Any stack in one object, in the right order."""

import asyncio
import inspect

import pytest

from bulletproof.errors import CircuitOpenError, DeadlineExceededError, OverloadedError, ServiceTimeoutError
from bulletproof.resilience import (
    AdaptiveLimit,
    AIServiceCircuitBreaker,
    Bulkhead,
    CircuitConfig,
    Fallback,
    Gate,
    Hedge,
    Policy,
    RateLimit,
    RetryPolicy,
    deadline,
    no_waits,
    remaining,
)


def breaker(fake, **config):
    return AIServiceCircuitBreaker("llm", CircuitConfig(**config), clock=fake.clock, now=fake.now)


@pytest.fixture(params=["plain", "coroutine"])
def kind(request):
    return request.param


async def run(policy, script, kind, *args):
    result = policy.call(getattr(script, kind), *args)
    return await result if kind == "coroutine" else result


async def test_each_try_is_counted_by_the_breaker(fake, script, kind):
    circuit = breaker(fake)
    policy = Policy(retry=RetryPolicy(**fake.handles), breaker=circuit)
    assert await run(policy, script(ConnectionError(), ConnectionError(), "answer"), kind) == "answer"
    metrics = circuit.get_metrics()
    assert (metrics["failures"], metrics["successes"]) == (2, 1)


async def test_the_retry_stops_as_soon_as_the_circuit_opens(fake, script, kind):
    ask = script(ConnectionError("down"))
    policy = Policy(retry=RetryPolicy(max_attempts=9, **fake.handles), breaker=breaker(fake, failure_threshold=3))
    with pytest.raises(CircuitOpenError) as caught:
        await run(policy, ask, kind)
    assert ask.runs == 3
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(CircuitOpenError):
        await run(policy, ask, kind)
    assert ask.runs == 3


async def test_A7_our_own_timeout_inside_the_breaker_is_a_failure(fake):
    circuit = breaker(fake)
    policy = Policy(breaker=circuit, timeout=0.001)
    for _ in range(5):
        with pytest.raises(ServiceTimeoutError):
            await policy.call(asyncio.sleep, 60)
    assert circuit.state == "open"


async def test_the_end_of_the_deadline_is_a_failure_too(fake):
    circuit = breaker(fake)
    for policy in (
        Policy(breaker=circuit, deadline=0.01),
        Policy(breaker=circuit, deadline=0.01, rate_limit=RateLimit(1000)),
        Policy(breaker=circuit, deadline=0.01, bulkhead=Bulkhead("x", max_concurrent=1)),
        Policy(breaker=circuit, retry=RetryPolicy(deadline=0.01)),
    ):
        with pytest.raises(DeadlineExceededError):
            await policy.call(asyncio.sleep, 60)
    assert circuit.get_metrics()["failures"] == 4


async def test_a_cancellation_from_outside_is_neutral(fake):
    circuit = breaker(fake)
    task = asyncio.create_task(
        Policy(breaker=circuit, timeout=60, deadline=90, retry=RetryPolicy()).call(asyncio.sleep, 60)
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (circuit.get_metrics()["failures"], circuit.get_metrics()["neutral"]) == (0, 1)


async def test_a_hung_half_open_probe_is_settled_by_the_timeout(fake, script):
    circuit = breaker(fake, failure_threshold=1, timeout=60)
    policy = Policy(breaker=circuit, timeout=0.001)
    with pytest.raises(ServiceTimeoutError):
        await policy.call(asyncio.sleep, 60)
    fake.at = 60
    with pytest.raises(ServiceTimeoutError):
        await policy.call(asyncio.sleep, 60)
    fake.at = 120
    assert await policy.call(script("answer").coroutine) == "answer"


async def test_waiting_for_a_place_or_token_is_no_failure_of_the_service(fake, script, kind):
    circuit = breaker(fake)
    policy = Policy(breaker=circuit, rate_limit=RateLimit(1, max_wait=0, clock=fake.clock))
    await run(policy, script(1), kind)
    with pytest.raises(OverloadedError):
        await run(policy, script(1), kind)
    assert circuit.get_metrics()["failures"] == 0


async def test_a_call_that_was_never_made_is_no_failure_of_the_service(fake, script, kind):
    circuit, ask = breaker(fake), script(1)
    with deadline(5, clock=fake.clock):
        fake.at = 5
        for policy in (
            Policy(breaker=circuit, timeout=3),
            Policy(breaker=circuit, deadline=3),
            Policy(breaker=circuit, deadline=3, rate_limit=RateLimit(1)),
        ):
            with pytest.raises(DeadlineExceededError):
                await run(policy, ask, kind)
    assert (ask.runs, circuit.get_metrics()["total_calls"]) == (0, 0)


async def test_each_try_takes_a_token_and_the_whole_call_one_place(fake, script, kind):
    limit = RateLimit(1, burst=10, clock=fake.clock)
    bulkhead = Bulkhead("llm", max_concurrent=1)
    adaptive = AdaptiveLimit("llm", initial=1, clock=fake.clock)
    policy = Policy(retry=RetryPolicy(), rate_limit=limit, bulkhead=bulkhead, adaptive_limit=adaptive)
    with no_waits():
        assert await run(policy, script(ConnectionError(), ConnectionError(), 1), kind) == 1
    assert limit.tokens == 7
    assert (bulkhead.in_use, adaptive.in_use) == (0, 0)


async def test_the_fallback_answers_when_all_else_fails_even_after_the_deadline(fake, script):
    policy = Policy(
        fallback=Fallback(lambda _: "local answer"), deadline=0.01, retry=RetryPolicy(), breaker=breaker(fake)
    )
    assert await policy.call(asyncio.sleep, 60) == "local answer"


async def test_the_deadline_reaches_every_try(fake, script, kind):
    told = []

    def look():
        told.append(remaining())
        fake.at += 2
        return ConnectionError("down")

    policy = Policy(
        deadline=10,
        timeout=5,
        retry=RetryPolicy(max_attempts=9, base_delay=1, backoff="constant", jitter="none", **fake.handles),
        clock=fake.clock,
    )
    with pytest.raises(ConnectionError):
        await run(policy, script(look), kind)
    assert told == [5, 5, 4, 1]


async def test_the_shorter_of_two_limits_wins(fake, script, kind):
    told = []
    policy = Policy(
        deadline=10, timeout=7, retry=RetryPolicy(deadline=50, attempt_timeout=3, **fake.handles), clock=fake.clock
    )
    await run(policy, script(lambda: told.append(remaining())), kind)
    assert told == [3]


async def test_a_gate_holds_every_try(fake, script, kind):
    gate = Gate("llm", interval=0, **fake.handles)
    for policy in (Policy(gate=gate, retry=RetryPolicy(**fake.handles)), Policy(gate=gate)):
        gate.hold(4)
        assert await run(policy, script(1), kind) == 1
    assert fake.waits == [4, 4]


async def test_a_hedged_try_is_one_call_for_the_breaker(fake):
    circuit, runs = breaker(fake), []

    @Policy(breaker=circuit, hedge=Hedge(delay=0.001))
    async def ask():
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(60)
        return "answer"

    assert await ask() == "answer"
    assert circuit.get_metrics()["total_calls"] == 1


async def test_a_plain_function_that_gives_a_coroutine_is_counted_once(fake, script):
    circuit = breaker(fake)
    ask = script(ConnectionError(), "answer")
    policy = Policy(retry=RetryPolicy(**fake.handles), breaker=circuit)
    assert await policy.call(lambda: ask.coroutine()) == "answer"
    metrics = circuit.get_metrics()
    assert (metrics["total_calls"], metrics["failures"], metrics["successes"], metrics["neutral"]) == (2, 1, 1, 0)


async def test_functions_keep_kind_and_signature(kind):
    everything = Policy(
        fallback=Fallback(len),
        deadline=9,
        bulkhead=Bulkhead("x", max_concurrent=9),
        retry=RetryPolicy(),
        gate=Gate("x"),
        rate_limit=RateLimit(9),
        adaptive_limit=AdaptiveLimit("x"),
        breaker=AIServiceCircuitBreaker("x", CircuitConfig()),
        timeout=5,
        hedge=Hedge(),
        name="all",
    )

    async def ask(prompt: str, *, model: str = "m") -> str:
        """Ask."""
        return prompt + model

    def ask_plain(prompt: str, *, model: str = "m") -> str:
        """Ask."""
        return prompt + model

    fn = ask if kind == "coroutine" else ask_plain
    for policy in (everything, Policy(deadline=9, retry=RetryPolicy()), Policy()):
        wrapped = policy(fn)
        assert inspect.signature(wrapped) == inspect.signature(fn)
        assert inspect.iscoroutinefunction(wrapped) is (kind == "coroutine")
        assert wrapped.__doc__ == "Ask."
        result = wrapped("a", model="b")
        assert (await result if kind == "coroutine" else result) == "ab"
    order = [line.split()[1].rstrip(":") for line in everything.describe().splitlines()[1:]]
    assert order == [
        "fallback", "deadline", "bulkhead", "retry", "gate", "rate_limit", "adaptive_limit", "breaker", "timeout",
        "hedge",
    ]  # fmt: skip


def test_it_explains_itself():
    policy = Policy(deadline=9, retry=RetryPolicy(max_attempts=5), name="chat")
    assert repr(policy) == "Policy(deadline=9, retry=RetryPolicy(max_attempts=5), name='chat')"
    assert policy.describe().splitlines()[0] == "chat, from the outside in:"
    assert Policy().describe() == "policy: nothing stands around the call"
    assert policy.replace(deadline=None, name="other").deadline is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"deadline": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"retry": 3}, TypeError),
        ({"breaker": "x"}, TypeError),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(wrong, error):
    with pytest.raises(error):
        Policy(**wrong)
