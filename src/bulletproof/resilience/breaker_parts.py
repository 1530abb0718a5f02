"""The parts that a circuit breaker is made of, besides its state machine."""

import itertools
import math
from dataclasses import dataclass, field
from threading import RLock
from typing import TypeAlias

from bulletproof.resilience.breaker_events import Listeners
from bulletproof.resilience.state_machine import StateMachine

_TEXT = 300

Ticket: TypeAlias = "itertools.count[int] | tuple[int, float, int]"
"""What an admitted call hands back at its end; opaque. The counter of the present era where nothing else matters."""


@dataclass(slots=True, eq=False)
class Inside:
    """What a breaker needs once it had more than successes: made on first need, so that idle ones stay small."""

    machine: StateMachine
    lock: RLock = field(default_factory=RLock)  # a coroutine may be closed by the garbage collector at any allocation
    listeners: Listeners | None = None
    refused: "itertools.count[int]" = field(default_factory=itertools.count)
    refused_read: int = 0
    era: int = 0  # that of the breaker's counter
    before: int = 0
    read: int = 0
    absorbed: int = 0


@dataclass(slots=True, eq=False)
class Way:
    """A short way for calls: refused while the circuit is open, or let through with a look at the time.

    Args:
        era: Era of the circuit.
        until: The moment up to which this holds.
        limit: Seconds from which a call needs a closer look.
        refused: Counts the refusals; None when calls are let through.
        cause: The error that opened the circuit.
    """

    era: int
    until: float
    limit: float = math.inf
    refused: "itertools.count[int] | None" = None
    cause: BaseException | None = None

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
