"""Circuit breakers of other libraries behind one face: the least that a case needs, each library used as it documents.

    pip install pybreaker aiobreaker circuitbreaker purgatory hyx interlock-cb asyncbreaker aioresilience pyfailsafe \\
        resilient-circuit baldur-framework
"""

import importlib.metadata
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any, ClassVar

Work = Callable[[], Awaitable[Any]]
_names = itertools.count()


class RefusedError(Exception):
    """The breaker refused the call."""


class MistakeError(Exception):
    """A caller's mistake, which a breaker should be told to leave out."""


@dataclass(frozen=True)
class Wanted:
    """The rules that a case needs; times in seconds.

    Args:
        failures: Failures that open the circuit.
        open_for: Time until a probe.
        successes: Successful probes that close it.
        window: Time that failures count.
        mode: ``count`` for whatever the library counts by default, ``consecutive``, ``rate`` or ``slow``.
    """

    failures: int = 5
    open_for: float = 0.15
    successes: int = 1
    window: float = 300.0
    mode: str = "count"


class Subject:
    """One breaker of one library.

    ``claims`` are what its documentation offers, of: ``async``, ``time_window``, ``consecutive``, ``rate``, ``slow``,
    ``exclude`` (exceptions that do not count), ``successes`` (how many close it), ``half_open``, ``error`` (the refusal
    says how long), ``force_open``, ``shadow``, ``sub_second`` (open times below a second).
    """

    library: ClassVar[str]
    claims: ClassVar[frozenset[str]]
    refusal: ClassVar[type[BaseException]] = RefusedError

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    async def call(self, work: Work) -> Any:
        """Run ``work`` through the breaker; ``RefusedError`` when it refuses."""
        try:
            return await self.run(work)
        except self.refusal as error:
            raise RefusedError(str(error)) from error

    async def run(self, work: Work) -> Any:
        """Run ``work`` as the library documents."""
        raise NotImplementedError

    def force_open(self) -> None:
        """Hold it open."""
        raise NotImplementedError

    def shadow(self) -> None:
        """Let it watch only."""
        raise NotImplementedError


def subject(library: str, *claims: str) -> Callable[[Callable[[], type[Subject]]], Callable[[], type[Subject]]]:
    """Name the library that an adapter is for, and what it claims."""

    def mark(load: Callable[[], type[Subject]]) -> Callable[[], type[Subject]]:
        def loaded() -> type[Subject]:
            importlib.metadata.version(library)  # PackageNotFoundError, an ImportError, when it is not installed
            adapter = load()
            adapter.library = library
            adapter.claims = frozenset(claims)
            return adapter

        loaded.__name__ = library
        return loaded

    return mark


@subject(
    "bulletproof-ai", "async", "time_window", "consecutive", "rate", "slow", "exclude", "successes", "half_open",
    "error", "force_open", "shadow", "sub_second",
)  # fmt: skip
def bulletproof() -> type[Subject]:
    """Ours."""
    from bulletproof.errors import CircuitOpenError
    from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig

    class Adapter(Subject):
        refusal = CircuitOpenError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            mode = {"consecutive": "consecutive", "rate": "rate", "slow": "rate"}.get(wanted.mode, "window")
            slow = {"slow_call_duration": 0.02, "slow_call_rate_threshold": 0.5} if wanted.mode == "slow" else {}
            self.breaker = AIServiceCircuitBreaker(
                "peer",
                CircuitConfig(
                    failure_threshold=wanted.failures,
                    success_threshold=wanted.successes,
                    timeout=wanted.open_for,
                    monitor_window=wanted.window,
                    mode=mode,  # type: ignore[arg-type]
                    minimum_calls=5,
                    is_failure=lambda error: None if isinstance(error, MistakeError) else True,
                    **slow,  # type: ignore[arg-type]
                ),
            )

        async def run(self, work: Work) -> Any:
            return await self.breaker.call(work)

        def force_open(self) -> None:
            self.breaker.force_open()

        def shadow(self) -> None:
            self.breaker.shadow()

    return Adapter


@subject("interlock-cb", "async", "rate", "slow", "exclude", "successes", "half_open", "error", "force_open", "shadow",
         "sub_second")  # fmt: skip
