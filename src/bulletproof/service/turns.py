"""Places for work, handed out by turns: one caller's flood does not slow another."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bulletproof.errors import OverloadedError
from bulletproof.resilience import AdaptiveLimit


def share_of(places: int) -> int:
    """Return how many of the places one of several may hold: all but a quarter, so that another finds one soon."""
    return places - places // 4


class Turns:
    """So many places at the same time, and a bounded queue in which every caller has a turn of its own.

    Free places go round among the callers who wait, one each (round robin; Nagle, RFC 970, section 5). A caller may
    hold all places but a quarter, so that a newcomer finds one soon. When the queue is full, the newest of whoever
    has most in it makes room for a caller who has fewer.

    Args:
        name: What the places are for; named in errors.
        max_concurrent: Places.
        max_queued: How many may wait.
        sole: Callers who may hold every place, because there are no others.
        retry_after: Seconds that a refused caller is told to wait.
        limit: Says how many places there are, in the stead of ``max_concurrent``; told of each that is taken.

    Example:
        >>> async def main():
        ...     turns = Turns("uploads", max_concurrent=1, max_queued=0)
        ...     async with turns.place("alice"):
        ...         async with turns.place("bob"):
        ...             pass
        >>> asyncio.run(main())
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.OverloadedError: uploads: all 1 places and all 0 places in the queue are taken
    """

    def __init__(
        self,
        name: str,
        *,
        max_concurrent: int,
        max_queued: int,
        sole: frozenset[str] = frozenset(),
        retry_after: float = 1,
        limit: AdaptiveLimit | None = None,
    ) -> None:
        self.name = name
        self.max_concurrent, self.max_queued = max_concurrent, max_queued
        self._sole = sole
        self._retry_after = retry_after
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # in the order of whose turn it is

    @property
    def in_use(self) -> int:
        """Places taken."""
        return self._held.total()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Hold a place.

        Args:
            caller: Whose turn it takes.

        Raises:
            OverloadedError: The queue is full.
        """
        await self.enter(caller)
        try:
            yield
        finally:
            self.leave(caller)

    async def enter(self, caller: str) -> None:
        """Take a place, which has to be given back by ``leave``; see ``place``."""
        if caller not in self._waiting and self.in_use < self.max_concurrent and self._may_have_more(caller):
            self._take(caller)
        else:
            await self._wait(caller)

    def _take(self, caller: str) -> None:
        self._held[caller] += 1
        if self._limit is not None:
            self._limit.enter()

    async def _wait(self, caller: str) -> None:
        if self.queued >= self.max_queued:
            self.make_room(caller)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(caller)
            else:
                self._forget(caller, turn)
            raise

    def make_room(self, caller: str) -> None:
        """Send the newest of whoever has most in the queue away, for a caller who has fewer there.

        Raises:
            OverloadedError: It has as many.
        """
        if not self.would_make_room(caller):
            raise self._full()
        longest = self._longest()
        newest = self._waiting[longest][-1]
        self._forget(longest, newest)
        newest.set_exception(self._full())

    def would_make_room(self, caller: str) -> bool:
        """Tell whether another caller has so many more in the queue that ``make_room`` sends one of those away."""
        if len(self._waiting) == 1 and caller in self._waiting:
            return False
        return len(self._waiting.get(self._longest(), ())) > len(self._waiting.get(caller, ())) + 1

    def _longest(self) -> str:
        return max(self._waiting, key=lambda name: len(self._waiting[name]), default="")

    def _full(self) -> OverloadedError:
        return OverloadedError(
            f"{self.name}: all {self.max_concurrent} places and all {self.max_queued} places in the queue are taken",
            retry_after=self._retry_after,
        )

    def leave(self, caller: str, *, began: float | None = None, error: BaseException | None = None) -> None:
        """Give a place back.

        Args:
            caller: Whose place it was.
            began: When it was taken, for the limit to learn from; None for what teaches nothing.
            error: Why it failed, if it did.
        """
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        if self._limit is not None:
            taught = began is not None or error is not None
            self._limit.leave(began, error if taught else asyncio.CancelledError())
            self.max_concurrent = self._limit.limit
        # More than one round where the limit has grown.
        granted = True
        while granted:
            granted = False
            for name in list(self._waiting):
                if self.in_use >= self.max_concurrent:
                    return
                if self._may_have_more(name):
                    self._grant(name)
                    granted = True

    def _grant(self, name: str) -> None:
        turn = self._waiting[name][0]
        self._forget(name, turn)
        if name in self._waiting:
            self._waiting[name] = self._waiting.pop(name)  # to the end of the round
        if not turn.done():  # else its request was given up in this very moment
            self._take(name)
            turn.set_result(None)

    def _may_have_more(self, caller: str) -> bool:
        share = self.max_concurrent if caller in self._sole else share_of(self.max_concurrent)
        return self._held[caller] < share

    def _forget(self, caller: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(caller)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[caller]
