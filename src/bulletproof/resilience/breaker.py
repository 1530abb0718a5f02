"""The circuit breaker: the state machine made safe for threads and tasks, with a clock, errors and listeners."""

import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from threading import RLock
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, overload

from bulletproof.errors import CircuitOpenError, classify
from bulletproof.resilience.breaker_events import Listener, Listeners
from bulletproof.resilience.breaker_guards import entered, guard, left, watch
from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.state_machine import CircuitState, StateMachine, Ticket

P = ParamSpec("P")
T = TypeVar("T")

_BIRTH = RLock()
_TEXT = 300
_STREAMS = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})
_DEFAULT = CircuitConfig()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Inside:
    """What a breaker needs once it had more than successes: made on first need, so that idle ones stay small."""

    __slots__ = ("listeners", "lock", "machine", "read", "refused", "refused_read")

    def __init__(self, config: CircuitConfig) -> None:
        self.machine = StateMachine(config)
        self.lock = RLock()  # a coroutine may be closed by the garbage collector at any allocation
        self.listeners: Listeners | None = None
        self.refused = itertools.count()
        self.refused_read = self.read = 0


class _Shut:
    """What a refusal needs to know; one object for each time the circuit opens."""

    __slots__ = ("cause", "era", "refused", "state", "until")

    def __init__(self, machine: StateMachine, refused: "itertools.count[int]") -> None:
        self.era = machine.era
        self.state = machine.state
        self.until = machine.until if machine.state is CircuitState.OPEN else None
        self.cause = machine.cause
        self.refused = refused


