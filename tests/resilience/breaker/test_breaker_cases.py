"""The behaviour cases of the circuit breaker, each in every way of making a call."""

# ruff: noqa: N802 - the tests are named after the ids of the cases

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError, ServiceTimeoutError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


# A. Closed: counting.


async def test_A1_opens_on_the_fifth_failure_which_raises_its_own_error(drive: Any, clock: Any) -> None:
    d = drive()
    for second in range(4):
        clock.time = float(second)
        await d.failure()
    assert d.breaker.state is CLOSED
    assert d.metrics["failures_in_window"] == 4
    clock.time = 4.0
    await d.failure(ConnectionError("the fifth"))
    assert d.breaker.state is OPEN


async def test_A2_failures_leave_the_window(drive: Any, clock: Any) -> None:
    d = drive()
    for _ in range(4):
        await d.failure()
    clock.time = 301.0
    await d.failure()
    assert d.breaker.state is CLOSED
    assert d.metrics["failures_in_window"] == 1


async def test_A4_a_success_does_not_wipe_a_windowed_count(drive: Any) -> None:
    d = drive()
    for _ in range(4):
        await d.failure()
    await d.success()
    await d.failure()
    assert d.breaker.state is OPEN


async def test_A4_a_success_ends_a_streak_in_consecutive_mode(drive: Any) -> None:
    d = drive(mode="consecutive")
    for _ in range(4):
        await d.failure()
    await d.success()
    await d.failure()
    assert d.breaker.state is CLOSED
    assert d.metrics["consecutive_failures"] == 1


async def test_A5_a_callers_mistake_is_neutral(drive: Any) -> None:
    d = drive()
    await d.failure()
    await d.failure()
    await d.ignored()
    await d.failure()
    await d.failure()
    assert d.breaker.state is CLOSED
    assert d.metrics["failures_in_window"] == d.metrics["consecutive_failures"] == 4
    assert (d.metrics["failures"], d.metrics["successes"], d.metrics["neutral"]) == (4, 0, 1)


async def test_A6_cancellation_from_outside_counts_for_nothing(make: Any) -> None:
    breaker = make()

    async def forever() -> None:
        await asyncio.Event().wait()

    for _ in range(5):
        task = asyncio.create_task(breaker.call(forever))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("enough",)
    assert breaker.state is CLOSED
    metrics = breaker.get_metrics()
    assert (metrics["failures_in_window"], metrics["failures"], metrics["neutral"]) == (0, 0, 5)


async def test_A6_a_raised_cancellation_counts_for_nothing(drive: Any) -> None:
    d = drive()
    for _ in range(5):
        error = asyncio.CancelledError("outside")
        with pytest.raises(asyncio.CancelledError) as caught:
            await d.call(error)
        assert caught.value is error
    assert d.breaker.state is CLOSED
    assert d.metrics["failures_in_window"] == 0


async def test_A7_a_timeout_inside_the_breaker_counts(make: Any) -> None:
    breaker = make()

    async def slow() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)

    for _ in range(5):
        with pytest.raises(TimeoutError):
            await breaker.call(slow)
    assert breaker.state is OPEN


async def test_A7_our_own_timeout_error_counts(drive: Any) -> None:
    d = drive()
    for _ in range(5):
        await d.failure(ServiceTimeoutError("no answer in 30 s"))
    assert d.breaker.state is OPEN


async def test_A8_a_success_can_open_by_reaching_the_minimum(drive: Any) -> None:
    d = drive(mode="rate", failure_rate_threshold=0.5, minimum_calls=5, monitor_window=20)
    for _ in range(3):
        await d.failure()
    await d.success()
    assert d.breaker.state is CLOSED
    assert d.metrics["failure_rate"] is None
    await d.success()
    assert d.breaker.state is OPEN
    assert d.metrics["failure_rate"] == 0.6


async def test_A10_opens_by_slowness_alone(drive: Any) -> None:
    d = drive(mode="rate", slow_call_duration=4, slow_call_rate_threshold=0.5, minimum_calls=5)
    for seconds in (5, 5, 0.1, 0.1):
        await d.success(lasts=seconds)
    assert d.breaker.state is CLOSED
    await d.success(lasts=5)
    assert d.breaker.state is OPEN
    assert (d.metrics["slow_rate"], d.metrics["failure_rate"], d.metrics["slow"]) == (0.6, 0.0, 3)


