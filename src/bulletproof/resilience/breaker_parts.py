"""The parts that a circuit breaker is made of, besides its state machine."""

import itertools
import math
from threading import RLock
from typing import TypeAlias

from bulletproof.resilience.breaker_events import Listeners
from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.state_machine import StateMachine

_TEXT = 300

Ticket: TypeAlias = "itertools.count[int] | tuple[int, float, int]"
"""What an admitted call hands back at its end; opaque. The counter of the present era where nothing else matters."""


class Inside:
    """What a breaker needs once it had more than successes: made on first need, so that idle ones stay small."""

    __slots__ = ("absorbed", "before", "era", "listeners", "lock", "machine", "read", "refused", "refused_read")

    def __init__(self, config: CircuitConfig) -> None:
        self.machine = StateMachine(config)
        self.lock = RLock()  # a coroutine may be closed by the garbage collector at any allocation
        self.listeners: Listeners | None = None
        self.refused = itertools.count()
        self.era = 0  # that of the breaker's counter
        self.before = self.read = self.absorbed = self.refused_read = 0


class Way:
    """A short way for calls: refused while the circuit is open, or let through with a look at the time.

    Args:
        era: Era of the circuit.
        until: The moment up to which this holds.
        limit: Seconds from which a call needs a closer look.
        refused: Counts the refusals; None when calls are let through.
        cause: The error that opened the circuit.
    """

    __slots__ = ("cause", "era", "limit", "refused", "until")

    def __init__(
        self,
        era: int,
        until: float,
        limit: float | None = None,
        refused: "itertools.count[int] | None" = None,
        cause: BaseException | None = None,
    ) -> None:
        self.era = era
        self.until = until
        self.limit = math.inf if limit is None else limit
        self.refused = refused
        self.cause = cause

    def passes(self, ticket: tuple[int, float, int], now: float) -> bool:
        """Tell whether a call that succeeds now needs no closer look."""
        return self.refused is None and now < self.until and now - ticket[1] < self.limit and ticket[0] == self.era


def text_of(error: BaseException) -> str:
    """Return the class and the text of an exception, for people."""
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - an exception's own text must not break the call that it ends
        text = f"(its text cannot be read: {type(failure).__name__})"
    return f"{type(error).__name__}: {text}"[:_TEXT]
