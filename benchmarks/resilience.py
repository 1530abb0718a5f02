"""What a circuit breaker costs per call, beside other libraries where they are installed.

Closed and successful, async and plain; with failure-rate and slow-call windows of 10, 1,000 and 100,000; a failing
call; a refusal; eight threads; the memory of 10,000 breakers. In interleaved rounds of thread CPU time, as medians over
a bare call. Retry and the stack of both: ``resilience_retry``.

    python -m benchmarks resilience
    pip install pybreaker aiobreaker circuitbreaker purgatory hyx interlock-cb asyncbreaker aioresilience pyfailsafe \\
        resilient-circuit baldur-framework
"""

import asyncio
import contextlib
import gc
import json
import logging
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from fractions import Fraction
from typing import Any

from benchmarks.harness import RESULTS, Row, measure, report
from bulletproof.errors import CircuitOpenError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig

DIST = "bulletproof-ai"
ASYNC, PLAIN, WINDOWS, FAILURE, REFUSAL, REFUSAL_PLAIN = (
    "closed, success, async",
    "closed, success, plain",
    "rate and slow-call windows, async",
    "closed, failure, async",
    "refusal, async",
    "refusal, plain",
)
UNIT = {
    ASYNC: "one more frame",
    PLAIN: "one more frame",
    WINDOWS: "one more frame",
    FAILURE: "bare raise and catch, one more frame",
    REFUSAL: "bare raise and catch",
    REFUSAL_PLAIN: "bare raise and catch",
}
BARE = dict.fromkeys(UNIT, "bare call")
MANY = 10**9


class DownError(ConnectionError):
    """What a failing call raises."""


async def answer(value: int) -> int:
    """Return at once."""
    return value


def answer_plain(value: int) -> int:
    """Return at once."""
    return value


async def down(value: int) -> int:
    """Fail at once."""
    raise DownError(value)


def down_plain(value: int) -> int:
    """Fail at once."""
    raise DownError(value)