# B. Open.


async def test_B1_a_refusal_says_who_why_and_how_long(drive: Any, clock: Any) -> None:
    d = drive()
    for _ in range(4):
        await d.failure()
    last = ConnectionError("the last one")
    await d.failure(last)
    clock.time = 3.0
    error = await d.refused()
    assert (error.service, error.state) == ("llm", "open")
    assert error.retry_after == pytest.approx(57)
    assert error.__cause__ is last
    assert d.metrics["rejected"] == 1


async def test_B3_a_probe_is_admitted_at_the_very_moment(drive: Any, clock: Any) -> None:
    d = drive()
    await d.trip()
    clock.time = 59.999
    await d.refused()
    clock.time = 60.0
    assert d.breaker.state is OPEN
    assert d.breaker._should_attempt_call()
    assert d.breaker.state is OPEN
    await d.success()
    assert d.breaker.state is HALF_OPEN


async def test_B5_a_late_success_counts_for_nothing(make: Any, clock: Any) -> None:
    breaker = make()
    clock.time = -5.0
    release = asyncio.Event()
    late = asyncio.create_task(breaker.call(release.wait))
    await asyncio.sleep(0)
    clock.time = 0.0
    for _ in range(5):
        breaker._record_failure(ConnectionError("boom"))
    before = breaker.get_metrics()
    clock.time = 2.0
    release.set()
    assert await late is True
    assert breaker.state is OPEN
    assert breaker.get_metrics() == before | {"retry_after": 58.0}


async def test_B7_refusals_are_fresh_and_do_not_grow(make: Any) -> None:
    breaker = make()

    async def fail() -> None:
        raise ConnectionError("boom")

    for _ in range(5):
        with pytest.raises(ConnectionError):
            await breaker.call(fail)

    def depth(trace: Any) -> int:
        return 0 if trace is None else 1 + depth(trace.tb_next)

    async def refusal() -> CircuitOpenError:
        try:
            await breaker.call(fail)
        except CircuitOpenError as error:
            return error
        raise AssertionError("not refused")

    first, second = await refusal(), await refusal()
    assert first is not second
    assert first.__cause__ is second.__cause__ is not None
    sizes, depths, causes = [], set(), set()
    for block in range(5):
        for _ in range(2_000):
            error = await refusal()
        depths.add(depth(error.__traceback__))
        causes.add(depth(error.__cause__.__traceback__))
        assert error.__context__ is None
        del error
        gc.collect()
        if block == 0:
            tracemalloc.start()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert len(depths) == len(causes) == 1
    assert max(sizes) - sizes[1] < 5_000
    assert breaker.get_metrics()["rejected"] == 10_002


# C. Half-open.


async def test_C1_of_a_hundred_calls_at_once_one_runs(make: Any, clock: Any) -> None:
    breaker = make()
    for _ in range(5):
        breaker._record_failure(ConnectionError("boom"))
    clock.time = 60.0
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)

    results = await asyncio.gather(*(breaker.call(work) for _ in range(100)), return_exceptions=True)
    assert runs == 1
    refused = [result for result in results if isinstance(result, CircuitOpenError)]
    assert len(refused) == breaker.get_metrics()["rejected"] == 99
    assert all(error.state == "half_open" and error.retry_after > 0 for error in refused)


async def test_C3_the_third_success_closes(drive: Any, clock: Any) -> None:
    d = drive()
    events: list[Any] = []
    d.breaker.add_listener(events.append)
    await d.trip()
    clock.time = 60.0
    await d.success()
    await d.success()
    assert d.breaker.state is HALF_OPEN
    await d.success()
    assert d.breaker.state is CLOSED
    assert d.metrics["failures_in_window"] == d.metrics["consecutive_failures"] == 0
    assert [event.kind for event in events] == ["open", "half_open", "closed"]


