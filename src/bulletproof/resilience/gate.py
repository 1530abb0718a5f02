"""One wait for everybody: when a service says when to come back, nobody asks it before."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any

from bulletproof.errors import CircuitOpenError, OverloadedError, RateLimitedError
from bulletproof.errors.headers import retry_after_of
from bulletproof.resilience.backoff import drawer, require
from bulletproof.resilience.deadlines import Clock, remaining
from bulletproof.resilience.guarding import Block
from bulletproof.resilience.pausing import Sleep, pause, pause_async

_log = logging.getLogger("bulletproof.resilience")

_NEWS = 0.1  # seconds by which a hold must grow to be told to others: many calls meet the same limit together


def utc_now() -> datetime:
    """Return the present moment, with its zone."""
    return datetime.now(UTC)


def refused_by_gate(error: BaseException) -> bool:
    """Tell whether an error is a gate's refusal to wait so long."""
    return isinstance(error, RateLimitedError) and "gate" in error.where


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Gate(Block):
    """Hold every caller of a service until the moment that its ``Retry-After`` named.

    Without it each caller finds the limit alone, by running into it. Those held are let out one after another,
    ``interval`` seconds apart on average and at random within each interval, so that the limit is not hit again by
    all of them at once. Make one gate for each service and give it to every ``RetryPolicy`` or ``Policy`` that calls
    that service; or use it alone, as a decorator or by ``call``. Thread-safe; an open gate costs no clock reading.

    To carry holds to other processes, let ``on_hold`` publish them without blocking, and call ``observe`` with what
    others published.

    Args:
        service: Name of the service.
        max_wait: Longest wait of one call in seconds; a call that would wait longer is refused at once.
        interval: Mean seconds between two of those let out.
        on_hold: Called with the service and the UTC moment whenever this process learns of a hold by itself.
        clock: Gives monotonic seconds.
        now: Gives the UTC time, for dates in ``Retry-After`` and for other processes.
        sleep: Waits so many seconds, plain or async.
        rng: A ``random.Random``, or a function that gives numbers in [0, 1).

    Raises:
        ValueError: A number is outside its range.
        RateLimitedError: From a call: the wait would exceed ``max_wait`` or the deadline; ``retry_after`` says when.

    Example:
        >>> gate = Gate("openai", clock=lambda: 0.0)
        >>> gate.hold(20)
        >>> gate.remaining
        20.0
    """

    service: str
    _: KW_ONLY
    max_wait: float = 120
    interval: float = 0.05
    on_hold: Callable[[str, datetime], Any] | None = None
    clock: Clock = time.monotonic
    now: Callable[[], datetime] = utc_now
    sleep: Sleep | None = None
    rng: Any = random
    _draw: Callable[[], float] = field(init=False)
    _until: float | None = field(init=False, default=None)
    _waiting: int = field(init=False, default=0)
    _lock: RLock = field(init=False, default_factory=RLock)

    def __post_init__(self) -> None:
        require("max_wait", self.max_wait, self.max_wait > 0, "above 0 seconds")
        require("interval", self.interval, self.interval >= 0, "at least 0 seconds")
        self._draw = drawer(self.rng)

    def __repr__(self) -> str:
        return f"Gate({self.service!r}, max_wait={self.max_wait!r}, interval={self.interval!r})"

    @property
    def remaining(self) -> float:
        """Seconds until the first caller is let out; 0 when the gate is open."""
        until = self._until
        return 0.0 if until is None else max(0.0, until - self.clock())

    def hold(self, seconds: float) -> None:
        """Hold everybody for so many seconds from now; never shortens a hold.

        Raises:
            ValueError: ``seconds`` is not above 0.
        """
        require("seconds", seconds, seconds > 0, "above 0 seconds")
        if self._extend(seconds) > _NEWS and self.on_hold is not None:
            try:
                self.on_hold(self.service, self.now() + timedelta(seconds=seconds))
            except Exception:  # noqa: BLE001 - whatever it is, it must not reach the call
                _log.exception("the hold of %s could not be published; other processes do not know of it", self.service)

    def observe(self, until: datetime) -> None:
        """Take over a hold that another process published.

        Args:
            until: The moment at which it ends, with its zone.
        """
        seconds = (until - self.now()).total_seconds()
        if seconds > 0:
            self._extend(seconds)

    def open(self) -> None:
        """Let new callers through at once; those that wait already finish their wait."""
        with self._lock:
            self._until = None
            self._waiting = 0

    def learn(self, error: BaseException) -> float | None:
        """Hold everybody when an error says so.

        Args:
            error: What the service answered.

        Returns:
            Seconds that it asked to wait, if it did. What our own limits ask for is no word of the service.
        """
        if isinstance(error, CircuitOpenError | OverloadedError) or refused_by_gate(error):
            return None
        seconds = retry_after_of(error, now=self.now)
        if seconds is not None:
            self.hold(seconds)
        return seconds

    def turn(self) -> float:
        """Take a turn and return the seconds until it comes; 0 when the gate is open."""
        if self._until is None:
            return 0.0
        with self._lock:
            until = self._until
            left = 0.0 if until is None else until - self.clock()
            if left <= 0:
                self.open()
                return 0.0
            wait = left + (self._waiting + self._draw()) * self.interval
            self._waiting += 1
            return wait

    def enter(self) -> None:
        """Wait in this thread while the gate is closed."""
        while self._until is not None:
            until, wait = self._until, self._bounded_turn()
            if wait:
                pause(wait, self.sleep)
            if self._until in (until, None):
                return

    async def enter_async(self) -> None:
        """Wait in this task while the gate is closed."""
        while self._until is not None:
            until, wait = self._until, self._bounded_turn()
            if wait:
                await pause_async(wait, self.sleep)
            if self._until in (until, None):
                return

    def leave(self, entry: Any, error: BaseException | None) -> None:  # noqa: ARG002
        """End a call; its error may close the gate."""
        if error is not None:
            self.learn(error)

    def _bounded_turn(self) -> float:
        left, allowed = self.remaining, remaining()
        if left > self.max_wait or (allowed is not None and left >= allowed):
            raise RateLimitedError(
                f"{self.service} asked everybody to wait another {left:.3g} s, which is longer than this call can wait",
                retry_after=left,
                gate=self.service,
            )
        return self.turn()

    def _extend(self, seconds: float) -> float:
        """Move the end of the hold if it becomes later; return by how many seconds."""
        with self._lock:
            now = self.clock()
            before = now if self._until is None else max(now, self._until)
            if now + seconds <= before:
                return 0.0
            if before == now:
                self._waiting = 0
            self._until = now + seconds
            return self._until - before
