"""Where requests come in: each kind by a door of its own, with so many inside and so many places for work.

What is refused is refused before its body is read. Health, metrics and what operators do pass by no door.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from bulletproof.errors import OverloadedError
from bulletproof.resilience import AdaptiveLimit
from bulletproof.service.turns import Turns, share_of
from bulletproof.settings import Settings

logger = logging.getLogger("bulletproof.service")

SMALL = 64 * 1024
"""Bytes up to which a body is small: it need not wait behind large ones."""

_PREDICTIONS = 1024  # each model has a queue of its own behind this door
_DOWNLOADS = 256
_WEIGHT = 0.1  # of the latest time in the usual one
_PLAIN = ("/process", "/batches", "/predict")


class Door:
    """Lets so many requests of a kind in, and hands out the places for work among them.

    A request is inside from its first line to the last byte of its answer, and holds a place from the end of its body
    to the beginning of its answer: slow clients hold none. How many places there are is found out from how long the
    work takes (``AdaptiveLimit``). Large requests leave a quarter of them to small ones.

    Args:
        name: Named in errors and figures.
        places: Most places; 0 for a door that only bounds how many are inside.
        queued: Requests that may be inside without a place.
        sole: Callers of whom there are no others; everybody else is let in up to three quarters.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        places: int,
        queued: int,
        sole: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.used = name == "uploads"  # what was never used has no place among the figures
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._queued, self._sole, self._clock = queued, sole, clock
        self._usual = 0.0
        self._untold, self._told_at = 0, float("-inf")
        self.turns: Turns | None = None
        if places:
            # As many as there are places share the cores, so a time may grow by that without anything being wrong;
            # twice that is. Half of the places stay in any case: times differ for many reasons.
            limit = AdaptiveLimit(
                name, initial=places, min_limit=max(1, places // 2), max_limit=places, tolerance=2 * places, clock=clock
            )  # fmt: skip
            most = places + queued
            self.turns = Turns(name, max_concurrent=places, max_queued=most, sole=sole, limit=limit)
            self._large = Turns(f"{name}, large", max_concurrent=places, max_queued=most, sole=sole)

    @property
    def room(self) -> int:
        """How many may be inside now."""
        return self._queued + (self.turns.max_concurrent if self.turns is not None else 0)

    @property
    def crowded(self) -> bool:
        """Whether anybody might be refused."""
        return self._total >= share_of(self.room)

    def refuses(self, caller: str) -> bool:
        """Tell whether a request of a caller cannot be let in now."""
        room, total = self.room, self._total
        if total >= room and self.turns is not None and self.turns.queued:
            return not self.turns.would_make_room(caller)
        return total >= room or (caller not in self._sole and self._inside[caller] >= share_of(room))

    def admit(self, caller: str) -> None:
        """Let a request in, which has to be followed by ``leave``.

        Raises:
            OverloadedError: There is no room for it.
        """
        if self.refuses(caller):
            raise self.full()
        if self._total >= self.room and self.turns is not None:
            self.turns.make_room(caller)
        self.used = True
        self._inside[caller] += 1
        self._total += 1

    def leave(self, caller: str) -> None:
        """Let a request out."""
        self._total -= 1
        self._inside[caller] -= 1
        if not self._inside[caller]:
            del self._inside[caller]

    async def enter(self, caller: str, size: float) -> float:
        """Wait for a place, which has to be given back.

        Args:
            caller: Whose turn it takes.
            size: Bytes of the body.

        Returns:
            When the place was taken.

        Raises:
            OverloadedError: Another caller, who has fewer in the queue, came instead.
        """
        assert self.turns is not None
        if size > SMALL:
            places = self.turns.max_concurrent
            self._large.max_concurrent = max(1, min(share_of(places), places - 1))
            await self._large.enter(caller)
        try:
            await self.turns.enter(caller)
        except BaseException:
            if size > SMALL:
                self._large.leave(caller)
            raise
        return self._clock()

    def give_back(self, caller: str, size: float, began: float, *, status: int) -> None:
        """Give a place back, and learn from how long it was taken.

        Args:
            caller: Whose place it was.
            size: Bytes of the body, as they were told to ``enter``.
            began: What ``enter`` returned.
            status: What the request was answered; failures teach nothing, but for a time that was exceeded.
        """
        assert self.turns is not None
        if size > SMALL:
            self._large.leave(caller)
        now = self._clock()
        seconds = now - began
        if status < 400:
            self._usual += _WEIGHT * (seconds - self._usual) if self._usual else seconds
        # Of a large body as much time as a small one would have taken, or the limit would shrink at each of them.
        taught = now - seconds / max(1.0, size / SMALL) if 0 < status < 400 else None
        late = OverloadedError("too late") if status == 504 else None
        self.turns.leave(caller, began=taught, error=late)

    def full(self) -> OverloadedError:
        """Return what those are told for whom there is no room."""
        room = self.room
        places = self.turns.max_concurrent if self.turns is not None else room
        wait = max(1.0, self._queued * self._usual / max(1, places))
        return OverloadedError(f"{self.name}: all {room} places, inside and in the queue, are taken", retry_after=wait)

    def tell(self, request_id: str) -> bool:
        """Log that requests are refused, once a second: a flood must not become one of log lines."""
        self._untold += 1
        now = self._clock()
        if now - self._told_at < 1:
            return False
        logger.warning(
            "%s: %d refused, as all places are taken", self.name, self._untold,
            extra={"request_id": request_id, "code": "overloaded", "error_type": "resource_error"},
        )  # fmt: skip
        self._untold, self._told_at = 0, now
        return True


class Doors:
    """The doors of the service.

    Args:
        settings: How many uploads are processed at the same time, and may wait.
        sole: Callers of whom there are no others.
    """

    def __init__(self, settings: Settings, *, sole: frozenset[str] = frozenset()) -> None:
        self.uploads = Door(
            "uploads", places=settings.max_concurrent_uploads, queued=settings.max_queued_uploads, sole=sole
        )
        self.batches = Door("batches", places=4, queued=32, sole=sole)
        self.predictions = Door("predictions", places=0, queued=_PREDICTIONS, sole=sole)
        self.reads = Door("reads", places=32, queued=256, sole=sole)
        self.downloads = Door("downloads", places=0, queued=_DOWNLOADS, sole=sole)
        self.all = (self.uploads, self.batches, self.predictions, self.reads, self.downloads)
        self._posts = dict(zip(_PLAIN, self.all, strict=False))

    def of(self, method: str, path: str) -> Door | None:
        """Return the door of a request; None for what is let in always."""
        if method == "POST":
            door = self._posts.get(path)
            if door is not None:
                return door
            return self.predictions if path.startswith("/v2/models/") and path.endswith("/infer") else None
        if path.startswith("/batches/") and path.endswith(("/events", "/results")):
            return self.downloads
        return self.reads if path.startswith(("/results/", "/batches", "/models", "/runs")) else None