async def test_C4_a_failed_probe_opens_for_a_fresh_time(drive: Any, clock: Any) -> None:
    d = drive()
    await d.trip()
    clock.time = 60.0
    await d.success()
    await d.success()
    clock.time = 70.0
    await d.failure()
    assert d.breaker.state is OPEN
    clock.time = 129.9
    await d.refused()
    clock.time = 130.0
    await d.success()
    await d.success()
    assert d.breaker.state is HALF_OPEN
    await d.success()
    assert d.breaker.state is CLOSED


async def test_C5_a_cancelled_probe_gives_its_place_back(make: Any, clock: Any) -> None:
    breaker = make()
    for _ in range(5):
        breaker._record_failure(ConnectionError("boom"))
    clock.time = 60.0
    probe = asyncio.create_task(breaker.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        await breaker.call(asyncio.sleep, 0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert breaker.state is HALF_OPEN
    for _ in range(3):
        await breaker.call(asyncio.sleep, 0)
    assert breaker.state is CLOSED


async def test_C6_neutral_probes_neither_open_nor_close(drive: Any, clock: Any) -> None:
    d = drive()
    await d.trip()
    clock.time = 60.0
    for _ in range(4):
        await d.ignored()
    assert d.breaker.state is HALF_OPEN
    for _ in range(3):
        await d.success()
    assert d.breaker.state is CLOSED


async def test_C7_a_late_failure_counts_for_nothing(make: Any, clock: Any) -> None:
    breaker = make()
    release = asyncio.Event()

    async def fail_late() -> None:
        await release.wait()
        raise ConnectionError("late")

    late = asyncio.create_task(breaker.call(fail_late))
    await asyncio.sleep(0)
    for _ in range(5):
        breaker._record_failure(ConnectionError("boom"))
    clock.time = 60.0
    await breaker.call(asyncio.sleep, 0)
    assert breaker.state is HALF_OPEN
    release.set()
    with pytest.raises(ConnectionError, match="late"):
        await late
    assert breaker.state is HALF_OPEN
    assert breaker.get_metrics()["failures"] == 5
    await breaker.call(asyncio.sleep, 0)
    await breaker.call(asyncio.sleep, 0)
    assert breaker.state is CLOSED


# D. Operator control and events.


@pytest.mark.parametrize("leave", ["reset", "enable"])
async def test_D1_forced_open_stays_until_an_operator_ends_it(drive: Any, clock: Any, leave: str) -> None:
    d = drive()
    d.breaker.force_open()
    clock.time = 3600.0
    error = await d.refused()
    assert (error.state, error.retry_after) == ("forced_open", None)
    assert not d.breaker._should_attempt_call()
    assert d.breaker.state is CircuitState.FORCED_OPEN
    assert d.metrics["rejected"] == 1
    getattr(d.breaker, leave)()
    await d.success()
    assert d.breaker.state is CLOSED


async def test_D3_shadow_mode_tells_once_and_lets_all_run(drive: Any) -> None:
    d = drive()
    events: list[Any] = []
    d.breaker.shadow()
    d.breaker.add_listener(events.append)
    for _ in range(5):
        await d.failure()
    assert [event.kind for event in events] == ["would_open"]
    await d.failure()
    assert d.runs == 6
    assert len(events) == 1
    assert d.breaker.state is CircuitState.SHADOW
    assert d.metrics["failures_in_window"] == 5
    assert d.metrics["failures"] == 6


# The seed's example.


async def test_the_example_of_the_seed_runs() -> None:
    breaker = AIServiceCircuitBreaker("openai_api", CircuitConfig(failure_threshold=3, timeout=30))
    outcomes = []

    async def flaky(prompt: str) -> str:
        if prompt in ("prompt_2", "prompt_3", "prompt_4"):
            raise ConnectionError("Service unavailable")
        return f"AI response to: {prompt}"

    for number in range(10):
        try:
            outcomes.append(await breaker.call(flaky, f"prompt_{number}"))
        except Exception as error:
            outcomes.append(type(error))
    assert outcomes[:2] == ["AI response to: prompt_0", "AI response to: prompt_1"]
    assert outcomes[2:5] == [ConnectionError] * 3
    assert outcomes[5:] == [CircuitOpenError] * 5
