"""As many calls at the same time as the service bears, found out from its answering times."""

import time
from threading import RLock
from typing import Any

from bulletproof.errors import classify
from bulletproof.resilience.backoff import require
from bulletproof.resilience.deadlines import Clock
from bulletproof.resilience.guarding import Guard
from bulletproof.resilience.slots import Slots

_OVERLOAD = frozenset({"overloaded", "rate_limited", "service_timeout", "service_unavailable", "prediction_timeout"})
_WINDOW = 10  # calls at least whose mean time is compared with the usual one
_PROBE = 50  # windows after which the usual time is measured anew


class AdaptiveLimit(Guard):
    """A bulkhead that finds its own size.

    When answers take longer than usual, a queue is building up in the service, and fewer calls are let in; when they
    are as fast as ever and the places are all used, more are. Overload errors (429, 503, timeouts) shrink it at once.
    The rule is that of Netflix' concurrency-limits (``GradientLimit``): the new limit is the old one times usual /
    present time, plus room for a short queue. Here the times are means over as many calls as there are places, since
    the answers of models differ much in length. What is usual is measured anew when it has held the limit down for
    long, for which the limit drops to half for a moment. A decorator and ``call``, for threads and tasks alike.

    Args:
        name: What it protects; named in errors.
        initial: Calls at the same time to begin with.
        min_limit: Fewest calls at the same time.
        max_limit: Most calls at the same time.
        max_queued: Calls that may wait for a place; 0 refuses at once.
        max_wait: Seconds a call may wait; None for as long as its deadline allows.
        tolerance: How many times the usual an answer may take before the limit shrinks; at least 1.
        smoothing: Weight of each new estimate, in (0, 1].
        clock: Gives monotonic seconds.

    Raises:
        ValueError: A number is outside its range.
        OverloadedError: From a call: no place, and none in the queue, or not in time.
        DeadlineExceededError: From a call: its deadline came before a place was free.

    Example:
        >>> limit = AdaptiveLimit("embeddings", initial=8)
        >>> limit.call(len, "abc"), limit.limit
        (3, 8)
    """

    __slots__ = (
        "_busiest",
        "_clock",
        "_count",
        "_estimate",
        "_lock",
        "_slots",
        "_smoothing",
        "_stale",
        "_tolerance",
        "_total",
        "_usual",
        "_windows",
        "max_limit",
        "min_limit",
    )

    def __init__(
        self,
        name: str,
        *,
        initial: int = 20,
        min_limit: int = 1,
        max_limit: int = 200,
        max_queued: int = 0,
        max_wait: float | None = None,
        tolerance: float = 1.5,
        smoothing: float = 0.5,
        clock: Clock = time.monotonic,
    ) -> None:
        require("min_limit", min_limit, min_limit >= 1, "at least 1")
        require("max_limit", max_limit, max_limit >= min_limit, f"at least min_limit={min_limit}")
        require("initial", initial, min_limit <= initial <= max_limit, f"from {min_limit} to {max_limit}")
        require("max_queued", max_queued, max_queued >= 0, "at least 0")
        require("tolerance", tolerance, tolerance >= 1, "at least 1")
        require("smoothing", smoothing, 0 < smoothing <= 1, "above 0 and at most 1")
        if max_wait is not None:
            require("max_wait", max_wait, max_wait > 0, "above 0 seconds, or None")
        self.min_limit = min_limit
        self.max_limit = max_limit
        self._slots = Slots(name, initial, max_queued, max_wait, retry_after=1)
        self._estimate = float(initial)
        self._usual: float | None = None
        self._total = 0.0
        self._count = self._busiest = self._windows = self._stale = 0
        self._tolerance = tolerance
        self._smoothing = smoothing
        self._clock = clock
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"AdaptiveLimit({self._slots.name!r}, min_limit={self.min_limit}, max_limit={self.max_limit})"

    @property
    def name(self) -> str:
        """What it protects."""
        return self._slots.name

    @property
    def limit(self) -> int:
        """Calls that may run at the same time now."""
        return self._slots.limit

    @property
    def in_use(self) -> int:
        """Calls that run now."""
        return self._slots.used

    @property
    def queued(self) -> int:
        """Calls that wait now."""
        return self._slots.queued

    def enter(self) -> float:
        """Take a place, waiting in this thread if need be; returns when the call began."""
        self._slots.enter()
        return self._clock()

    async def enter_async(self) -> float:
        """Take a place, waiting in this task if need be; returns when the call began."""
        await self._slots.enter_async()
        return self._clock()

    def leave(self, entry: Any, error: BaseException | None) -> None:
        """Give the place back and learn from how long the call took, or from its error."""
        in_use = self._slots.used
        try:
            with self._lock:
                if error is None:
                    self._sample(max(self._clock() - entry, 1e-9), in_use)
                elif isinstance(error, Exception) and classify(error).code in _OVERLOAD:
                    self._settle(self._estimate * 0.9)
        finally:
            self._slots.leave()

    def _sample(self, seconds: float, in_use: int) -> None:
        if self._stale:
            self._stale -= 1  # begun before the limit was lowered to look at the service without a queue
            return
        self._count += 1
        self._total += seconds
        self._busiest = max(self._busiest, in_use)
        if self._count < max(_WINDOW, self._slots.limit):
            return
        mean, busiest = self._total / self._count, self._busiest
        self._count = self._busiest = 0
        self._total = 0.0
        if self._usual is None or mean > self._tolerance * self._usual:
            self._windows += 1  # it is what is usual that holds the limit down
        if self._windows == _PROBE:
            self._windows, self._usual, self._stale = 0, None, in_use - 1
            self._settle(self._estimate / 2)
            return
        self._usual = mean if self._usual is None else min(self._usual, mean)
        if busiest < self._estimate / 2:
            return  # too little load to tell anything
        gradient = max(0.5, min(1.0, self._tolerance * self._usual / mean))
        wanted = self._estimate * gradient + self._estimate**0.5
        self._settle(self._estimate * (1 - self._smoothing) + wanted * self._smoothing)

    def _settle(self, estimate: float) -> None:
        self._estimate = max(float(self.min_limit), min(float(self.max_limit), estimate))
        limit = int(self._estimate)
        if limit != self._slots.limit:
            self._slots.resize(limit)
