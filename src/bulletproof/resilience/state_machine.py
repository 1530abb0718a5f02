"""The rules of a circuit breaker: no lock, no clock, no I/O; every moment is an argument.

A call is admitted with a ticket and ends by handing it back. A ticket carries the era in which it was given out; each
change of state begins a new era, and tickets of an older one decide nothing.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeAlias

from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.windows import CountWindow, FailureTimes, RateWindow, TimeWindow

_ASK_AGAIN = 1.0

Admission: TypeAlias = int | tuple[int, float, int]
"""Era; or era, moment of admission, and number of the probe (0: not a probe)."""


Origin: TypeAlias = Literal["calls", "operator", "remote"]


class CircuitState(StrEnum):
    """What a circuit breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    SHADOW = "shadow"


_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
_FORCED_OPEN, _DISABLED, _SHADOW = CircuitState.FORCED_OPEN, CircuitState.DISABLED, CircuitState.SHADOW
_HELD = (_FORCED_OPEN, _DISABLED, _SHADOW)


class Change(NamedTuple):
    """Something that the outside should hear of.

    Args:
        kind: The new state's name, or ``would_open``.
        old: State before.
        new: State after.
        reason: Why, for people.
        origin: Who brought it about: the ``calls`` made here, an ``operator`` here, or another process (``remote``).
    """

    kind: str
    old: CircuitState
    new: CircuitState
    reason: str
    origin: Origin


