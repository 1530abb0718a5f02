"""How much a caller may use in a minute or a day, and how much it has used."""

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from bulletproof.errors import StoreError, TooManyRequestsError
from bulletproof.resilience import AIServiceCircuitBreaker, RetryPolicy
from bulletproof.settings import Settings
from bulletproof.store import SqlUsage, Used
from bulletproof.store.access import CIRCUIT, StoreAccess

logger = logging.getLogger("bulletproof.service")

MINUTE, DAY = 60.0, 86_400.0
_MAX_COUNTS, _MAX_SEEN = 50_000, 1000
_EXCHANGE_SECONDS = 2.0


class Limit(NamedTuple):
    """So much of something in such a time.

    Args:
        what: ``requests``, ``bytes``, ``records``, ``tokens``, ``cost`` or ``refused``.
        quota: How much.
        window: Seconds.
    """

    what: str
    quota: float
    window: float


REFUSED = Limit("refused", 60, MINUTE)
"""Requests with a wrong key, for one address: enough for a mistake, too few to guess with."""


def limits_of(settings: Settings) -> list[Limit]:
    """Return the limits that the settings give to each caller."""
    given = (
        ("requests", settings.requests_per_minute, MINUTE),
        ("bytes", settings.bytes_per_day, DAY),
        ("records", settings.records_per_day, DAY),
        ("tokens", settings.llm_tokens_per_day, DAY),
        ("cost", settings.llm_cost_per_day, DAY),
    )
    return [Limit(what, quota, window) for what, quota, window in given if quota is not None]


