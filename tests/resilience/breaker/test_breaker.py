"""What the circuit breaker does besides the behaviour cases: configuration, counting, opening and closing."""

import gc
import weakref
from contextlib import suppress
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError, InputValidationError, RateLimitedError
from bulletproof.resilience import CircuitConfig, CircuitState
from support.breakers import BOOM, CLOSED, HALF_OPEN, OPEN, trip

# Configuration.


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("failure_threshold", [0, -1, 2.5, True, None, "5"]),
        ("success_threshold", [0, -3, 1.0]),
        ("timeout", [-1, float("nan"), float("inf"), "60", None]),
        ("monitor_window", [0, -1, float("nan"), float("inf")]),
        ("mode", ["windows", None, ""]),
        ("window_type", ["calls", 3]),
        ("failure_rate_threshold", [0, -0.1, 1.01, 50, float("nan"), None]),
        ("slow_call_rate_threshold", [0, 2, float("nan")]),
        ("slow_call_duration", [0, -1, float("nan"), float("inf")]),
        ("minimum_calls", [0, -1, 1.5]),
        ("window_size", [0, -1, 1.5]),
        ("half_open_max_calls", [0, -1, 1.5, None]),
        ("half_open_timeout", [0, -1, float("inf")]),
        ("timeout_factor", [0.99, 0, -1, float("nan"), float("inf")]),
        ("max_timeout", [59, 0, -1, float("nan")]),
        ("is_failure", [3, "yes"]),
        ("is_failure_result", [3, "yes"]),
    ],
)
def test_nonsense_values_are_refused_at_construction(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name):
            CircuitConfig(**{name: value})


def test_a_minimum_that_a_count_window_never_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum_calls"):
        CircuitConfig(mode="rate", window_type="count", window_size=4, minimum_calls=5)
    assert CircuitConfig(mode="rate", window_type="count", window_size=4).least_calls == 4


def test_the_seeds_defaults() -> None:
    config = CircuitConfig()
    assert (config.failure_threshold, config.success_threshold, config.timeout, config.monitor_window) == (
        5,
        3,
        60,
        300,
    )
    assert CircuitConfig(3, 2, 30, 100) == CircuitConfig(
        failure_threshold=3, success_threshold=2, timeout=30, monitor_window=100
    )
    assert [state.value for state in list(CircuitState)[:3]] == ["closed", "open", "half_open"]


# What is counted, and how.


@pytest.mark.parametrize("error", [ValueError("bare"), Exception("bare"), KeyError("x"), AssertionError()])
async def test_every_exception_that_is_not_the_callers_mistake_counts(drive: Any, error: Exception) -> None:
    d = drive(failure_threshold=1)
    await d.failure(error)
    assert d.breaker.state is OPEN


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
async def test_interruptions_are_neutral(drive: Any, error: BaseException) -> None:
    d = drive(failure_threshold=1)
    with pytest.raises(type(error)):
        await d.call(error)
    assert (d.breaker.state, d.metrics["neutral"]) == (CLOSED, 1)


async def test_is_failure_has_the_say(drive: Any) -> None:
    d = drive(
        failure_threshold=1,
        is_failure=lambda error: {KeyError: True, LookupError: False, InputValidationError: None}[type(error)],
    )
    await d.ignored()
    await d.failure(LookupError())
    assert (d.metrics["neutral"], d.metrics["successes"], d.breaker.state) == (1, 1, CLOSED)
    await d.failure(KeyError())
    assert d.breaker.state is OPEN


async def test_a_false_verdict_is_a_successful_probe(drive: Any, clock: Any) -> None:
    d = drive(is_failure=lambda error: isinstance(error, ConnectionError), success_threshold=1)
    await d.trip()
    clock.time = 60.0
    await d.failure(LookupError("the service answered: no such thing"))
    assert d.breaker.state is CLOSED