def interlock() -> type[Subject]:
    """Rates over a count window; no plain failure count."""
    import interlock

    class Judge:
        def is_failure(self, *, result: object, exception: Exception | None) -> bool:  # noqa: ARG002
            return exception is not None and not isinstance(exception, MistakeError)

    class Adapter(Subject):
        refusal = interlock.CircuitOpenError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            rate = 0.5 if wanted.mode in ("rate", "slow") else 1.0
            slow = (
                {"slow_call_duration_threshold": 0.02, "slow_call_rate_threshold": 0.5} if wanted.mode == "slow" else {}
            )
            self.breaker = interlock.CircuitBreaker(
                name=f"peer-{next(_names)}",
                config=interlock.Config(
                    failure_rate_threshold=rate,
                    minimum_number_of_calls=wanted.failures,
                    permitted_calls_in_half_open=wanted.successes,
                    wait_duration_in_open=wanted.open_for,
                    **slow,
                ),
                classifier=Judge(),
            )

        async def run(self, work: Work) -> Any:
            return await self.breaker.call_async(work)

        def force_open(self) -> None:
            self.breaker.force_open()

        def shadow(self) -> None:
            self.breaker.metrics_only()

    return Adapter


@subject("pybreaker", "consecutive", "exclude", "successes", "half_open", "sub_second")
def pybreaker() -> type[Subject]:
    """Plain functions (coroutines need Tornado): the work is run to its end in the call."""
    import pybreaker

    class Adapter(Subject):
        refusal = pybreaker.CircuitBreakerError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = pybreaker.CircuitBreaker(
                fail_max=wanted.failures,
                reset_timeout=wanted.open_for,
                success_threshold=wanted.successes,
                exclude=[MistakeError],
                throw_new_error_on_trip=False,
            )

        async def run(self, work: Work) -> Any:
            return self.breaker.call(_at_once, work)

    return Adapter


@subject("aiobreaker", "async", "consecutive", "exclude", "half_open", "error", "sub_second")
def aiobreaker() -> type[Subject]:
    """Consecutive failures; one successful probe closes."""
    import aiobreaker

    class Adapter(Subject):
        refusal = aiobreaker.CircuitBreakerError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = aiobreaker.CircuitBreaker(
                fail_max=wanted.failures, timeout_duration=timedelta(seconds=wanted.open_for), exclude=[MistakeError]
            )

        async def run(self, work: Work) -> Any:
            return await self.breaker.call_async(work)

    return Adapter


@subject("asyncbreaker", "async", "consecutive", "exclude", "half_open", "error", "sub_second")
def asyncbreaker() -> type[Subject]:
    """Consecutive failures; one successful probe closes."""
    import asyncbreaker

    class Adapter(Subject):
        refusal = asyncbreaker.CircuitError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = asyncbreaker.CircuitBreaker(
                fail_max=wanted.failures, timeout_duration=timedelta(seconds=wanted.open_for), exclude=[MistakeError]
            )

        async def run(self, work: Work) -> Any:
            return await self.breaker.call(work)

    return Adapter


@subject("circuitbreaker", "async", "consecutive", "exclude", "half_open", "error", "sub_second")
def circuitbreaker() -> type[Subject]:
    """Consecutive failures; one successful probe closes."""
    import circuitbreaker

    class Adapter(Subject):
        refusal = circuitbreaker.CircuitBreakerError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = circuitbreaker.CircuitBreaker(
                failure_threshold=wanted.failures,
                recovery_timeout=wanted.open_for,
                expected_exception=lambda kind, _: issubclass(kind, Exception) and not issubclass(kind, MistakeError),
                name=f"peer-{next(_names)}",
            )

        async def run(self, work: Work) -> Any:
            async def function() -> Any:
                return await work()

            return await self.breaker(function)()

    return Adapter


@subject("purgatory", "async", "consecutive", "exclude", "half_open", "sub_second")
def purgatory() -> type[Subject]:
    """Consecutive failures; one successful probe closes."""
    import purgatory
    from purgatory.domain.model import OpenedState

    class Adapter(Subject):
        refusal = OpenedState

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.factory = purgatory.AsyncCircuitBreakerFactory(
                default_threshold=wanted.failures, default_ttl=wanted.open_for, exclude=[MistakeError]
            )

        async def run(self, work: Work) -> Any:
            async with await self.factory.get_breaker("peer"):
                return await work()

    return Adapter


@subject("hyx", "async", "consecutive", "exclude", "successes", "half_open", "sub_second")
def hyx() -> type[Subject]:
    """Consecutive failures of the exceptions that are named."""
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.circuitbreaker.exceptions import BreakerFailing

    class Adapter(Subject):
        refusal = BreakerFailing

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = consecutive_breaker(
                exceptions=(ConnectionError, TimeoutError),
                failure_threshold=wanted.failures,
                recovery_time_secs=wanted.open_for,
                recovery_threshold=wanted.successes,
            )

        async def run(self, work: Work) -> Any:
            async with self.breaker:
                return await work()

    return Adapter