class AIServiceCircuitBreaker:
    """Stops calling a service that keeps failing, and tries it again with care.

    Closed, it lets calls through and watches them. When the rules of ``config`` say so it opens: calls are refused
    with ``CircuitOpenError`` without being run. After ``timeout`` seconds it is half-open: a few probes are let
    through, and ``success_threshold`` of them close it, one failure opens it again. Safe for threads and tasks.

    Args:
        service_name: The service it protects; named in errors, events and metrics.
        config: The rules.
        clock: Gives monotonic seconds.
        now: Gives the present moment (aware UTC) for the time stamps of events.

    Example:
        >>> import asyncio
        >>> breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=1))
        >>> async def ask(prompt: str) -> str:
        ...     return f"answer to {prompt}"
        >>> asyncio.run(breaker.call(ask, "why"))
        'answer to why'
        >>> breaker.state
        <CircuitState.CLOSED: 'closed'>
    """

    __slots__ = ("__weakref__", "_clock", "_fast", "_inner", "_now", "_plain", "_shut", "config", "service_name")

    def __init__(
        self,
        service_name: str,
        config: CircuitConfig = _DEFAULT,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.service_name = service_name
        self.config = config
        self._clock = clock
        self._now = now
        self._inner: _Inside | None = None
        self._shut: _Shut | None = None
        # The fast way: while no success needs bookkeeping, the ticket is the era, and the end of a call in the same era
        # is one step of a counter, atomic without a lock.
        self._fast: Ticket | None = 0 if config.plain else None
        self._plain = itertools.count()

    # Calls.

    @overload
    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def call(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function through the breaker.

        Args:
            func: A coroutine function, or a plain one, whose result is awaited if it can be. What a generator function
                returns is watched until its end.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What it returns.

        Raises:
            CircuitOpenError: The call was refused and ``func`` was not run.
        """
        ticket = self._fast
        if ticket is None:
            ticket = self.admit()
        try:
            result = func(*args, **kwargs)
            if type(result) is CoroutineType or hasattr(type(result), "__await__"):
                result = await result
            elif type(result) in _STREAMS:
                return self._watch(result, ticket)
        except BaseException as error:
            self.failed(ticket, error)
            raise
        if ticket is self._fast:
            next(self._plain)
        else:
            self.succeeded(ticket, result)
        return result

    def call_sync(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a plain function through the breaker, without an event loop; see ``call``.

        Raises:
            CircuitOpenError: The call was refused and ``func`` was not run.
        """
        ticket = self._fast
        if ticket is None:
            ticket = self.admit()
        try:
            result = func(*args, **kwargs)
            if type(result) in _STREAMS:
                return self._watch(result, ticket)  # type: ignore[no-any-return]
        except BaseException as error:
            self.failed(ticket, error)
            raise
        if ticket is self._fast:
            next(self._plain)
        else:
            self.succeeded(ticket, result)
        return result

    def __call__(self, func: Callable[P, T]) -> Callable[P, T]:
        """Protect a function, coroutine function, generator function or async generator function; a decorator.

        The function keeps its signature and kind. Generators are admitted when they start and judged at their end.

        Example:
            >>> breaker = AIServiceCircuitBreaker("pages")
            >>> @breaker
            ... def fetch(url: str) -> str:
            ...     return "text"
            >>> fetch("https://example.com"), breaker.get_metrics()["successes"]
            ('text', 1)
        """
        return guard(self, func)

    def __enter__(self) -> "AIServiceCircuitBreaker":
        """Admit the block that follows, or raise ``CircuitOpenError``."""
        entered(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Judge the block by the exception that ended it, if any."""
        left(self, error)
        return False

    async def __aenter__(self) -> "AIServiceCircuitBreaker":
        """Admit the block that follows, or raise ``CircuitOpenError``."""
        entered(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Judge the block by the exception that ended it, if any."""
        left(self, error)
        return False

    # For those who build on it: a ticket before the call, handed back after it by exactly one of three methods.

    def admit(self) -> Ticket:
        """Admit a call that the caller makes, or raise.

        Returns:
            A ticket, for ``succeeded``, ``failed`` or ``withdraw``.

        Raises:
            CircuitOpenError: The call is refused.
        """
        fast = self._fast
        if fast is not None:
            return fast
        shut = self._shut
        if shut is not None:
            until = shut.until
            if until is None:
                next(shut.refused)
                raise CircuitOpenError(self.service_name, shut.state, None) from shut.cause
            wait = until - self._clock()
            if wait > 0:
                next(shut.refused)
                raise CircuitOpenError(self.service_name, shut.state, wait) from shut.cause
        inner = self._inner or self._inside()
        machine = inner.machine
        if machine.lets_all:
            return (machine.era, self._clock(), 0) if machine.timed else machine.era
        with inner.lock:
            now = self._clock()
            ticket = machine.admit(now)
            if ticket is None:
                state, left_over, cause = machine.state, machine.retry_after(now), machine.cause
            self._settle(inner)
        self._tell(inner)
        if ticket is None:
            raise CircuitOpenError(self.service_name, state, left_over) from cause
        return ticket

    def succeeded(self, ticket: Ticket, result: Any = None) -> None:
        """Hand a ticket back after a call that returned ``result``."""
        if ticket is self._fast:
            next(self._plain)
            return
        judge = self.config.is_failure_result
        if judge is not None:
            try:
                bad = judge(result)
            except BaseException:
                self.withdraw(ticket)
                raise
            if bad:
                self._failure(ticket, None, f"a result of type {type(result).__name__} was judged a failure", None)
                return
        self._success(ticket)

    def failed(self, ticket: Ticket, error: BaseException) -> None:
        """Hand a ticket back after a call that raised ``error``, which is judged here."""
        verdict: bool | None = None
        wait: float | None = None
        # Cancelled, closed, interrupted: nobody learns anything about the service.
        if isinstance(error, Exception):
            diagnosis = classify(error)
            verdict = True if diagnosis.counts_as_failure else None
            wait = diagnosis.retry_after
            judge = self.config.is_failure
            if judge is not None:
                try:
                    verdict = judge(error)
                except BaseException:
                    self.withdraw(ticket)
                    raise
        if verdict:
            self._failure(ticket, error, _text_of(error), wait)
        elif verdict is None:
            self._neutrality(ticket)
        else:
            self._success(ticket)

    def conclude(self, ticket: Ticket | None, error: BaseException | None) -> None:
        """Hand a ticket back after a block of code; None when the ticket was lost: the present era it is."""
        if ticket is None:
            self._record(error)
        elif error is not None:
            self.failed(ticket, error)
        else:
            self._success(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Hand a ticket back as if it had never been given out."""
        inner = self._inner or self._inside()
        with inner.lock:
            inner.machine.withdraw(ticket)

    def _should_attempt_call(self) -> bool:
        """Tell whether a call made now would be admitted; changes nothing."""
        inner = self._inner
        if inner is None:
            return True
        with inner.lock:
            return inner.machine.would_admit(self._clock())

    def _record_success(self) -> None:
        """Count a success of the current era, as of a call that was admitted just now."""
        self._record(None)

    def _record_failure(self, exception: BaseException) -> None:
        """Count an exception in the current era, as of a call that was admitted just now."""
        self._record(exception)

    # Operators.

    def force_open(self) -> None:
        """Refuse every call until ``enable`` or ``reset``."""
        self._put(CircuitState.FORCED_OPEN, "forced open by an operator")

    def disable(self) -> None:
        """Let every call through and open for nothing, until ``enable`` or ``reset``."""
        self._put(CircuitState.DISABLED, "disabled by an operator")

    def shadow(self) -> None:
        """Let every call through and only tell listeners when it would have opened, until ``enable`` or ``reset``."""
        self._put(CircuitState.SHADOW, "put into shadow mode by an operator")

    def enable(self) -> None:
        """End ``force_open``, ``disable`` or ``shadow``: closed, as if new. Otherwise nothing changes."""
        inner = self._inner
        if inner is None:
            return
        with inner.lock:
            if inner.machine.state in (CircuitState.FORCED_OPEN, CircuitState.DISABLED, CircuitState.SHADOW):
                inner.machine.put(CircuitState.CLOSED, "enabled by an operator")
                self._settle(inner)
        self._tell(inner)

    def reset(self) -> None:
        """Close it as if new, whatever its state. Counters over its whole life go on."""
        self._put(CircuitState.CLOSED, "reset by an operator")

    # Looking.

    @property
    def state(self) -> CircuitState:
        """The state; looking changes nothing: after the open time it is OPEN until a call is admitted."""
        inner = self._inner
        return inner.machine.state if inner is not None else CircuitState.CLOSED

    def add_listener(self, listener: Listener) -> Listener:
        """Have a function called with a ``CircuitEvent`` at each change of state; also a decorator.

        It is called by whoever makes the change, outside all locks, in order. Its errors are logged, not raised.

        Raises:
            TypeError: ``listener`` is a coroutine function.
        """
        inner = self._inner or self._inside()
        with inner.lock:
            if inner.listeners is None:
                inner.listeners = Listeners()
            inner.listeners.add(listener)
        return listener

    def remove_listener(self, listener: Listener) -> None:
        """Call a function no more; nothing happens if it was not added."""
        inner = self._inner
        if inner is not None and inner.listeners is not None:
            with inner.lock:
                inner.listeners.remove(listener)

    def get_metrics(self) -> dict[str, Any]:
        """Return the figures: totals over its whole life, and of the present windows.

        Returns:
            ``service``, ``state``; ``total_calls`` (that ended in their era or were refused) and its parts
            ``successes``, ``failures``, ``neutral``, ``rejected``; ``slow``; ``failures_in_window``; ``failure_rate``
            and ``slow_rate`` (None below the minimum of calls); ``consecutive_failures``; ``retry_after`` (s, None
            unless it is a matter of time); ``transitions``; ``last_error`` (None if there was none).
        """
        inner = self._inner or self._inside()
        with inner.lock:
            machine, now = inner.machine, self._clock()
            plain = next(self._plain) - inner.read
            inner.read += 1
            refused = next(inner.refused) - inner.refused_read
            inner.refused_read += 1
            successes = machine.successes + plain
            rejected = machine.rejected + refused
            return {
                "service": self.service_name,
                "state": machine.state.value,
                "total_calls": successes + machine.failures + machine.neutral + rejected,
                "successes": successes,
                "failures": machine.failures,
                "neutral": machine.neutral,
                "rejected": rejected,
                "slow": machine.slow,
                **machine.counts(now),
                "retry_after": machine.retry_after(now),
                "transitions": machine.transitions,
                "last_error": machine.last_error,
            }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service_name!r}: {self.state.value}>"

    # Inside.

    def _inside(self) -> _Inside:
        with _BIRTH:
            if self._inner is None:
                self._inner = _Inside(self.config)
            return self._inner

    def _success(self, ticket: Ticket) -> None:
        if ticket is self._fast:
            next(self._plain)
            return
        inner = self._inner or self._inside()
        now = self._clock() if self.config.rated else 0.0
        with inner.lock:
            if not inner.machine.success(ticket, now):
                return
            self._settle(inner)
        self._tell(inner)

    def _failure(self, ticket: Ticket, error: BaseException | None, text: str, wait: float | None) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            if inner.machine.failure(ticket, self._clock(), error, text, wait):
                self._settle(inner)
        self._tell(inner)

    def _neutrality(self, ticket: Ticket) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            inner.machine.neutrality(ticket)

    def _record(self, error: BaseException | None) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            ticket = inner.machine.record_ticket(self._clock())
            self._settle(inner)
        if ticket is not None:
            if error is not None:
                self.failed(ticket, error)
            else:
                self._success(ticket)
        self._tell(inner)

    def _put(self, state: CircuitState, reason: str) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            if inner.machine.put(state, reason):
                self._settle(inner)
        self._tell(inner)

    def _settle(self, inner: _Inside) -> None:
        """Carry the machine's state over to what the fast ways look at; the lock is held."""
        machine = inner.machine
        self._fast = machine.fast
        if machine.state is CircuitState.OPEN or machine.state is CircuitState.FORCED_OPEN:
            if self._shut is None or self._shut.era != machine.era:
                self._shut = _Shut(machine, inner.refused)
        else:
            self._shut = None
        if machine.changes:
            if inner.listeners is not None:
                inner.listeners.queue(self.service_name, machine.changes, self._now())
            machine.changes.clear()

    def _tell(self, inner: _Inside) -> None:
        if inner.listeners is not None:
            inner.listeners.deliver(inner.lock)

    def _watch(self, stream: Any, ticket: Ticket) -> Any:
        # It is admitted again when it starts: one that is never started must not keep a place.
        self.withdraw(ticket)
        return watch(self, stream)


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - an exception's own text must not break the call that it ends
        text = f"(its text cannot be read: {type(failure).__name__})"
    return f"{type(error).__name__}: {text}"[:_TEXT]