async def test_an_error_in_a_predicate_comes_out_and_keeps_no_place(drive: Any, clock: Any) -> None:
    def judge(error: BaseException) -> bool:
        if isinstance(error, LookupError):
            raise ZeroDivisionError("in the predicate")
        return True

    d = drive(is_failure=judge, success_threshold=1)
    await d.trip()
    clock.time = 60.0
    with pytest.raises(ZeroDivisionError) as caught:
        await d.call(LookupError("judged"))
    assert isinstance(caught.value.__context__, LookupError)
    await d.success()
    assert d.breaker.state is CLOSED


async def test_bad_results_count_and_are_returned_all_the_same(make: Any) -> None:
    breaker = make(failure_threshold=2, is_failure_result=lambda answer: answer["status"] >= 500)

    async def answer(status: int) -> dict[str, int]:
        return {"status": status}

    assert await breaker.call(answer, 200) == {"status": 200}
    assert await breaker.call(answer, 503) == {"status": 503}
    assert breaker(lambda: {"status": 500})() == {"status": 500}
    assert breaker.state is OPEN
    metrics = breaker.get_metrics()
    assert (metrics["successes"], metrics["failures"]) == (1, 2)
    assert metrics["last_error"] == "a result of type dict was judged a failure"
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.call(answer, 200)
    assert caught.value.__cause__ is None


async def test_only_slow_calls_in_any_mode_open_too(drive: Any) -> None:
    d = drive(slow_call_duration=2, minimum_calls=3)
    await d.success(lasts=2)
    await d.success(lasts=2)
    assert d.breaker.state is CLOSED
    await d.success(lasts=2)
    assert d.breaker.state is OPEN


async def test_a_fast_call_can_open_it_by_reaching_the_minimum_of_slow_ones(drive: Any) -> None:
    d = drive(mode="rate", slow_call_duration=4, slow_call_rate_threshold=0.5, minimum_calls=5)
    for seconds in (5, 5, 5, 0.1):
        await d.success(lasts=seconds)
    assert d.breaker.state is CLOSED
    await d.success(lasts=0.1)
    assert d.breaker.state is OPEN


async def test_a_slow_probe_opens_again(drive: Any, clock: Any) -> None:
    d = drive(slow_call_duration=2)
    await d.trip()
    clock.time = 60.0
    await d.success(lasts=1)
    assert d.breaker.state is HALF_OPEN
    await d.success(lasts=3)
    assert d.breaker.state is OPEN


async def test_a_count_window_forgets_the_oldest(drive: Any) -> None:
    d = drive(mode="rate", window_type="count", window_size=4, minimum_calls=4)
    await d.failure()
    for _ in range(4):
        await d.success()
    await d.failure()
    assert d.metrics["failure_rate"] == 0.25
    await d.failure()
    assert d.breaker.state is OPEN


async def test_failures_of_long_ago_raise_no_rate(drive: Any, clock: Any) -> None:
    d = drive(mode="rate", monitor_window=20, minimum_calls=4)
    for _ in range(3):
        await d.failure()
    clock.time = 20.0
    for _ in range(3):
        await d.success()
    await d.failure()
    assert (d.breaker.state, d.metrics["failure_rate"]) == (CLOSED, 0.25)


async def test_without_slow_calls_no_success_reads_the_clock(drive: Any, clock: Any) -> None:
    d = drive()
    await d.failure()
    reads = clock.reads
    for _ in range(3):
        await d.success()
    assert clock.reads == reads


# Open and half-open.


async def test_retry_after_of_the_error_that_trips_it_lengthens_the_open_time(drive: Any, clock: Any) -> None:
    d = drive(failure_threshold=2)
    await d.failure(RateLimitedError("too many", retry_after=500.0))
    await d.failure(RateLimitedError("too many", retry_after=90.0))
    clock.time = 89.0
    assert (await d.refused()).retry_after == 1.0
    clock.time = 90.0
    await d.success()


@pytest.mark.parametrize(("told", "waits"), [(10.0, 60), (1e34, 86_400), (None, 60), (-5.0, 60)])
async def test_retry_after_only_lengthens_and_by_no_more_than_a_day(
    make: Any, told: float | None, waits: float
) -> None:
    breaker = make(failure_threshold=1)
    breaker._record_failure(RateLimitedError("too many", retry_after=told))
    assert breaker.get_metrics()["retry_after"] == waits