class Meter:
    """Counts what callers use in sliding windows: this window's count, and of the last one the share still in sight.

    Args:
        limits: What each caller may use.
        now: Seconds since 1970; processes that share their counts need to agree on it.

    Example:
        >>> meter = Meter([Limit("requests", 2, 60)], now=lambda: 0.0)
        >>> for _ in range(2):
        ...     meter.admit("alice")
        >>> meter.admit("alice")
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.TooManyRequestsError: 2 requests in 60 s are used up
    """

    def __init__(self, limits: Sequence[Limit] = (), *, now: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self._now = now
        self._windows = {limit.what: limit.window for limit in (*limits, REFUSED)}
        self._ours: dict[tuple[str, str, float], float] = {}
        self._others: dict[tuple[str, str, float], float] = {}
        self._seen: dict[str, None] = {}

    def admit(self, subject: str, *, size: int = 0) -> None:
        """Count a request, if the caller has not used up what it may.

        Args:
            subject: The caller.
            size: Bytes that it is about to send, as far as it says so.

        Raises:
            TooManyRequestsError: It has; says of what, and when there is more.
        """
        if self.limits:
            self._seen.pop(subject, None)
            self._seen[subject] = None
            if len(self._seen) > _MAX_SEEN:
                del self._seen[next(iter(self._seen))]
        self._check(subject, self.limits, size)
        self.add(subject, "requests", 1)

    def refuse(self, address: str) -> None:
        """Count a request with a wrong key."""
        self.add(address, REFUSED.what, 1)

    def check_refused(self, address: str) -> None:
        """Keep off an address that has shown too many wrong keys.

        Raises:
            TooManyRequestsError: It has.
        """
        self._check(address, [REFUSED], 0)

    def add(self, subject: str, what: str, amount: float) -> None:
        """Count what a caller has used; of what is not limited nothing is kept."""
        window = self._windows.get(what)
        if window is None or not amount:
            return
        if len(self._ours) >= _MAX_COUNTS:
            self._prune()
        place = (subject, what, self._end(window))
        self._ours[place] = self._ours.get(place, 0) + amount

    def used(self, subject: str, limit: Limit) -> float:
        """Return how much of a limit is used now."""
        now, last = self._counts(subject, limit)
        return now + last * (self._end(limit.window) - self._now()) / limit.window

    def headers(self, subject: str, *, size: int = 0) -> dict[str, str]:
        """Return the headers that tell a caller where it stands (draft-ietf-httpapi-ratelimit-headers-10).

        Where a request of so many bytes is refused, ``t`` is the wait that ``admit`` tells, else the window's end.
        """
        if not self.limits:
            return {}
        policies = (f'"{limit.what}";q={limit.quota:g};w={limit.window:g}' for limit in self.limits)
        return {
            "RateLimit-Policy": ", ".join(policies),
            "RateLimit": ", ".join(
                f'"{limit.what}";r={max(0, math.floor(limit.quota - self.used(subject, limit)))}'
                f";t={math.ceil(self._wait(subject, limit, size) or self._end(limit.window) - self._now())}"
                for limit in self.limits
            ),
        }

    def counted(self) -> list[Used]:
        """Return what this process has counted in windows that still matter."""
        self._prune()
        return [Used(*place, amount) for place, amount in self._ours.items()]

    @property
    def subjects(self) -> set[str]:
        """Whoever has used something, here or elsewhere, or asked for it."""
        return {place[0] for place in (*self._ours, *self._others)} | self._seen.keys()

    def learn(self, others: Sequence[Used]) -> None:
        """Take what other processes have counted."""
        self._others = {(row.subject, row.what, row.ends): row.amount for row in others}

    def _check(self, subject: str, limits: Sequence[Limit], size: int) -> None:
        # Of several that are used up the caller has to wait for the last.
        wait, limit = max(((self._wait(subject, limit, size), limit) for limit in limits), default=(0.0, REFUSED))
        if wait:
            raise TooManyRequestsError(
                f"{limit.quota:,g} {limit.what} in {limit.window:,g} s are used up", retry_after=wait
            )

    def _wait(self, subject: str, limit: Limit, size: int) -> float:
        """Return in how many seconds there is room: as the last window, or this one, moves out of sight; 0 for now."""
        coming = max(size if limit.what == "bytes" else 0, 1e-9)
        if self.used(subject, limit) + coming <= limit.quota:
            return 0.0
        now, last = self._counts(subject, limit)
        left, free = self._end(limit.window) - self._now(), max(0.0, limit.quota - coming)
        if now < free and last > 0:
            return max(1.0, left - limit.window * (free - now) / last)
        return left + max(1.0, limit.window * (1 - free / max(now, free, 1e-9)))

    def _counts(self, subject: str, limit: Limit) -> tuple[float, float]:
        end = self._end(limit.window)
        places = ((subject, limit.what, end), (subject, limit.what, end - limit.window))
        now, last = (self._ours.get(place, 0.0) + self._others.get(place, 0.0) for place in places)
        return now, last

    def _end(self, window: float) -> float:
        return (self._now() // window + 1) * window

    def _prune(self) -> None:
        now = self._now()
        self._ours = {place: amount for place, amount in self._ours.items() if place[2] > now - self._windows[place[1]]}
        if len(self._ours) >= _MAX_COUNTS:
            # Those go first whose window ends first, and who used least of it.
            places = sorted(self._ours, key=lambda place: (place[2], self._ours[place]))
            for place in places[: _MAX_COUNTS // 10]:
                del self._ours[place]


@asynccontextmanager
async def metering(meter: Meter, results: Any) -> AsyncIterator[None]:
    """Exchange counts with the other processes every two seconds; no request waits for it.

    Args:
        meter: Counts.
        results: The result store, whose database is used.
    """
    access: StoreAccess | None = getattr(results, "access", None)
    if access is None or not meter.limits:
        yield
        return
    breaker = AIServiceCircuitBreaker("quotas", CIRCUIT)
    own = StoreAccess(access.address, retry=RetryPolicy(max_attempts=1), breaker=breaker)
    usage = SqlUsage(own, f"{os.getpid()}-{uuid4().hex[:8]}")
    await _exchange(meter, usage, everybody=True)
    task = asyncio.create_task(_keep_exchanging(meter, usage), name="bulletproof-quotas")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _exchange(meter, usage)
        await own.aclose()


async def _keep_exchanging(meter: Meter, usage: SqlUsage) -> None:
    while True:
        await asyncio.sleep(_EXCHANGE_SECONDS)
        await _exchange(meter, usage)


async def _exchange(meter: Meter, usage: SqlUsage, *, everybody: bool = False) -> None:
    ours = meter.counted()
    try:
        meter.learn(await usage.exchange(ours, None if everybody else meter.subjects, now=time.time()))
    except StoreError as error:
        # Each process goes on with its own counts.
        logger.debug("quotas are not shared now: %s", error.code)
