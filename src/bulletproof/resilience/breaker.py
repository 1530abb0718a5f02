"""The circuit breaker: the state machine made safe for threads and tasks, with a clock, errors and listeners."""

import itertools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from threading import RLock
from types import CoroutineType, TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, overload

from bulletproof.errors import CircuitOpenError, classify
from bulletproof.resilience.breaker_events import Listener, Listeners
from bulletproof.resilience.breaker_guards import STREAMS, entered, guard, left, watch
from bulletproof.resilience.breaker_parts import Inside, Ticket, Way, text_of
from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.gate import utc_now
from bulletproof.resilience.state_machine import Admission, CircuitState, StateMachine

P = ParamSpec("P")
T = TypeVar("T")

_BIRTH = RLock()
_DEFAULT = CircuitConfig()
_OPEN = CircuitState.OPEN
_PAST = -1
# Without __init__: the error works out what it says when somebody asks.
_refusal = CircuitOpenError.__new__


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

    __slots__ = ("__weakref__", "_clock", "_fast", "_inner", "_now", "_plain", "_way", "config", "service_name")

    def __init__(
        self,
        service_name: str,
        config: CircuitConfig = _DEFAULT,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.service_name = service_name
        self.config = config
        self._clock = clock
        self._now = now
        self._inner: Inside | None = None
        # The fast ways. An extra Python frame costs as much as all the rest, so `call` and `call_sync` spell them out.
        # _plain: counts the successes of the present era; a step of it is atomic without a lock. _fast: the same object
        #     while a success needs no more than that; then it is the ticket. _way: the same after a look at the time,
        #     or a refusal.
        self._plain = itertools.count()
        self._fast: itertools.count[int] | None = self._plain if config.plain else None
        self._way: Way | None = None

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
        ticket: Any = self._fast
        if ticket is None:
            way = self._way
            if way is None:
                ticket = self.admit()
            elif way.refused is None:
                ticket = (way.era, self._clock(), 0)
            elif (now := self._clock()) < way.until:
                next(way.refused)
                raise _refusal(CircuitOpenError, self.service_name, _OPEN, way.until - now) from way.cause
            else:
                ticket = self.admit()
        try:
            result = func(*args, **kwargs) if kwargs else func(*args)
            if type(result) is CoroutineType or hasattr(type(result), "__await__"):
                result = await result
            elif type(result) in STREAMS:
                self.withdraw(ticket)
                return watch(self, result)
        except BaseException as error:
            self.failed(ticket, error)
            raise
        if ticket is self._fast:
            next(ticket)  # type: ignore[arg-type]
            return result
        way = self._way
        if way is not None and way.refused is None:
            now = self._clock()
            if now < way.until and now - ticket[1] < way.limit and ticket[0] == way.era:
                next(self._plain)
                return result
        self.succeeded(ticket, result)
        return result

    def call_sync(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a plain function through the breaker, without an event loop; see ``call``.

        Raises:
            CircuitOpenError: The call was refused and ``func`` was not run.
        """
        ticket: Any = self._fast
        if ticket is None:
            way = self._way
            if way is None:
                ticket = self.admit()
            elif way.refused is None:
                ticket = (way.era, self._clock(), 0)
            elif (now := self._clock()) < way.until:
                next(way.refused)
                raise _refusal(CircuitOpenError, self.service_name, _OPEN, way.until - now) from way.cause
            else:
                ticket = self.admit()
        try:
            result = func(*args, **kwargs)
            if type(result) in STREAMS:
                self.withdraw(ticket)
                return watch(self, result)  # type: ignore[no-any-return]
        except BaseException as error:
            self.failed(ticket, error)
            raise
        if ticket is self._fast:
            next(ticket)  # type: ignore[arg-type]
            return result
        way = self._way
        if way is not None and way.refused is None:
            now = self._clock()
            if now < way.until and now - ticket[1] < way.limit and ticket[0] == way.era:
                next(self._plain)
                return result
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
        """As ``with``; a block of either kind may stand inside another, in threads and tasks at the same time."""
        return self.__enter__()

    async def __aexit__(self, *how: Any) -> Literal[False]:
        """Judge the block by the exception that ended it, if any."""
        return self.__exit__(*how)

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
        way = self._way
        if way is not None and way.refused is not None and (now := self._clock()) < way.until:
            next(way.refused)
            raise _refusal(CircuitOpenError, self.service_name, _OPEN, way.until - now) from way.cause
        inner = self._inner or self._inside()
        machine = inner.machine
        if machine.lets_all:
            return (machine.era, self._clock(), 0) if machine.stamped else self._plain
        with inner.lock:
            now = self._clock()
            admitted = machine.admit(now)
            if admitted is None:
                state, left_over, cause = machine.state, machine.retry_after(now), machine.cause
            self._settle(inner)
        self._tell(inner)
        if admitted is None:
            raise CircuitOpenError(self.service_name, state, left_over) from cause
        return self._plain if isinstance(admitted, int) else admitted

    def succeeded(self, ticket: Ticket, result: Any = None) -> None:
        """Hand a ticket back after a call that returned ``result``."""
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
            self._failure(ticket, error, text_of(error), wait)
        elif verdict is None:
            self._neutrality(ticket)
        else:
            self._success(ticket)

    def conclude(self, ticket: "Ticket | None", error: BaseException | None) -> None:
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
            inner.machine.withdraw(self._admission(inner, ticket))

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
        """Refuse every call, until ``enable`` or ``reset``."""
        self._change(lambda machine: machine.put(CircuitState.FORCED_OPEN, "forced open by an operator"))

    def disable(self) -> None:
        """Let every call through and open for nothing, until ``enable`` or ``reset``."""
        self._change(lambda machine: machine.put(CircuitState.DISABLED, "disabled by an operator"))

    def shadow(self) -> None:
        """Let every call through and only tell listeners when it would have opened, until ``enable`` or ``reset``."""
        self._change(lambda machine: machine.put(CircuitState.SHADOW, "put into shadow mode by an operator"))

    def enable(self) -> None:
        """End ``force_open``, ``disable`` or ``shadow``: closed, as if new. Otherwise nothing changes."""
        self._change(lambda machine: machine.release("enabled by an operator"))

    def reset(self) -> None:
        """Close it as if new, whatever its state. Counters over its whole life go on."""
        self._change(lambda machine: machine.put(CircuitState.CLOSED, "reset by an operator"))

    def observe(self, state: CircuitState, *, open_for: float = 0.0, by_operator: bool = False, reason: str) -> None:
        """Follow the breaker of the same name in another process; what an operator decided is undone by operators only.

        Args:
            state: The state there.
            open_for: Seconds that are left of its open time.
            by_operator: Whether an operator decided it.
            reason: Why, for people.
        """
        self._change(lambda machine: machine.follow(state, self._clock(), open_for, reason, by_operator=by_operator))

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
            plain = self._absorb(inner)
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
        return f"<{type(self).__name__} {self.service_name!r}: {self.state}>"

    # Inside.

    def _inside(self) -> Inside:
        with _BIRTH:
            if self._inner is None:
                self._inner = Inside(StateMachine(self.config))
            return self._inner

    def _absorb(self, inner: Inside) -> int:
        """Hand successes that were only counted to the machine, and return their number so far; the lock is held."""
        counted = next(self._plain) - inner.read
        inner.read += 1
        inner.machine.absorb(counted - inner.absorbed)
        inner.absorbed = counted
        return inner.before + counted

    def _admission(self, inner: Inside, ticket: Ticket) -> Admission:
        if isinstance(ticket, tuple):
            return ticket
        return inner.era if ticket is self._plain else _PAST

    def _success(self, ticket: Ticket) -> None:
        if ticket is self._fast:
            next(ticket)
            return
        now = self._clock() if self.config.rated else 0.0
        way = self._way
        if way is not None and isinstance(ticket, tuple) and way.passes(ticket, now):
            next(self._plain)
            return
        inner = self._inner or self._inside()
        with inner.lock:
            if self.config.rated:
                self._absorb(inner)
            if inner.machine.success(self._admission(inner, ticket), now):
                self._settle(inner)
        self._tell(inner)

    def _failure(self, ticket: Ticket, error: BaseException | None, text: str, wait: float | None) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            if self.config.rated:
                self._absorb(inner)
            if inner.machine.failure(self._admission(inner, ticket), self._clock(), error, text, wait):
                self._settle(inner)
        self._tell(inner)

    def _neutrality(self, ticket: Ticket) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            inner.machine.neutrality(self._admission(inner, ticket))

    def _record(self, error: BaseException | None) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            ticket = inner.machine.record_admission(self._clock())
            self._settle(inner)
        if ticket is not None:
            self.conclude(ticket, error)
        self._tell(inner)

    def _change(self, change: Callable[[StateMachine], bool]) -> None:
        inner = self._inner or self._inside()
        with inner.lock:
            self._absorb(inner)
            if change(inner.machine):
                self._settle(inner)
        self._tell(inner)

    def _settle(self, inner: Inside) -> None:
        """Carry the machine's state over to what the fast ways look at; the lock is held."""
        machine = inner.machine
        if machine.era != inner.era:
            inner.before += next(self._plain) - inner.read
            self._plain = itertools.count()
            inner.read = inner.absorbed = 0
            inner.era = machine.era
        self._fast = self._plain if machine.fast else None
        way = self._way
        if machine.calm_until is not None:
            if way is None or way.era != machine.era or way.until != machine.calm_until:
                self._way = Way(machine.era, machine.calm_until, self.config.slow_call_duration or math.inf)
        elif machine.state is not _OPEN:
            self._way = None
        elif way is None or way.era != machine.era:
            self._way = Way(machine.era, machine.until, refused=inner.refused, cause=machine.cause)
        if machine.changes:
            if inner.listeners is not None:
                inner.listeners.queue(self.service_name, machine.changes, self._now())
            machine.changes.clear()

    def _tell(self, inner: Inside) -> None:
        if inner.listeners is not None:
            inner.listeners.deliver(inner.lock)
