"""Windows over the outcomes of calls, whose cost does not grow with their length."""

import math
from collections import deque
from typing import TypeAlias

_GRAINS = 256
_FAILED, _SLOW = 1, 2


class CountWindow:
    """The last so many calls, exactly: one byte for each.

    Args:
        size: Calls that it holds.

    Example:
        >>> window = CountWindow(2)
        >>> for failed in (True, True, False):
        ...     window.add(0.0, failed, False)
        >>> window.total, window.failures
        (2, 1)
    """

    __slots__ = ("_at", "_ring", "_size", "failures", "slow", "total")

    until = math.inf
    """The moment up to which successes may be counted elsewhere and handed in later by ``absorb``."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._ring = bytearray()
        self._at = self.total = self.failures = self.slow = 0

    def prune(self, now: float) -> None:
        """Do nothing: only newer calls push older ones out."""

    def add(self, now: float, failed: bool, slow: bool) -> None:  # noqa: ARG002
        """Take in one call; the oldest falls out when the window is full."""
        outcome = (_FAILED if failed else 0) | (_SLOW if slow else 0)
        if self.total < self._size:
            self._ring.append(outcome)
            self.total += 1
        else:
            at = self._at
            old = self._ring[at]
            if old:
                self.failures -= old & _FAILED
                self.slow -= old >> 1
            self._ring[at] = outcome
            self._at = at + 1 if at + 1 < self._size else 0
        if outcome:
            self.failures += outcome & _FAILED
            self.slow += outcome >> 1

    def absorb(self, successes: int) -> None:
        """Take in calls that succeeded and were not slow: the cost is that of copying so many bytes."""
        size, ring = self._size, self._ring
        grown = min(successes, size - self.total)
        ring.extend(bytes(grown))
        self.total += grown
        left = min(successes - grown, size)
        while left:
            end = min(self._at + left, size)
            old = ring[self._at : end]
            both = old.count(_FAILED | _SLOW)
            self.failures -= old.count(_FAILED) + both
            self.slow -= old.count(_SLOW) + both
            ring[self._at : end] = bytes(end - self._at)
            left -= end - self._at
            self._at = end if end < size else 0


class TimeWindow:
    """The last so many seconds.

    Calls closer together than 1/256 of the window share one entry, which leaves the window when its first call does:
    so it is exact for calls further apart, early by at most that fraction for others, and has at most 257 entries.

    Args:
        seconds: Its length.

    Example:
        >>> window = TimeWindow(10.0)
        >>> window.add(0.0, True, False)
        >>> window.add(5.0, False, False)
        >>> window.prune(10.0)
        >>> window.total, window.failures
        (1, 0)
    """

    __slots__ = ("_entries", "_grain", "_seconds", "failures", "slow", "total")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._grain = seconds / _GRAINS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._entries: deque[list[float]] = deque()
        self.total = self.failures = self.slow = 0

    @property
    def until(self) -> float:
        """The end of the newest entry."""
        return self._entries[-1][0] + self._grain if self._entries else -math.inf

    def absorb(self, successes: int) -> None:
        """Take in calls that succeeded, and were not slow, before ``until``."""
        if self._entries:
            self._entries[-1][1] += successes
            self.total += successes

    def prune(self, now: float) -> None:
        """Let go of the calls that are as old as the window is long, or older."""
        entries = self._entries
        edge = now - self._seconds
        while entries and entries[0][0] <= edge:
            _, total, failures, slow = entries.popleft()
            self.total -= int(total)
            self.failures -= int(failures)
            self.slow -= int(slow)

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """Take in one call, and let go of the old ones."""
        entries = self._entries
        if entries and entries[0][0] <= now - self._seconds:
            self.prune(now)
        if entries and now - entries[-1][0] < self._grain:
            entry = entries[-1]
        else:
            entry = [now, 0, 0, 0]
            entries.append(entry)
        entry[1] += 1
        self.total += 1
        if failed:
            entry[2] += 1
            self.failures += 1
        if slow:
            entry[3] += 1
            self.slow += 1


RateWindow: TypeAlias = CountWindow | TimeWindow
"""Counts calls, failures and slow calls over the last calls or the last seconds."""


class FailureTimes:
    """The moments of the last failures, exactly, as many as are needed to reach a threshold.

    Args:
        threshold: Failures that matter; older ones are not kept.
        seconds: How long one counts.

    Example:
        >>> times = FailureTimes(3, 10.0)
        >>> times.add(0.0), times.add(4.0), times.count(11.0)
        (1, 2, 1)
    """

    __slots__ = ("_seconds", "_times")

    def __init__(self, threshold: int, seconds: float) -> None:
        self._times: deque[float] = deque(maxlen=threshold)
        self._seconds = seconds

    def add(self, now: float) -> int:
        """Take in a failure and return how many count now."""
        self._times.append(now)
        return self.count(now)

    def count(self, now: float) -> int:
        """Return how many count now; a failure as old as the window is long no longer does."""
        times, edge = self._times, now - self._seconds
        while times and times[0] <= edge:
            times.popleft()
        return len(times)

    def __len__(self) -> int:
        """How many counted when last looked at."""
        return len(self._times)

    def clear(self) -> None:
        """Forget everything."""
        self._times.clear()
