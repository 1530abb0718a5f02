"""What is measured of batches: here while chunks of them are worked on, and by all processes together."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from bulletproof.errors import StoreError
from bulletproof.pipeline.figures import Figures
from bulletproof.store import BatchStore

_SAVE_SECONDS, _SAVE_SECONDS_AT_END = 5.0, 1.0
FRESH_SECONDS = 3 * _SAVE_SECONDS
_RATE_SECONDS = 30
_KEPT_PARTS = 100
_HOST = "host:"
_BAD = {"half_open": 1, "open": 2, "forced_open": 3}
_OF_BREAKER = ("service", "state", "failures", "rejected", "retry_after", "last_error")


@dataclass(slots=True, eq=False)
class Part:
    """What this process measured of one batch, in all chunks of it."""

    batch_id: str
    figures: Figures
    source: str = field(default_factory=lambda: uuid4().hex)  # unlike those of all other processes
    lanes: set[str] = field(default_factory=set)  # where items waited lately
    users: int = 0  # chunks that are worked on
    saved_at: float = 0.0
    # How many items were done when.
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_SECONDS))

    def rate(self, now: float) -> float:
        """Return the items a second that came to an end lately."""
        self.marks.append((now, self.figures.done))
        while now - self.marks[0][0] > _RATE_SECONDS:
            self.marks.popleft()
        at, done = self.marks[0]
        return (self.figures.done - done) / (now - at) if now > at and self.users else 0.0


class Progress:
    """Measures batches part by part, each process its own, which are added up when somebody asks.

    A part is saved every few seconds; what a process that is killed measured in the last of them is lost.

    Args:
        store: Keeps the parts.
        breakers: The figures of those of this process that are not closed or have failed, by name.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        store: BatchStore,
        breakers: Callable[[], Mapping[str, dict[str, Any]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._breakers = breakers
        self._clock = clock
        self._parts: dict[str, Part] = {}
        self._saving = asyncio.Lock()  # what was measured later is saved later

    @contextmanager
    def part(self, batch_id: str) -> Iterator[Part]:
        """Return the part of a batch in which a chunk is counted while it is worked on."""
        part = self._parts.pop(batch_id, None) or Part(batch_id, Figures(self._clock))
        self._parts[batch_id] = part  # the last one of all
        for name in [name for name, old in self._parts.items() if not old.users and old is not part]:
            if len(self._parts) > _KEPT_PARTS:
                del self._parts[name]
        if not part.users:
            part.marks.clear()
            part.rate(self._clock())
        part.users += 1
        try:
            yield part
        finally:
            part.users -= 1

    async def save(self, part: Part, *, at_end: bool = False) -> None:
        """Save a part, unless that was done a moment ago.

        Args:
            part: The part.
            at_end: Whether a chunk of it is done.

        Raises:
            NotFoundError: The batch was deleted.
        """
        now = self._clock()
        pause = 0.0 if at_end and part.users <= 1 else _SAVE_SECONDS_AT_END if at_end else _SAVE_SECONDS
        rate = part.rate(now)
        if part.saved_at and now - part.saved_at < pause:
            return
        part.saved_at = now
        async with self._saving:
            said = self._said(part, rate)
            part.lanes.clear()  # those where items still wait are told again within a second
            with suppress(StoreError):  # it is saved again soon
                await self._store.save_figures(part.batch_id, part.source, said)

    async def report(self, batch_id: str) -> dict[str, Any]:
        """Return what all processes measured of a batch.

        Returns:
            ``stages``, ``slowest_hosts``, ``retried_by_code``, ``retries``, ``parked``, ``degraded``, ``truncated`` and
            ``attempts`` as in the report of a pipeline; ``breakers``, ``workers`` (processes) and ``rate`` of those
            that worked on it within the last seconds; ``age``, the seconds since any did (infinity when none did).

        Raises:
            NotFoundError: There is no such batch.
            StoreError: The database cannot be used.
        """
        parts = {source: (age, said) for source, age, said in await self._store.figures(batch_id)}
        own = self._parts.get(batch_id)
        if own is not None and (own.users or own.source in parts):
            age = 0.0 if own.users else parts[own.source][0]
            parts[own.source] = (age, self._said(own, own.rate(self._clock())))
        total, rate, workers = Figures(self._clock), 0.0, 0
        breakers: dict[str, dict[str, Any]] = {}
        for age, said in parts.values():
            total.add_parts(said)
            if age <= FRESH_SECONDS:
                rate += said["rate"]
                workers += 1
                for name, breaker in said["breakers"].items():
                    breakers[name] = _worse(breakers.get(name), breaker, age)
        found = total.as_dict()
        wanted = ("slowest_hosts", "retried_by_code", "retries", "parked", "degraded", "truncated", "attempts")
        stages = {
            name: {key: value for key, value in stage.items() if key != "items"}
            for name, stage in found["by_stage"].items()
        }
        return {name: found[name] for name in wanted} | {
            "stages": stages, "breakers": breakers, "workers": workers, "rate": rate,
            "age": min((age for age, _ in parts.values()), default=math.inf),
        }  # fmt: skip

    def _said(self, part: Part, rate: float) -> dict[str, Any]:
        def concerns(name: str) -> bool:
            return not name.startswith(_HOST) or name in part.lanes or part.figures.knows(name.removeprefix(_HOST))

        breakers = {
            name: {key: breaker[key] for key in _OF_BREAKER}
            for name, breaker in self._breakers().items()
            if concerns(name)
        }
        return part.figures.as_parts() | {"rate": rate, "breakers": breakers}


def _worse(one: dict[str, Any] | None, other: dict[str, Any], age: float) -> dict[str, Any]:
    """Return what two processes say of one breaker: the worse state, all failures, the longer wait."""
    wait = None if other["retry_after"] is None else max(0.0, other["retry_after"] - age)
    other = other | {"retry_after": wait}
    if one is None:
        return other
    first, second = sorted((one, other), key=lambda said: -_BAD.get(said["state"], 0))
    waits = [said["retry_after"] for said in (one, other) if said["retry_after"] is not None]
    return first | {
        "failures": one["failures"] + other["failures"], "rejected": one["rejected"] + other["rejected"],
        "retry_after": max(waits, default=None), "last_error": first["last_error"] or second["last_error"],
    }  # fmt: skip
