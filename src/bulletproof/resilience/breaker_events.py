"""What a circuit breaker tells its listeners."""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from bulletproof.resilience.state_machine import Change, CircuitState, Origin

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CircuitEvent:
    """A circuit changed its state, or would have.

    Args:
        service: Name of the breaker.
        kind: Name of the new state (``open``, ``half_open``, ``closed``, ``forced_open``, ``disabled``, ``shadow``), or
            ``would_open`` in shadow mode.
        old: State before.
        new: State after.
        at: When, aware UTC.
        reason: Why, for people.
        origin: Who brought it about: the ``calls`` made here, an ``operator`` here, or another process (``remote``).
    """

    service: str
    kind: str
    old: CircuitState
    new: CircuitState
    at: datetime
    reason: str
    origin: Origin = "calls"


Listener: TypeAlias = Callable[[CircuitEvent], object]


class Listeners:
    """The listeners of one breaker, and the events not delivered yet."""

    __slots__ = ("_all", "_busy", "_faulty", "_queue")

    def __init__(self) -> None:
        self._all: tuple[Listener, ...] = ()
        self._faulty: set[int] = set()
        self._queue: deque[CircuitEvent] = deque()
        self._busy = False

    def add(self, listener: Listener) -> None:
        """Add one, once."""
        if inspect.iscoroutinefunction(listener):
            raise TypeError(f"a listener must be a plain function, {listener!r:.80} would never be awaited")
        if listener not in self._all:
            self._all = (*self._all, listener)

    def remove(self, listener: Listener) -> None:
        """Remove one."""
        self._all = tuple(one for one in self._all if one != listener)

    def queue(self, service: str, changes: Iterable[Change], at: datetime) -> None:
        """Note what happened; the breaker's lock is held."""
        for kind, old, new, reason, origin in changes:
            self._queue.append(CircuitEvent(service, kind, old, new, at, reason, origin))

    def deliver(self, lock: AbstractContextManager[object]) -> None:
        """Call the listeners with what is queued, in order: one thread at a time, others leave it to that one."""
        while self._queue:
            with lock:
                if self._busy or not self._queue:
                    return
                self._busy = True
            try:
                while self._queue:
                    event = self._queue.popleft()
                    for listener in self._all:
                        self._call(listener, event)
            finally:
                self._busy = False

    def _call(self, listener: Listener, event: CircuitEvent) -> None:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - a listener's fault must not reach the call
            if id(listener) not in self._faulty:
                self._faulty.add(id(listener))
                _log.exception(
                    "Listener %r of circuit %r failed at %r; it is called again, but further errors are not logged",
                    listener, event.service, event.kind,
                )  # fmt: skip
