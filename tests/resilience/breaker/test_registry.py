"""One breaker for each name, bounded."""

import gc
import threading
from typing import Any

import pytest

from bulletproof.resilience import AIServiceCircuitBreaker, BreakerRegistry, CircuitConfig, CircuitState


def fail(breaker: AIServiceCircuitBreaker) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker._record_failure(ConnectionError("boom"))


def test_a_name_has_one_breaker() -> None:
    breakers = BreakerRegistry(CircuitConfig(failure_threshold=1))
    one = breakers.get("one")
    assert breakers["one"] is one
    assert breakers["two"] is not one
    assert ("one" in breakers, "three" in breakers, len(breakers)) == (True, False, 2)
    assert {breaker.service_name for breaker in breakers} == set(breakers.get_metrics()) == {"one", "two"}
    fail(one)
    assert (one.state, breakers["two"].state) == (CircuitState.OPEN, CircuitState.CLOSED)


def test_rules_may_depend_on_the_name(clock: Any) -> None:
    breakers = BreakerRegistry(
        lambda name: AIServiceCircuitBreaker(name) if name == "own" else CircuitConfig(timeout=len(name)), clock=clock
    )
    assert breakers["four"].config.timeout == 4
    assert breakers["own"].config == CircuitConfig()


def test_the_least_recently_asked_for_is_let_go(clock: Any) -> None:
    breakers = BreakerRegistry(max_size=3, clock=clock)
    for name in ("a", "b", "c", "a", "d"):
        breakers.get(name)
    assert [breaker.service_name for breaker in breakers] == ["c", "a", "d"]


def test_idle_ones_are_let_go(clock: Any) -> None:
    breakers = BreakerRegistry(idle=100, clock=clock)
    breakers.get("a")
    clock.time = 99.0
    breakers.get("b")
    clock.time = 100.0
    breakers.get("c")
    assert [breaker.service_name for breaker in breakers] == ["b", "c"]


@pytest.mark.parametrize("how", ["trip", "force_open", "disable", "shadow"])
def test_one_that_is_not_closed_is_never_let_go(clock: Any, how: str) -> None:
    breakers = BreakerRegistry(max_size=2, idle=100, clock=clock)
    kept = breakers.get("bad")
    if how == "trip":
        fail(kept)
    else:
        getattr(kept, how)()
    identity = id(kept)
    del kept
    for number in range(50):
        clock.time += 1000.0
        breakers.get(f"good-{number}")
        gc.collect()
    assert id(breakers.get("bad")) == identity
    assert len(breakers) <= 3


def test_open_ones_alone_may_exceed_the_size(clock: Any) -> None:
    breakers = BreakerRegistry(max_size=2, clock=clock)
    for number in range(20):
        fail(breakers.get(f"bad-{number}"))
    assert len(breakers) == 20
    for breaker in breakers:
        breaker.reset()
    for _ in range(10):
        breakers.get("good")
    assert len(breakers) == 2


def test_one_that_is_still_held_is_found_again(clock: Any) -> None:
    breakers = BreakerRegistry(max_size=1, clock=clock)
    held = breakers.get("held")
    breakers.get("other")
    assert "held" not in breakers
    assert breakers.get("held") is held


def test_new_ones_are_announced(clock: Any) -> None:
    made: list[str] = []
    breakers = BreakerRegistry(on_create=lambda breaker: made.append(breaker.service_name), clock=clock)
    for name in ("a", "b", "a"):
        breakers.get(name)
    assert made == ["a", "b"]


def test_threads_get_the_same_breaker() -> None:
    breakers = BreakerRegistry(max_size=50)
    found: list[list[AIServiceCircuitBreaker]] = [[] for _ in range(8)]

    def work(number: int) -> None:
        for turn in range(500):
            found[number].append(breakers.get(f"name-{turn % 20}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(breaker) for each in found for breaker in each}) == 20


@pytest.mark.parametrize("values", [{"max_size": 0}, {"idle": 0}, {"idle": -1}, {"idle": float("nan")}])
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        BreakerRegistry(**values)
