"""What the circuit breaker does besides the behaviour cases."""

import asyncio
import contextvars
import functools
import gc
import inspect
import logging
import sys
import tracemalloc
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from bulletproof.errors import CircuitOpenError, InputValidationError, RateLimitedError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitEvent, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
BOOM = ConnectionError("boom")


def trip(breaker: AIServiceCircuitBreaker, error: Exception = BOOM) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker._record_failure(error)
    assert breaker.state is OPEN


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


# Operators.


def test_disabled_it_lets_all_through_and_opens_for_nothing(make: Any) -> None:
    breaker = make()
    trip(breaker)
    breaker.disable()
    for _ in range(10):
        breaker._record_failure(BOOM)
    assert breaker.call_sync(lambda: 1) == 1
    assert breaker.state is CircuitState.DISABLED
    metrics = breaker.get_metrics()
    assert (metrics["failures"], metrics["failures_in_window"]) == (15, 0)
    breaker.enable()
    assert breaker.state is CLOSED


def test_enable_does_not_close_a_circuit_that_opened_by_itself(make: Any) -> None:
    breaker = make()
    trip(breaker)
    breaker.enable()
    assert breaker.state is OPEN
    breaker.reset()
    assert breaker.state is CLOSED


def test_reset_forgets_the_window_but_not_the_totals(make: Any) -> None:
    breaker = make()
    for _ in range(4):
        breaker._record_failure(BOOM)
    breaker.reset()
    breaker._record_failure(BOOM)
    metrics = breaker.get_metrics()
    assert (breaker.state, metrics["failures_in_window"], metrics["failures"]) == (CLOSED, 1, 5)


def test_shadow_mode_warns_again_after_it_was_calm(make: Any, clock: Any) -> None:
    breaker = make()
    breaker.shadow()
    events: list[CircuitEvent] = []
    breaker.add_listener(events.append)
    for _ in range(7):
        breaker._record_failure(BOOM)
    clock.time = 1000.0
    for _ in range(7):
        breaker._record_failure(BOOM)
    assert [event.kind for event in events] == ["would_open"] * 2
    assert breaker.state is CircuitState.SHADOW


def test_shadow_mode_warns_again_after_calls_were_quick_for_a_while(make: Any, clock: Any) -> None:
    breaker = make(
        slow_call_duration=2, slow_call_rate_threshold=0.5, minimum_calls=3, window_type="count", window_size=5
    )
    breaker.shadow()
    events: list[CircuitEvent] = []
    breaker.add_listener(events.append)

    def work(seconds: float) -> None:
        clock.time += seconds

    for seconds in (0, 2, 0, 2, 0, 2):  # too many are slow at the fourth, no longer at the fifth, again at the sixth
        breaker.call_sync(work, seconds)
    assert [event.kind for event in events] == ["would_open"] * 2


def test_shadow_mode_warns_again_when_it_is_entered_again(make: Any) -> None:
    breaker = make()
    events: list[CircuitEvent] = []
    breaker.add_listener(events.append)
    for _ in range(2):
        breaker.shadow()
        for _ in range(6):
            breaker._record_failure(BOOM)
        breaker.reset()
    assert [event.kind for event in events] == ["shadow", "would_open", "closed"] * 2


# Events.


def test_events_say_what_when_and_why(clock: Any) -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    breaker = AIServiceCircuitBreaker("llm", clock=clock, now=lambda: moment)
    events: list[CircuitEvent] = []
    assert breaker.add_listener(events.append) == events.append
    trip(breaker)
    assert events == [
        CircuitEvent(
            "llm", "open", CLOSED, OPEN, moment, "5 failures in 300 s, the last: ConnectionError: boom", "calls"
        )
    ]
    breaker.remove_listener(events.append)
    breaker.reset()
    assert len(events) == 1
    with pytest.raises(AttributeError):
        events[0].kind = "closed"  # type: ignore[misc]


def test_a_listeners_error_is_logged_once_and_never_reaches_the_call(make: Any, caplog: Any) -> None:
    breaker = make()
    heard: list[str] = []

    @breaker.add_listener
    def broken(event: CircuitEvent) -> None:
        raise ZeroDivisionError("in the listener")

    breaker.add_listener(lambda event: heard.append(event.kind))
    with caplog.at_level(logging.ERROR):
        trip(breaker)
        breaker.reset()
        trip(breaker)
    assert heard == ["open", "closed", "open"]
    assert len(caplog.records) == 1
    assert "Listener" in caplog.text
    assert "in the listener" in caplog.text