async def test_max_timeout_bounds_retry_after(make: Any) -> None:
    breaker = make(failure_threshold=1, max_timeout=100)
    breaker._record_failure(RateLimitedError("too many", retry_after=500.0))
    assert breaker.get_metrics()["retry_after"] == 100


async def test_the_open_time_grows_with_each_failed_probe_and_is_forgotten_when_closed(drive: Any, clock: Any) -> None:
    d = drive(failure_threshold=1, success_threshold=1, timeout=10, timeout_factor=3, max_timeout=50)
    await d.failure()
    for expected in (10, 30, 50, 50):
        assert d.metrics["retry_after"] == expected
        clock.time += expected
        await d.failure()
    clock.time += 50
    await d.success()
    assert d.breaker.state is CLOSED
    await d.failure()
    assert d.metrics["retry_after"] == 10


async def test_so_many_probes_run_at_once_as_allowed(make: Any, clock: Any) -> None:
    breaker = make(half_open_max_calls=3)
    trip(breaker)
    clock.time = 60.0
    tickets = [breaker.admit() for _ in range(3)]
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    breaker.withdraw(tickets[1])
    tickets[1] = breaker.admit()
    for ticket in tickets:
        breaker.succeeded(ticket)
    assert breaker.state is CLOSED


async def test_a_probe_that_hangs_loses_its_place_and_its_say(make: Any, clock: Any) -> None:
    breaker = make(half_open_timeout=30, success_threshold=1)
    trip(breaker)
    clock.time = 60.0
    hanging = breaker.admit()
    clock.time = 89.0
    assert not breaker._should_attempt_call()
    with pytest.raises(CircuitOpenError) as caught:
        breaker.admit()
    assert caught.value.retry_after == 1.0
    clock.time = 90.0
    second = breaker.admit()
    breaker.failed(hanging, BOOM)
    assert breaker.state is HALF_OPEN
    breaker.succeeded(second)
    assert breaker.state is CLOSED


async def test_a_hung_probe_never_wedges_the_default_config(make: Any, clock: Any) -> None:
    breaker = make()
    trip(breaker)
    clock.time = 60.0
    breaker.admit()
    clock.time = 360.0
    assert breaker._should_attempt_call()
    breaker.admit()


async def test_a_probe_whose_coroutine_is_closed_gives_its_place_back(make: Any, clock: Any) -> None:
    breaker = make()
    trip(breaker)
    clock.time = 60.0

    class Suspension:
        def __await__(self) -> Any:
            yield None

    async def work() -> None:
        await Suspension()

    coroutine = breaker.call(work)
    coroutine.send(None)
    assert not breaker._should_attempt_call()
    coroutine.close()
    assert breaker._should_attempt_call()


def test_reading_changes_nothing(make: Any, clock: Any) -> None:
    breaker = make()
    trip(breaker)
    clock.time = 1000.0
    for _ in range(3):
        assert breaker.state is OPEN
        assert breaker._should_attempt_call()
        assert breaker.get_metrics()["state"] == "open"
        assert breaker.get_metrics()["retry_after"] == 0.0


def test_recorded_results_act_on_the_present_era(make: Any, clock: Any) -> None:
    breaker = make()
    trip(breaker)
    breaker._record_success()
    breaker._record_failure(BOOM)
    assert (breaker.get_metrics()["failures"], breaker.get_metrics()["successes"]) == (5, 0)
    clock.time = 60.0
    for _ in range(3):
        assert breaker._should_attempt_call()
        breaker._record_success()
    assert breaker.state is CLOSED


def test_the_last_error_is_let_go_when_the_circuit_closes(make: Any, clock: Any) -> None:
    class HeavyError(Exception):
        pass

    breaker = make(success_threshold=1)
    error = HeavyError("boom")
    trip(breaker, error)
    reference = weakref.ref(error)
    del error
    with suppress(CircuitOpenError):
        breaker.admit()
    assert reference() is not None
    clock.time = 60.0
    breaker._record_success()
    gc.collect()
    assert reference() is None
    assert breaker.get_metrics()["last_error"] == "HeavyError: boom"