@dataclass(slots=True, eq=False)
class StateMachine:
    """One circuit. Methods that end a call or change the state return whether ``fast``, ``state`` or ``changes`` did.

    Args:
        config: The rules.
    """

    config: CircuitConfig
    state: CircuitState = _CLOSED
    era: int = 0
    fast: bool = field(init=False)
    """Whether successes need no bookkeeping but to be counted."""
    calm_until: float | None = None
    """The same for successes that are not slow and end before this moment."""
    lets_all: bool = True
    timed: bool = field(init=False)
    stamped: bool = field(init=False)
    """Whether tickets carry the moment of admission."""
    streak: int = 0
    successes: int = 0
    failures: int = 0
    neutral: int = 0
    rejected: int = 0
    slow: int = 0
    transitions: int = 0
    last_error: str | None = None
    cause: BaseException | None = None
    changes: list[Change] = field(default_factory=list)
    rates: RateWindow | None = None
    open_time: float = field(init=False)
    until: float = 0.0
    """The moment from which an open circuit admits a probe."""
    probes: dict[int, float] = field(default_factory=dict)
    probe_successes: int = 0
    _times: FailureTimes = field(init=False)
    _alarmed: bool = False
    _probe_number: int = 0

    def __post_init__(self) -> None:
        config = self.config
        self.fast = config.plain
        self.timed = config.slow_call_duration is not None
        self.stamped = self.timed or (config.rated and config.window_type == "time")
        if config.rated:
            by_count = config.window_type == "count"
            self.rates = CountWindow(config.window_size) if by_count else TimeWindow(config.monitor_window)
        self.open_time = float(config.timeout)
        self._times = FailureTimes(config.failure_threshold, config.monitor_window)

    # Admission.

    def would_admit(self, now: float) -> bool:
        """Tell whether a call that came now would be admitted; changes nothing."""
        if self.state is _OPEN:
            return now >= self.until
        if self.state is _HALF_OPEN:
            return self._wait_for_place(now) <= 0
        return self.state is not _FORCED_OPEN

    def admit(self, now: float) -> Admission | None:
        """Give out a ticket, or None when the call is refused. The first one after the open time makes it half-open."""
        if self.lets_all:
            return (self.era, now, 0) if self.stamped else self.era
        if self.state is _OPEN and now >= self.until:
            self._move(_HALF_OPEN, f"{self.open_time:g} s are over, a probe is admitted")
        if self.state is _HALF_OPEN and self._wait_for_place(now) <= 0:
            if len(self.probes) >= self.config.half_open_max_calls:
                self.probes.pop(next(iter(self.probes), 0), None)  # it hangs
            self._probe_number += 1
            self.probes[self._probe_number] = now
            return self.era, now, self._probe_number
        self.rejected += 1
        return None

    def record_admission(self, now: float) -> tuple[int, float, int] | None:
        """Admit the call of a result that comes by itself, as if made just now."""
        if self.state is _OPEN and now >= self.until:
            self._move(_HALF_OPEN, f"{self.open_time:g} s are over, a result was recorded")
        return (self.era, now, 0) if self.lets_all or self.state is _HALF_OPEN else None

    def retry_after(self, now: float) -> float | None:
        """Return the seconds until a call may be admitted; None when that is not a matter of time."""
        if self.state is _OPEN:
            return max(0.0, self.until - now)
        if self.state is _HALF_OPEN:
            return max(0.0, min(_ASK_AGAIN, self._wait_for_place(now)))
        return None

    # The end of a call.

    def success(self, admission: Admission, now: float) -> bool:
        """End a call with success. ``now`` matters only where slow calls or a time window are watched."""
        config = self.config
        if type(admission) is int:
            if admission != self.era:
                return False
            slow = False
        else:
            era, started, probe = admission  # type: ignore[misc]
            if era != self.era or (probe and self.probes.pop(probe, None) is None):
                return False
            slow = self.timed and now - started >= config.slow_call_duration  # type: ignore[operator]
            if slow:
                self.slow += 1
        self.successes += 1
        self.streak = 0
        rates = self.rates
        if rates is not None and self.state is not _DISABLED:
            rates.add(now, False, slow)
            if self.state is not _HALF_OPEN and self._trip(now, None):
                self._look()
                return True
        if self.state is _HALF_OPEN:
            return self._probe_succeeded(now, slow)
        self._look()
        return True

    def failure(
        self, admission: Admission, now: float, error: BaseException | None, text: str, wait: float | None
    ) -> bool:
        """End a call with failure: its error (None when a result was judged), that in words, and the wait asked for."""
        era, started, probe = (admission, now, 0) if isinstance(admission, int) else admission
        if era != self.era or (probe and self.probes.pop(probe, None) is None):
            return False
        self.failures += 1
        self.last_error = text
        slow = self.timed and now - started >= self.config.slow_call_duration  # type: ignore[operator]
        self.slow += slow
        self.streak += 1
        self._look()
        if self.state is _DISABLED:
            return True
        self.cause = error
        self._times.add(now)
        if self.rates is not None:
            self.rates.add(now, True, slow)
        if self.state is _HALF_OPEN:
            self._open(now, f"a probe failed: {text}", wait)
        else:
            self._trip(now, wait)
        return True

    def neutrality(self, admission: Admission) -> None:
        """End a call that says nothing about the service; a probe gives its place back."""
        if self._current(admission):
            self.neutral += 1

    def withdraw(self, admission: Admission) -> None:
        """Give a ticket back as if it had never been given out."""
        self._current(admission)

    def absorb(self, successes: int) -> None:
        """Take in successes that were only counted, as ``fast`` and ``calm_until`` allow."""
        if self.rates is not None and successes:
            self.rates.absorb(successes)

    # Changes from outside.

    def put(self, state: CircuitState, reason: str) -> bool:
        """Put the circuit into a state by hand; into CLOSED as if new, counters over its whole life apart."""
        if state is self.state and state is not _CLOSED:
            return False
        self._move(state, reason, "operator")
        return True

    def release(self, reason: str) -> bool:
        """Take the circuit out of an operator's hands, if it is there."""
        return self.state in _HELD and self.put(_CLOSED, reason)

    def follow(self, state: CircuitState, now: float, open_for: float, reason: str, *, by_operator: bool) -> bool:
        """Do what the circuit of the same name in another process did, unless an operator decided otherwise here."""
        if not by_operator and self.state in _HELD:
            return False
        if state is _OPEN:
            until = now + min(open_for, self.config.longest_open)
            if open_for <= 0 or (self.state is _OPEN and self.until >= until):
                return False
            self.until = until
        elif state is self.state:
            return False
        self._move(state, reason, "remote")
        return True

    # Reading.

    def counts(self, now: float) -> dict[str, Any]:
        """Return the figures of the windows."""
        rates = self.rates
        known = False
        if rates is not None:
            rates.prune(now)
            known = rates.total >= self.config.least_calls
        return {
            "failures_in_window": self._times.count(now) if self.config.mode != "rate" or not rates else rates.failures,
            "failure_rate": rates.failures / rates.total if known and rates else None,
            "slow_rate": rates.slow / rates.total if known and rates and self.timed else None,
            "consecutive_failures": self.streak,
        }

    # Inside.

    def _current(self, admission: Admission) -> bool:
        if isinstance(admission, int):
            return admission == self.era
        era, _, probe = admission
        return era == self.era and (not probe or self.probes.pop(probe, None) is not None)

    def _probe_succeeded(self, now: float, slow: bool) -> bool:
        if slow:
            self._open(now, f"a probe took {self.config.slow_call_duration:g} s or longer", None)
            return True
        self.probe_successes += 1
        if self.probe_successes >= self.config.success_threshold:
            self._move(_CLOSED, f"{self.probe_successes} probes succeeded")
            return True
        return False

    def _look(self) -> None:
        """See whether the next successes can change anything but a counter.

        With rates they can do so only while there are so many failures or slow calls that the fewest calls for which a
        rate is known would be too many of them; as these leave the window this can only become less true.
        """
        config, rates = self.config, self.rates
        self.fast = False
        self.calm_until = None
        if self.streak or not self.lets_all or config.is_failure_result is not None:
            return
        if rates is None:
            self.fast = True
        elif self.state is not _DISABLED and not (
            (config.mode == "rate" and rates.failures >= config.failure_rate_threshold * config.least_calls)
            or (self.timed and rates.slow >= config.slow_call_rate_threshold * config.least_calls)
        ):
            if self.stamped:
                self.calm_until = rates.until
            else:
                self.fast = True

    def _wait_for_place(self, now: float) -> float:
        if len(self.probes) < self.config.half_open_max_calls:
            return 0.0
        return next(iter(self.probes.values()), now) + self.config.longest_probe - now

    def _trip(self, now: float, wait: float | None) -> bool:
        reason = self._verdict()
        if reason is None:
            self._alarmed = False
        elif self.state is _CLOSED:
            self._open(now, reason, wait)
            return True
        elif not self._alarmed:
            self._alarmed = True
            self.changes.append(Change("would_open", self.state, self.state, reason, "calls"))
            return True
        return False

    def _verdict(self) -> str | None:
        config, rates = self.config, self.rates
        if config.mode == "window":
            if self.streak and len(self._times) >= config.failure_threshold:
                return (
                    f"{config.failure_threshold} failures in {config.monitor_window:g} s, the last: {self.last_error}"
                )
        elif config.mode == "consecutive" and self.streak >= config.failure_threshold:
            return f"{self.streak} failures in a row, the last: {self.last_error}"
        if rates is None:
            return None
        total = rates.total
        if total < config.least_calls:
            return None
        if config.mode == "rate" and rates.failures / total >= config.failure_rate_threshold:
            return f"{rates.failures} of {total} calls failed, the last: {self.last_error}"
        if self.timed and rates.slow / total >= config.slow_call_rate_threshold:
            return f"{rates.slow} of {total} calls took {config.slow_call_duration:g} s or longer"
        return None

    def _open(self, now: float, reason: str, wait: float | None) -> None:
        config = self.config
        if self.state is _HALF_OPEN:
            self.open_time = min(self.open_time * config.timeout_factor, config.longest_open)
        open_for = self.open_time
        if wait is not None and wait > open_for:
            open_for = min(wait, config.longest_open)
        self.until = now + open_for
        self._move(_OPEN, reason)

    def _move(self, state: CircuitState, reason: str, origin: Origin = "calls") -> None:
        old = self.state
        self.state = state
        self.era += 1
        self.lets_all = state in (_CLOSED, _DISABLED, _SHADOW)
        self.probes.clear()
        self.probe_successes = 0
        self._alarmed = False
        if self.lets_all:
            self.open_time = float(self.config.timeout)
            self.streak = 0
            self.cause = None
            self._times.clear()
            if self.rates is not None:
                self.rates.clear()
        self._look()
        if state is not old:
            self.transitions += 1
            self.changes.append(Change(state.value, old, state, reason, origin))
