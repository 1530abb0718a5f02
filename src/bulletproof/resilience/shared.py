"""Circuits and gates of the same name in several processes learn of each other, and no call ever waits for it."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

from bulletproof.resilience.breaker import AIServiceCircuitBreaker
from bulletproof.resilience.breaker_events import CircuitEvent
from bulletproof.resilience.gate import Gate, utc_now
from bulletproof.resilience.state_machine import CircuitState

_log = logging.getLogger(__name__)

_NEWS = timedelta(seconds=60)
_LONGEST_PAUSE = 10.0
_NAME = 200
_BREAKER, _GATE = "breaker", "gate"
_HELD = (CircuitState.FORCED_OPEN.value, CircuitState.DISABLED.value, CircuitState.SHADOW.value)
_TOLD = (CircuitState.OPEN.value, CircuitState.CLOSED.value, *_HELD)


@dataclass(frozen=True, slots=True)
class Notice:
    """The last thing that happened to a circuit or gate somewhere; one for each ``topic`` and ``name``.

    Args:
        topic: ``breaker`` or ``gate``.
        name: Name of the service; at most 200 characters count.
        state: Of a breaker: ``open``, ``closed``, ``forced_open``, ``disabled`` or ``shadow``; of a gate: ``hold``.
        by_operator: Whether a person decided it.
        at: When it happened, aware UTC.
        until: When a call may be made again, aware UTC; None when that is not a matter of time.
        expires: When it is of no interest any more, aware UTC; None: not before it is replaced.
        source: The process it comes from.
    """

    topic: str
    name: str
    state: str
    by_operator: bool
    at: datetime
    until: datetime | None
    expires: datetime | None
    source: str

    @property
    def held(self) -> bool:
        """Whether an operator holds the circuit in this state; only an operator may replace such a notice."""
        return self.by_operator and self.state in _HELD


class StateStore(Protocol):
    """Where processes leave notices for each other. Its methods may raise anything and take their time."""

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Keep each notice, in place of the one with the same topic and name.

        One that is not ``by_operator`` must not replace one that is ``held``.
        """

    async def fetch(self) -> Sequence[Notice]:
        """Return all notices that have not expired."""