@subject("aioresilience", "async", "consecutive", "exclude", "successes", "half_open", "sub_second")
def aioresilience() -> type[Subject]:
    """Failures in a row, or predicates."""
    import aioresilience

    class Adapter(Subject):
        refusal = aioresilience.CircuitBreakerOpenError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.breaker = aioresilience.CircuitBreaker(
                f"peer-{next(_names)}",
                aioresilience.CircuitConfig(
                    failure_threshold=wanted.failures,
                    recovery_timeout=wanted.open_for,
                    success_threshold=wanted.successes,
                    failure_predicate=lambda error: not isinstance(error, MistakeError),
                ),
            )

        async def run(self, work: Work) -> Any:
            return await self.breaker.call(work)

    return Adapter


@subject("pyfailsafe", "async", "half_open", "sub_second")
def pyfailsafe() -> type[Subject]:
    """Failures since the last success."""
    import failsafe

    class Adapter(Subject):
        refusal = failsafe.CircuitOpen

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            breaker = failsafe.CircuitBreaker(maximum_failures=wanted.failures, reset_timeout_seconds=wanted.open_for)
            self.failsafe = failsafe.Failsafe(circuit_breaker=breaker)

        async def run(self, work: Work) -> Any:
            return await self.failsafe.run(work)

    return Adapter


@subject("resilient-circuit", "async", "rate", "exclude", "half_open", "sub_second")
def resilient_circuit() -> type[Subject]:
    """A share of the last calls."""
    import resilient_circuit
    from resilient_circuit.exceptions import ProtectedCallError

    class Adapter(Subject):
        refusal = ProtectedCallError

        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            share = Fraction(3, 5) if wanted.mode == "rate" else Fraction(wanted.failures, wanted.failures)
            if share.denominator == 1:  # Fraction reduces 5/5 to 1/1, which opens at the first failure
                share = Fraction(wanted.failures - 1, wanted.failures)
            self.policy = resilient_circuit.CircuitProtectorPolicy(
                resource_key=f"peer-{next(_names)}",
                cooldown=timedelta(seconds=wanted.open_for),
                failure_limit=share,
                success_limit=Fraction(wanted.successes, wanted.successes),
                should_handle=lambda error: not isinstance(error, MistakeError),
            )

        async def run(self, work: Work) -> Any:
            async def function() -> Any:
                return await work()

            return await self.policy(function)()

    return Adapter


@subject("baldur-framework", "async", "consecutive", "exclude", "successes", "half_open")
def baldur() -> type[Subject]:
    """A framework; its breaker alone, in memory. Open times are whole seconds."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # it logs every change to the screen
    from baldur.services.circuit_breaker.config import CircuitBreakerConfig
    from baldur.services.circuit_breaker.policy import AsyncCircuitBreakerPolicy, CircuitBreakerPolicy

    class Adapter(Subject):
        def __init__(self, wanted: Wanted) -> None:
            super().__init__(wanted)
            self.policy = AsyncCircuitBreakerPolicy(
                CircuitBreakerPolicy(
                    f"peer-{next(_names)}",
                    config=CircuitBreakerConfig(
                        failure_threshold=wanted.failures,
                        recovery_timeout=max(1, round(wanted.open_for)),
                        success_threshold=wanted.successes,
                        half_open_max_calls=wanted.successes,
                    ),
                    ignore_exceptions=(MistakeError,),
                )
            )

        async def run(self, work: Work) -> Any:
            result = await self.policy.execute(work)
            if not result.success:
                raise RefusedError(str(result))
            return result.value

    return Adapter


PEERS = (
    bulletproof, interlock, pybreaker, aiobreaker, asyncbreaker, circuitbreaker, purgatory, hyx, aioresilience,
    pyfailsafe, resilient_circuit, baldur,
)  # fmt: skip


def installed() -> tuple[list[type[Subject]], list[str]]:
    """Return the adapters whose libraries are installed, and the names of those that are not."""
    found, missing = [], []
    for load in PEERS:
        try:
            found.append(load())
        except ImportError:
            missing.append(load.__name__)
    return found, missing


def _at_once(work: Work) -> Any:
    """Run a coroutine that does not wait, to its end."""
    coroutine: Any = work()
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value
