"""What operators do with a circuit breaker, and what it tells them."""

import logging
import sys
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitEvent, CircuitState
from support.breakers import BOOM, CLOSED, OPEN, trip

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