def frame(fn: Callable[..., Any]) -> Callable[..., Any]:
    """One more coroutine frame around the call, and nothing else."""

    async def outer(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return outer


def frame_plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """One more frame around the call, and nothing else."""

    def outer(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return outer


def through(call: Callable[..., Any], fn: Callable[..., Any]) -> Callable[[int], Any]:
    """Return a function of one argument that calls ``fn`` by ``call(fn, value)``."""
    if asyncio.iscoroutinefunction(call) or asyncio.iscoroutinefunction(fn):

        async def run(value: int) -> Any:
            return await call(fn, value)

        return run
    return lambda value: call(fn, value)


def yardsticks() -> Iterator[Row]:
    """Yield what the others are compared with."""
    for group in (ASYNC, WINDOWS):
        yield Row("bare call", answer, group)
        yield Row("one more frame", frame(answer), group)
    yield Row("bare call", answer_plain, PLAIN)
    yield Row("one more frame", frame_plain(answer_plain), PLAIN)
    yield Row("bare call", answer, FAILURE)
    yield Row("bare raise and catch", down, FAILURE, DownError)
    yield Row("bare raise and catch, one more frame", frame(down), FAILURE, DownError)
    yield Row("bare call", answer, REFUSAL)
    yield Row("bare raise and catch", down, REFUSAL, DownError)
    yield Row("bare call", answer_plain, REFUSAL_PLAIN)
    yield Row("bare raise and catch", down_plain, REFUSAL_PLAIN, DownError)


def opened() -> AIServiceCircuitBreaker:
    """Return a breaker that is open."""
    breaker = AIServiceCircuitBreaker("benchmark", CircuitConfig(failure_threshold=1, timeout=MANY))
    with contextlib.suppress(DownError):
        breaker.call_sync(down_plain, 1)
    return breaker


def ours() -> Iterator[Row]:
    """Yield our own rows."""
    breaker = AIServiceCircuitBreaker("benchmark")
    yield Row("bulletproof @breaker", breaker(answer), ASYNC, library=DIST)
    yield Row("bulletproof @breaker", breaker(answer_plain), PLAIN, library=DIST)
    for size in (10, 1_000, 100_000):
        for kind, window in (("calls", {"window_type": "count", "window_size": size}), ("s", {"monitor_window": size})):
            config = CircuitConfig(mode="rate", slow_call_duration=4.0, minimum_calls=10, **window)  # type: ignore[arg-type]
            guarded = AIServiceCircuitBreaker("benchmark", config)
            yield Row(f"bulletproof, {size:,} {kind}", guarded(answer), WINDOWS, library=DIST)
    watching = AIServiceCircuitBreaker(
        "benchmark", CircuitConfig(mode="rate", slow_call_duration=4.0, monitor_window=1e6)
    )
    for _ in range(20):
        watching._record_success()
    for _ in range(6):  # so many that each success has to be looked at
        watching._record_failure(DownError())
    yield Row("bulletproof, amid failures", watching(answer), WINDOWS, library=DIST)
    failing = AIServiceCircuitBreaker("benchmark", CircuitConfig(failure_threshold=MANY))
    yield Row("bulletproof", failing(down), FAILURE, DownError, DIST)
    yield Row("bulletproof @breaker", opened()(answer), REFUSAL, CircuitOpenError, DIST)
    yield Row("bulletproof @breaker", opened()(answer_plain), REFUSAL_PLAIN, CircuitOpenError, DIST)


def called() -> Iterator[Row]:
    """Yield ``call`` itself, behind a frame of the benchmark's own; the second yardstick has that frame too."""

    async def more(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    breaker = AIServiceCircuitBreaker("benchmark")
    yield Row("one more frame, function passed on", through(more, answer), ASYNC)
    yield Row("bulletproof call", through(breaker.call, answer), ASYNC, library=DIST)
    yield Row("bulletproof call_sync", through(breaker.call_sync, answer_plain), PLAIN, library=DIST)
    yield Row("bulletproof call", through(opened().call, answer), REFUSAL, CircuitOpenError, DIST)
    yield Row("bulletproof call_sync", through(opened().call_sync, answer_plain), REFUSAL_PLAIN, CircuitOpenError, DIST)


def rows_of(
    library: str,
    make: Callable[[int], Callable[[Callable[..., Any]], Callable[..., Any]]],
    refusal: type[BaseException],
    *,
    plain: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a library whose breaker is a decorator.

    Args:
        library: Its distribution.
        make: Makes a decorator from the number of failures that open the circuit.
        refusal: What it raises when the circuit is open.
        plain: Whether it is measured with plain functions.
    """
    works, fails = (answer_plain, down_plain) if plain else (answer, down)
    yield Row(library, make(MANY)(works), PLAIN if plain else ASYNC, library=library)
    if not plain:
        yield Row(library, make(MANY)(fails), FAILURE, Exception, library)
    decorator = make(1)
    trip, refused = decorator(fails), decorator(works)
    for _ in range(3):
        with contextlib.suppress(Exception):
            trip(1) if plain else asyncio.run(trip(1))
    yield Row(library, refused, REFUSAL_PLAIN if plain else REFUSAL, refusal, library)


def interlock() -> Iterator[Row]:
    """Rates over windows."""
    import interlock

    def make(failures: int) -> Any:
        size = 100 if failures == MANY else 1
        config = interlock.Config(minimum_number_of_calls=size, window_size=100, failure_rate_threshold=1.0)
        return interlock.CircuitBreaker(name="benchmark", config=config)

    yield from rows_of("interlock-cb", make, interlock.CircuitOpenError)
    yield from rows_of("interlock-cb", make, interlock.CircuitOpenError, plain=True)
    for size in (10, 1_000, 100_000):
        for kind in ("count", "time"):
            name = {"count": "calls", "time": "s"}[kind]
            window = interlock.WindowType.COUNT_BASED if kind == "count" else interlock.WindowType.TIME_BASED
            config = interlock.Config(window_type=window, window_size=size, slow_call_duration_threshold=4.0)
            with contextlib.suppress(ValueError):
                breaker = interlock.CircuitBreaker(name="benchmark", config=config)
                yield Row(f"interlock-cb, {size:,} {name}", breaker(answer), WINDOWS, library="interlock-cb")


def pybreaker() -> Iterator[Row]:
    """Plain functions."""
    import pybreaker

    yield from rows_of(
        "pybreaker", lambda n: pybreaker.CircuitBreaker(n, MANY // 1000), pybreaker.CircuitBreakerError, plain=True
    )


def circuitbreaker() -> Iterator[Row]:
    """Both kinds of function."""
    import circuitbreaker

    def make(failures: int) -> Any:
        return circuitbreaker.CircuitBreaker(failures, 10_000)

    yield from rows_of("circuitbreaker", make, circuitbreaker.CircuitBreakerError)
    yield from rows_of("circuitbreaker", make, circuitbreaker.CircuitBreakerError, plain=True)


def aiobreaker() -> Iterator[Row]:
    """Both kinds of function."""
    import aiobreaker

    def make(failures: int) -> Any:
        return aiobreaker.CircuitBreaker(failures, timedelta(hours=1))

    yield from rows_of("aiobreaker", make, aiobreaker.CircuitBreakerError)


def asyncbreaker() -> Iterator[Row]:
    """Coroutine functions."""
    import asyncbreaker

    def make(failures: int) -> Any:
        breaker = asyncbreaker.CircuitBreaker(failures, timedelta(hours=1))
        return lambda fn: through(breaker.call, fn)

    yield from rows_of("asyncbreaker", make, asyncbreaker.CircuitError)


def purgatory() -> Iterator[Row]:
    """Both kinds of function."""
    import purgatory
    from purgatory.domain.model import OpenedState

    yield from rows_of("purgatory", lambda n: purgatory.AsyncCircuitBreakerFactory(n, 10_000)("benchmark"), OpenedState)
    yield from rows_of(
        "purgatory", lambda n: purgatory.SyncCircuitBreakerFactory(n, 10_000)("benchmark"), OpenedState, plain=True
    )


def hyx() -> Iterator[Row]:
    """Coroutine functions."""
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.circuitbreaker.exceptions import BreakerFailing

    yield from rows_of("hyx", lambda n: consecutive_breaker(ConnectionError, n, 10_000), BreakerFailing)


def aioresilience() -> Iterator[Row]:
    """Coroutine functions."""
    import aioresilience

    def make(failures: int) -> Any:
        config = aioresilience.CircuitConfig(failure_threshold=failures, recovery_timeout=10_000)
        return aioresilience.with_circuit_breaker(aioresilience.CircuitBreaker("benchmark", config))

    yield from rows_of("aioresilience", make, aioresilience.CircuitBreakerOpenError)


def pyfailsafe() -> Iterator[Row]:
    """Coroutine functions."""
    import failsafe

    def make(failures: int) -> Any:
        guard = failsafe.Failsafe(circuit_breaker=failsafe.CircuitBreaker(failures, 10_000))

        def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
            async def run(value: int) -> Any:
                return await guard.run(lambda: fn(value))

            return run

        return decorate

    yield from rows_of("pyfailsafe", make, failsafe.CircuitOpen)


def resilient_circuit() -> Iterator[Row]:
    """Both kinds of function."""
    import resilient_circuit
    from resilient_circuit.exceptions import ProtectedCallError

    def make(failures: int) -> Any:
        limit = Fraction(99, 100) if failures == MANY else Fraction(1, 1)
        return resilient_circuit.CircuitProtectorPolicy(
            resource_key=f"benchmark-{failures}", cooldown=timedelta(hours=1), failure_limit=limit
        )

    yield from rows_of("resilient-circuit", make, ProtectedCallError)
    yield from rows_of("resilient-circuit", make, ProtectedCallError, plain=True)


def baldur() -> Iterator[Row]:
    """A framework."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    from baldur.services.circuit_breaker.config import CircuitBreakerConfig
    from baldur.services.circuit_breaker.policy import circuit_breaker

    decorate = circuit_breaker("benchmark", config=CircuitBreakerConfig(failure_threshold=MANY))
    yield Row("baldur-framework", decorate(answer), ASYNC, library="baldur-framework")
    yield Row("baldur-framework", decorate(answer_plain), PLAIN, library="baldur-framework")


PEERS = (
    interlock, pybreaker, circuitbreaker, aiobreaker, asyncbreaker, purgatory, hyx, aioresilience, pyfailsafe,
    resilient_circuit, baldur,
)  # fmt: skip


def memory() -> dict[str, float]:
    """Return the bytes of one of 10,000 breakers, new and after one successful call, their names included."""
    config = CircuitConfig()
    kept: list[Any] = [None] * 10_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(len(kept)):
        kept[number] = AIServiceCircuitBreaker(f"service-{number}", config)
    new = tracemalloc.get_traced_memory()[0] - before
    for breaker in kept:
        breaker.call_sync(answer_plain, 1)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"new": new / len(kept), "used once": used / len(kept)}


def threads(calls: int = 50_000) -> dict[str, float]:
    """Return the ns of CPU time per call, bare and through one breaker, by eight threads at once."""
    breaker = AIServiceCircuitBreaker("benchmark")
    windows = AIServiceCircuitBreaker("benchmark", CircuitConfig(mode="rate", slow_call_duration=4.0))
    functions = {"bare": answer_plain, "breaker": breaker(answer_plain), "windows": windows(answer_plain)}
    spent = dict.fromkeys(functions, float("inf"))
    for _ in range(5):
        for name, fn in functions.items():

            def work(fn: Callable[[int], Any] = fn) -> None:
                for _ in range(calls):
                    fn(1)

            crowd = [threading.Thread(target=work) for _ in range(8)]
            started = time.process_time_ns()
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
            spent[name] = min(spent[name], (time.process_time_ns() - started) / calls / 8)
    assert breaker.get_metrics()["successes"] == windows.get_metrics()["successes"] == 5 * 8 * calls
    return spent


def main() -> int:
    """Measure, print, write."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows, missing = [*yardsticks(), *ours(), *called()], []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # some keep files where they run
        for peer in PEERS:
            try:
                rows += list(peer())
            except ImportError as error:
                missing.append(error.name or peer.__name__)
        rows.sort(key=lambda row: list(UNIT).index(row.group))
        gc.collect()
        gc.freeze()  # the libraries themselves need not be gone through before each row
        raw = measure(rows, calls=2000, rounds=15)
    ratio = report("resilience", rows, raw, bare=BARE, unit=UNIT)
    if missing:
        print(f"\nnot installed, not measured: {', '.join(sorted(missing))}")
    bytes_each, crowd = memory(), threads()
    path = RESULTS / "resilience.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"bytes": bytes_each, "threads_ns": crowd}, indent=1) + "\n"
    )
    print(f"\nmemory of a breaker: {bytes_each['new']:.0f} B, {bytes_each['used once']:.0f} B used once (at most 250)")
    print(f"eight threads: {crowd['bare']:.0f} ns bare, {crowd['breaker']:.0f} through a breaker, ", end="")
    print(f"{crowd['windows']:.0f} with windows")
    bars = {
        "closed, async, decorated": (ratio[f"{ASYNC}/bulletproof @breaker"], 1.5),
        "windows of 10 to 100,000": (
            max(value for key, value in ratio.items() if key.startswith(f"{WINDOWS}/bulletproof, 1")), 5.0,
        ),
        "refusal, async": (ratio[f"{REFUSAL}/bulletproof @breaker"], 2.5),
        "refusal, plain": (ratio[f"{REFUSAL_PLAIN}/bulletproof @breaker"], 2.5),
        "memory": (bytes_each["used once"], 250),
    }  # fmt: skip
    for name, (value, bar) in bars.items():
        print(f"{name}: {value:.2f} (at most {bar})")
    return 0 if all(value <= bar for value, bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