class SharedState:
    """Keeps the circuits and gates of this process together with those of the same name in others.

    What happens here is published at once, and what happened elsewhere is looked for every ``interval`` seconds, in a
    task or thread of its own: no call ever waits for the store. While the store cannot be reached each process goes on
    alone; that is logged once, and shown by ``status``.

    Args:
        store: Where the processes leave notices.
        interval: Seconds between two looks.
        patience: Seconds that the store has for an answer.
        source: Name of this process; by default a unique one.
        now: Gives the present moment (aware UTC); the machines' clocks should agree to a second.

    Example:
        >>> shared = SharedState(store)                               # doctest: +SKIP
        >>> shared.add(AIServiceCircuitBreaker("openai"))             # doctest: +SKIP
        >>> gate = shared.add_gate(Gate("openai", on_hold=shared.hold))  # doctest: +SKIP
        >>> shared.start()                                            # doctest: +SKIP
    """

    def __init__(
        self,
        store: StateStore,
        *,
        interval: float = 0.5,
        patience: float = 2.0,
        source: str | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._interval = interval
        self._patience = patience
        self._source = source if source is not None else f"{os.getpid()}-{os.urandom(6).hex()}"
        self._now = now
        self._lock = threading.RLock()
        self._breakers: WeakValueDictionary[str, AIServiceCircuitBreaker] = WeakValueDictionary()
        self._gates: dict[str, Gate] = {}
        self._pending: dict[tuple[str, str], Notice] = {}
        self._latest: dict[tuple[str, str], Notice] = {}
        self._wake: Callable[[], object] | None = None
        self._runner: asyncio.Task[None] | threading.Thread | None = None
        self._ending = False
        self._failures = 0
        self._error: str | None = None
        self._since: datetime | None = None

    def add(self, breaker: AIServiceCircuitBreaker) -> AIServiceCircuitBreaker:
        """Share a breaker, and let it follow what the others of its name are doing."""
        name = breaker.service_name[:_NAME]
        with self._lock:
            known = self._breakers.get(name)
            if known is breaker:
                return breaker
            if known is not None:
                raise ValueError(f"another breaker named {name!r} is shared already: one for each name")
            self._breakers[name] = breaker
            latest = self._latest.get((_BREAKER, name))
        breaker.add_listener(self._heard)
        if latest is not None:
            self._apply(latest)
        return breaker

    def add_gate(self, gate: Gate) -> Gate:
        """Share a gate that was made with ``on_hold=shared.hold``."""
        with self._lock:
            self._gates[gate.service[:_NAME]] = gate
            latest = self._latest.get((_GATE, gate.service[:_NAME]))
        if latest is not None:
            self._apply(latest)
        return gate

    def hold(self, service: str, until: datetime) -> None:
        """Tell the other processes that a service is not to be called before ``until``."""
        self._queue(Notice(_GATE, service[:_NAME], "hold", False, self._now(), until, until, self._source))

    def status(self) -> dict[str, Any]:
        """Return whether the store can be reached: ``reachable`` (None before the first try), ``error`` (str or None),
        ``since`` (of that state, aware UTC or None), ``pending`` (notices not published yet).
        """
        with self._lock:
            reachable = None if self._since is None else self._failures == 0
            return {
                "reachable": reachable,
                "error": self._error,
                "since": self._since,
                "pending": len(self._pending),
            }

    def start(self) -> None:
        """Begin, in a task of the running event loop; end it with ``aclose``."""
        if self._runner is not None:
            raise RuntimeError("it has been started already")
        self._runner = asyncio.get_running_loop().create_task(self.run(), name="bulletproof-shared-state")

    def start_thread(self) -> None:
        """Begin, in a daemon thread with an event loop of its own, for programs that have none."""
        self._ending = False
        if self._runner is not None:
            raise RuntimeError("it has been started already")
        self._runner = threading.Thread(target=asyncio.run, args=(self.run(),), name="bulletproof-shared", daemon=True)
        self._runner.start()

    def stop_thread(self) -> None:
        """End the thread begun by ``start_thread``."""
        thread, wake = self._runner, self._wake
        if isinstance(thread, threading.Thread):
            self._ending = True
            if wake is not None:
                wake()
            thread.join(self._patience + self._interval)
            self._runner = None

    async def aclose(self) -> None:
        """End the task begun by ``start``, after publishing what is left if the store can be reached."""
        if isinstance(self._runner, asyncio.Task):
            self._runner.cancel()
            await asyncio.wait([self._runner])
            self._runner = None
            if self._pending and self._failures == 0:
                await self.exchange()

    async def run(self) -> None:
        """Publish and look, again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        awake = asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(awake.set)
        try:
            while not self._ending:
                await self.exchange()
                pause = min(self._interval * 2 ** min(self._failures, 8), max(self._interval, _LONGEST_PAUSE))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await awake.wait()
                awake.clear()
        finally:
            self._wake = None

    async def exchange(self) -> None:
        """Publish what happened here and take over what happened elsewhere, once. Never raises for the store's sake."""
        with self._lock:
            now = self._now()
            self._pending = {key: one for key, one in self._pending.items() if one.expires is None or one.expires > now}
            sending = list(self._pending.values())
        try:
            async with asyncio.timeout(self._patience):
                if sending:
                    await self._store.publish(sending)
                notices = await self._store.fetch()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the store, this process goes on alone
            self._alone(error)
            return
        with self._lock:
            for notice in sending:
                if self._pending.get((notice.topic, notice.name)) is notice:
                    del self._pending[notice.topic, notice.name]
        self._together()
        fetched = {(notice.topic, notice.name): notice for notice in notices}
        with self._lock:
            news = [notice for key, notice in fetched.items() if self._latest.get(key) != notice]
            self._latest = fetched
        for notice in news:
            self._apply(notice)

    def _heard(self, event: CircuitEvent) -> None:
        if event.origin == "remote" or event.kind not in _TOLD:
            return
        until = expires = None
        if event.kind == CircuitState.OPEN:
            breaker = self._breakers.get(event.service[:_NAME])
            left = breaker.get_metrics()["retry_after"] if breaker is not None else None
            until = expires = event.at + timedelta(seconds=left or 0.0)
        elif event.kind == CircuitState.CLOSED:
            expires = event.at + _NEWS
        operator = event.origin == "operator"
        self._queue(
            Notice(_BREAKER, event.service[:_NAME], event.kind, operator, event.at, until, expires, self._source)
        )

    def _queue(self, notice: Notice) -> None:
        with self._lock:
            key = notice.topic, notice.name
            old = self._pending.get(key)
            if old is None or not old.held or notice.by_operator:
                self._pending[key] = notice
        wake = self._wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # its event loop has ended: the notice waits for the next one
                self._wake = None

    def _apply(self, notice: Notice) -> None:
        if notice.source == self._source or (notice.expires is not None and notice.expires <= self._now()):
            return
        until, now = notice.until, self._now()
        if until is not None:
            # At most as long as was said: the clock may have been set back since.
            until = min(until, now + max(until - notice.at, timedelta()))
        if notice.topic == _GATE:
            gate = self._gates.get(notice.name)
            if gate is not None and until is not None:
                gate.observe(until)
            return
        breaker = self._breakers.get(notice.name)
        if breaker is None or notice.state not in _TOLD:
            return
        left = (until - now).total_seconds() if until is not None else 0.0
        breaker.observe(
            CircuitState(notice.state),
            open_for=left,
            by_operator=notice.by_operator,
            reason=f"{notice.state} in process {notice.source}",
        )

    def _alone(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            if first:
                self._since = self._now()
            self._error = f"{type(error).__name__}: {error}"[:200]
        if first:
            _log.warning(
                "The shared state cannot be reached (%s): circuits and gates of this process go on alone", self._error
            )

    def _together(self) -> None:
        with self._lock:
            again = self._failures > 0
            if again or self._since is None:
                self._since = self._now()
            self._failures = 0
            self._error = None
        if again:
            _log.info("The shared state can be reached again")
