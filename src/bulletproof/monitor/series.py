"""How many, and when: counts over time in little memory."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

MINUTE = 60.0
HOUR = 3600.0
FINE = 25 * HOUR
"""Age up to which counts are kept by the minute; older ones by the hour."""


class Series:
    """A count over time, kept as the running total at the start of each minute in which something happened.

    A window then costs one binary search, however many events and minutes it spans. A minute counts as inside a window
    when its last event is: nothing inside is ever missed, and at most what happened earlier in that very minute comes
    on top (in that hour, when older than 25 hours).

    Example:
        >>> errors = Series()
        >>> errors.add(10.0, 2)
        >>> errors.add(100.0, 1)
        >>> errors.since(0.0), errors.since(11.0), errors.since(101.0)
        (3, 1, 0)
    """

    __slots__ = ("_before", "_last", "total")

    def __init__(self) -> None:
        self.total = 0
        self._last = array("d")
        self._before = array("q")

    def add(self, at: float, count: int) -> None:
        """Count something that happened at a moment of the monotonic clock, in seconds."""
        last = self._last
        if not last or at >= last[-1]:
            if last and last[-1] // MINUTE == at // MINUTE:
                last[-1] = at
            else:
                last.append(at)
                self._before.append(self.total)
        else:
            self._insert(at, count)
        self.total += count

    def _insert(self, at: float, count: int) -> None:
        # Counts of other processes arrive late.
        place = bisect_left(self._last, at)
        if self._last[place] // MINUTE != at // MINUTE:
            if place and self._last[place - 1] // MINUTE == at // MINUTE:
                self._last[place - 1] = at
                place -= 1
            else:
                self._last.insert(place, at)
                self._before.insert(place, self._before[place])
        for later in range(place + 1, len(self._before)):
            self._before[later] += count

    def since(self, start: float) -> int:
        """Return how many there were from ``start`` on."""
        place = bisect_left(self._last, start)
        return self.total - self._before[place] if place < len(self._before) else 0

    def between(self, moments: Sequence[float]) -> list[int]:
        """Return how many there were from each moment to the next."""
        after = [self.since(moment) for moment in moments]
        return [one - other for one, other in pairwise(after)]

    @property
    def kept(self) -> int:
        """How many are remembered with their time."""
        return self.total - self._before[0] if self._before else 0

    def drop(self, start: float) -> int:
        """Forget what happened before ``start`` and return how many that were."""
        kept = self.kept
        place = bisect_left(self._last, start)
        del self._last[:place]
        del self._before[:place]
        return kept - self.kept

    def compact(self, start: float) -> None:
        """Merge the minutes before ``start`` into hours."""
        place = bisect_left(self._last, start)
        if place < 2:
            return
        last, before = array("d"), array("q")
        for at, count in zip(self._last[:place], self._before[:place], strict=True):
            if last and last[-1] // HOUR == at // HOUR:
                last[-1] = at
            else:
                last.append(at)
                before.append(count)
        self._last[:place] = last
        self._before[:place] = before