def test_a_listener_may_change_the_breaker_and_order_is_kept(make: Any) -> None:
    breaker = make()
    heard: list[str] = []
    breaker.add_listener(lambda event: breaker.reset() if event.kind == "open" else None)
    breaker.add_listener(lambda event: heard.append(event.kind))
    for _ in range(5):
        breaker._record_failure(BOOM)
    assert heard == ["open", "closed"]
    assert breaker.state is CLOSED


def test_a_coroutine_function_cannot_listen(make: Any) -> None:
    async def listener(event: CircuitEvent) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        make().add_listener(listener)


# Ways of calling.


def test_decorated_functions_keep_kind_name_and_signature(make: Any) -> None:
    breaker = make()

    async def coroutine(a: int, *, b: str = "x") -> str:
        """Say something."""
        return b

    def plain(a: int) -> int:
        return a

    def stream() -> Any:
        yield 1

    async def async_stream() -> Any:
        yield 1

    for function, test in (
        (coroutine, inspect.iscoroutinefunction),
        (stream, inspect.isgeneratorfunction),
        (async_stream, inspect.isasyncgenfunction),
        (plain, inspect.isfunction),
    ):
        wrapped = breaker(function)
        assert test(wrapped)
        assert wrapped.__wrapped__ is function
        assert (wrapped.__name__, wrapped.__doc__) == (function.__name__, function.__doc__)
        assert inspect.signature(wrapped) == inspect.signature(function)


async def test_methods_partials_and_callable_objects_can_be_decorated(make: Any) -> None:
    breaker = make()

    class Client:
        @breaker
        async def ask(self, text: str) -> str:
            return f"{self.name} {text}"

        @breaker
        def name_it(self, name: str) -> None:
            self.name = name

        async def __call__(self, text: str) -> str:
            return text

    client = Client()
    client.name_it("llm")
    assert await client.ask("yes") == "llm yes"
    assert await breaker(functools.partial(client.ask, "no"))() == "llm no"
    assert await breaker(client)("object") == "object"
    assert await breaker.call(client, "object") == "object"
    assert breaker.get_metrics()["successes"] == 6


async def test_call_awaits_whatever_a_plain_function_returns_to_be_awaited(make: Any) -> None:
    breaker = make(failure_threshold=1)

    async def fail() -> None:
        raise BOOM

    with pytest.raises(ConnectionError):
        await breaker.call(lambda: fail())
    assert breaker.state is OPEN
    breaker.reset()
    future = asyncio.get_running_loop().create_future()
    future.set_result(3)
    assert await breaker.call(lambda: future) == 3
    with pytest.raises(ConnectionError):
        await breaker.call_sync(fail)
    assert breaker.state is OPEN
    breaker.reset()
    with pytest.raises(ConnectionError):
        await breaker(lambda: fail())()
    assert breaker.state is OPEN


async def test_call_passes_a_keyword_named_func_on(make: Any) -> None:
    assert await make().call(lambda func, self: (func, self), func=1, self=2) == (1, 2)


async def test_streams_are_judged_at_their_end(make: Any) -> None:
    breaker = make(failure_threshold=1)

    def stream() -> Any:
        yield 1
        raise BOOM

    items = iter(await breaker.call(stream))
    assert next(items) == 1
    assert breaker.state is CLOSED
    with pytest.raises(ConnectionError):
        next(items)
    assert breaker.state is OPEN
    with pytest.raises(CircuitOpenError):
        breaker.call_sync(stream)
    with pytest.raises(CircuitOpenError):
        next(breaker(stream)())


async def test_an_async_stream_given_to_call_is_judged_at_its_end(make: Any) -> None:
    breaker = make(failure_threshold=1)

    async def stream() -> Any:
        yield 1
        raise BOOM

    items = await breaker.call(stream)
    assert await anext(items) == 1
    with pytest.raises(ConnectionError):
        await anext(items)
    assert breaker.state is OPEN


