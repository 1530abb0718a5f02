"""What to do next: plain bookkeeping, without I/O, waiting or a clock of its own."""

import math
from collections.abc import Callable
from enum import IntEnum
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Kind(IntEnum):
    """Why something waits. Each kind gets its turn, so none starves another."""

    FRESH = 0
    AGAIN = 1
    LATER = 2


class Entry(NamedTuple, Generic[T]):
    """Something that waits, in the order of its kind: by ``due``, then by priority (negated), then as it came."""

    due: float
    rank: float
    number: int
    kind: Kind
    lane: str
    item: T


class _Lane(Generic[T]):
    __slots__ = ("free_at", "limit", "name", "offered", "parked_until", "reminder", "running", "waiting")

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.limit = limit
        self.running = 0
        self.free_at = self.parked_until = -math.inf
        self.reminder: float | None = None
        self.waiting: tuple[list[Entry[T]], ...] = ([], [], [])
        self.offered = [-1, -1, -1]  # number of the head that stands in the ready heap of its kind


class WorkQueue(Generic[T]):
    """Work in lanes: a host, or a service, that bears so much at a time and may be closed for a while.

    Fresh work (``FRESH``), downloads that are tried again (``AGAIN``) and items that wait in front of a later stage
    (``LATER``) are handed out in turns: of three calls that find all kinds ready each gets one. Inside a kind the order
    is due time, then priority, then arrival; what is in a lane that is parked, full or in its pause is passed over.
    Every step costs O(log n).

    Args:
        lane_limit: Work of one lane that may run at the same time; narrowed lanes one.
        lane_delay: Seconds between two starts in one lane; not for ``LATER`` work.

    Example:
        >>> queue = WorkQueue()
        >>> for name, due in (("b", 7.0), ("a", 5.0)):
        ...     queue.put(name, "example.com", now=0.0, kind=Kind.AGAIN, due=due)
        >>> queue.pop(0.0), queue.wakes_at(), queue.pop(5.0).item
        (None, 5.0, 'a')
    """

    def __init__(self, *, lane_limit: float = math.inf, lane_delay: float = 0.0) -> None:
        self._limit = lane_limit
        self._delay = lane_delay
        self._lanes: dict[str, _Lane[T]] = {}
        self._ready: tuple[list[tuple[float, float, int, _Lane[T]]], ...] = ([], [], [])
        self._reminders: list[tuple[float, int, _Lane[T]]] = []
        self._numbers = count()
        self._last = Kind.LATER
        self._size = 0

    def __len__(self) -> int:
        """How much waits."""
        return self._size

    def put(
        self, item: T, lane: str, *, now: float, kind: Kind = Kind.FRESH, due: float = 0.0, priority: float = 0
    ) -> None:
        """Add work to a lane; it is handed out from ``due`` on."""
        found = self._lane(lane)
        heappush(found.waiting[kind], Entry(due, -priority, next(self._numbers), kind, lane, item))
        self._size += 1
        self._offer(found, now)

    def pop(self, now: float, *, later_only: bool = False) -> Entry[T] | None:
        """Take the next work, and a place in its lane that ``leave`` gives back; None when nothing may start now."""
        while self._reminders and self._reminders[0][0] <= now:
            when, _, lane = heappop(self._reminders)
            if lane.reminder == when:
                lane.reminder = None
            self._offer(lane, now)
            self._forget(lane, now)
        for step in range(1, 4):
            kind = Kind((self._last + step) % 3)
            if later_only and kind is not Kind.LATER:
                continue
            entry = self._take(kind, now)
            if entry is not None:
                self._last = kind
                return entry
        return None

    def leave(self, lane: str, now: float) -> None:
        """Give a place back."""
        found = self._lane(lane)
        found.running -= 1
        self._offer(found, now)
        self._forget(found, now)

    def park(self, lane: str, until: float, now: float) -> None:
        """Hand out nothing of a lane before ``until``."""
        found = self._lane(lane)
        found.parked_until = max(found.parked_until, until)
        self._remind(found, found.parked_until)
        self._offer(found, now)

    def narrow(self, lane: str) -> None:
        """Let only one of a lane run at the same time, until ``widen``."""
        self._lane(lane).limit = 1

    def widen(self, lane: str, now: float) -> None:
        """Undo ``narrow`` and ``park``."""
        found = self._lanes.get(lane)
        if found is not None:
            found.limit, found.parked_until = self._limit, -math.inf
            self._offer(found, now)

    def running(self, lane: str) -> int:
        """Return how many of a lane run."""
        found = self._lanes.get(lane)
        return found.running if found is not None else 0

    def wakes_at(self) -> float | None:
        """Return when something may become ready by time alone; None when only a call can change that."""
        return self._reminders[0][0] if self._reminders else None

    def parked(self, now: float) -> dict[str, int]:
        """Return how much waits in each lane that is parked."""
        return {lane.name: sum(map(len, lane.waiting)) for lane in self._lanes.values() if lane.parked_until > now}

    def discard(self, unwanted: Callable[[T], bool], now: float) -> None:
        """Throw out what waits and is not wanted any more."""
        for lane in list(self._lanes.values()):
            for waiting in lane.waiting:
                kept = [entry for entry in waiting if not unwanted(entry.item)]
                if len(kept) < len(waiting):
                    self._size -= len(waiting) - len(kept)
                    waiting[:] = kept
                    heapify(waiting)
            self._offer(lane, now)
            self._forget(lane, now)

    def clear(self) -> None:
        """Forget everything, parked lanes too; nothing may run."""
        self._lanes.clear()
        self._reminders.clear()
        for heap in self._ready:
            heap.clear()
        self._size = 0

    def _lane(self, name: str) -> _Lane[T]:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._limit)
        return lane

    def _take(self, kind: Kind, now: float) -> Entry[T] | None:
        ready = self._ready[kind]
        while ready:
            _, _, number, lane = heappop(ready)
            if lane.offered[kind] == number:
                lane.offered[kind] = -1
            waiting = lane.waiting[kind]
            if not waiting or waiting[0].number != number:
                continue  # another one came before it, which was offered when it came
            if lane.running >= lane.limit or max(lane.free_at, lane.parked_until) > now:
                self._offer(lane, now)
                continue
            entry = heappop(waiting)
            self._size -= 1
            lane.running += 1
            if self._delay and kind is not Kind.LATER:
                lane.free_at = now + self._delay
            self._offer(lane, now)
            return entry
        return None

    def _offer(self, lane: _Lane[T], now: float) -> None:
        """Put the heads of a lane among the ready ones, or see to it that it is looked at again in time."""
        if lane.running >= lane.limit:
            return  # leave() and widen() look again
        opens = max(lane.free_at, lane.parked_until)
        if opens > now:
            self._remind(lane, opens)
            return
        for kind, waiting in enumerate(lane.waiting):
            if not waiting:
                continue
            head = waiting[0]
            if head.due > now:
                self._remind(lane, head.due)
            elif lane.offered[kind] != head.number:
                lane.offered[kind] = head.number
                heappush(self._ready[kind], (head.due, head.rank, head.number, lane))

    def _remind(self, lane: _Lane[T], when: float) -> None:
        if lane.reminder is None or when < lane.reminder:
            lane.reminder = when
            heappush(self._reminders, (when, next(self._numbers), lane))

    def _forget(self, lane: _Lane[T], now: float) -> None:
        """Let go of a lane in which there is nothing and which nothing has to be remembered of."""
        empty = not lane.running and max(lane.free_at, lane.parked_until) <= now and not any(lane.waiting)
        if empty and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]