async def test_a_stream_left_early_is_neutral_and_closed(make: Any, clock: Any) -> None:
    breaker = make()
    closed: list[str] = []

    @breaker
    def stream() -> Any:
        try:
            yield 1
        finally:
            closed.append("plain")

    @breaker
    async def async_stream() -> Any:
        try:
            yield 1
        finally:
            closed.append("async")

    trip(breaker)
    clock.time = 60.0
    items = stream()
    next(items)
    items.close()
    more = async_stream()
    await anext(more)
    await more.aclose()
    assert closed == ["plain", "async"]
    assert (breaker.state, breaker.get_metrics()["neutral"]) == (HALF_OPEN, 2)
    assert breaker._should_attempt_call()


async def test_a_stream_that_never_starts_keeps_no_place(make: Any, clock: Any) -> None:
    breaker = make()

    def stream() -> Any:
        yield 1

    trip(breaker)
    clock.time = 60.0
    kept = await breaker.call(stream), breaker(stream)()
    assert breaker._should_attempt_call()
    assert list(kept[0]) == [1]


async def test_streams_pass_on_what_is_sent_and_thrown(make: Any) -> None:
    @make()
    async def echo() -> Any:
        item = yield "ready"
        while True:
            try:
                item = yield item
            except KeyError as error:
                item = repr(error)

    stream = echo()
    assert await anext(stream) == "ready"
    assert await stream.asend("a") == "a"
    assert await stream.athrow(KeyError("b")) == "KeyError('b')"
    await stream.aclose()

    @make()
    def total() -> Any:
        got = yield "ready"
        return got

    plain = total()
    next(plain)
    with pytest.raises(StopIteration) as end:
        plain.send("sum")
    assert end.value.value == "sum"


async def test_blocks_nest_and_run_at_the_same_time(make: Any) -> None:
    breaker = make(failure_threshold=100)

    async def work(number: int) -> None:
        async with breaker:
            with breaker:
                await asyncio.sleep(0)
                if number % 2:
                    raise BOOM

    results = await asyncio.gather(*(work(number) for number in range(20)), return_exceptions=True)
    assert sum(result is BOOM for result in results) == 10
    metrics = breaker.get_metrics()
    assert (metrics["failures"], metrics["successes"]) == (20, 20)


async def test_a_block_entered_after_waiting_for_the_open_time_keeps_its_era(make: Any, clock: Any) -> None:
    breaker = make()
    with suppress(ConnectionError), breaker:
        trip(breaker)
        raise BOOM
    assert breaker.get_metrics()["failures"] == 5


def test_a_block_may_end_in_another_context(make: Any) -> None:
    breaker = make()
    contextvars.copy_context().run(breaker.__enter__)
    breaker.__exit__(ConnectionError, BOOM, None)
    assert breaker.get_metrics()["failures"] == 1


def test_a_refused_block_is_not_run_and_leaves_nothing_behind(make: Any) -> None:
    breaker = make()
    trip(breaker)
    with pytest.raises(CircuitOpenError), breaker:
        raise AssertionError("run")
    breaker.reset()
    with breaker:
        pass
    assert breaker.get_metrics()["successes"] == 1


# Figures.


def test_metrics_have_exactly_these_keys(make: Any) -> None:
    assert list(make().get_metrics()) == [
        "service", "state", "total_calls", "successes", "failures", "neutral", "rejected", "slow", "failures_in_window",
        "failure_rate", "slow_rate", "consecutive_failures", "retry_after", "transitions", "last_error",
    ]  # fmt: skip


def test_metrics_of_a_new_breaker(make: Any) -> None:
    metrics = make().get_metrics()
    assert (metrics["service"], metrics["state"], metrics["last_error"]) == ("llm", "closed", None)
    assert metrics["failure_rate"] is metrics["slow_rate"] is metrics["retry_after"] is None


def test_an_error_whose_text_cannot_be_read_does_no_harm(make: Any) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    breaker = make()
    with pytest.raises(OddError):
        breaker.call_sync(lambda: (_ for _ in ()).throw(OddError()))
    assert "cannot be read" in breaker.get_metrics()["last_error"]


def test_an_idle_breaker_needs_at_most_250_bytes() -> None:
    config = CircuitConfig()
    kept: list[Any] = [None] * 2_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(len(kept)):
        kept[place] = AIServiceCircuitBreaker("service", config)
    unused = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    for breaker in kept:
        breaker.call_sync(int)
    used = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    assert unused <= 200
    assert used <= 250
    assert sys.getsizeof(kept[0]) < 150
