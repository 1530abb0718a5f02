"""So many calls per second, and no more."""

import time
from threading import RLock

from bulletproof.errors import DeadlineExceededError, OverloadedError
from bulletproof.resilience.backoff import require
from bulletproof.resilience.deadlines import Clock, remaining
from bulletproof.resilience.guarding import Block
from bulletproof.resilience.pausing import Sleep, pause, pause_async


class RateLimit(Block):
    """A token bucket: ``rate`` calls in every ``per`` seconds on average, ``burst`` at once.

    A call that finds no token reserves the next one and waits for it, first come, first served; when that would take
    longer than ``max_wait`` (or than its deadline allows) it is refused at once and told when to come again. Kept as
    one number, the moment at which the bucket is full again (the generic cell rate algorithm, ITU-T I.371), so it
    costs the same for any rate. One limit serves threads and tasks alike, as a decorator, by ``call``, and as
    ``with`` or ``async with``.

    Args:
        rate: Calls allowed.
        per: In so many seconds.
        burst: Calls that may come at once after a rest; by default ``rate``, at least 1.
        max_wait: Seconds a call may wait for a token; 0 refuses at once, None waits as long as the deadline allows.
        name: What it protects; named in errors.
        clock: Gives monotonic seconds.
        sleep: Waits so many seconds, plain or async.

    Raises:
        ValueError: A number is outside its range.
        OverloadedError: From a call: no token in time; ``retry_after`` says when there is one.
        DeadlineExceededError: From a call: no token before its deadline.

    Example:
        >>> searches = RateLimit(2, per=1, max_wait=0, clock=lambda: 0.0)
        >>> [searches.reserve() for _ in range(2)]
        [0.0, 0.0]
        >>> searches.reserve()
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.OverloadedError: rate limit: the 2 calls per 1 s are used up, wait 0.5 s
    """

    __slots__ = ("_clock", "_full_at", "_interval", "_lock", "_sleep", "burst", "max_wait", "name", "per", "rate")

    def __init__(
        self,
        rate: float,
        *,
        per: float = 1,
        burst: float | None = None,
        max_wait: float | None = None,
        name: str = "rate limit",
        clock: Clock = time.monotonic,
        sleep: Sleep | None = None,
    ) -> None:
        require("rate", rate, rate > 0, "above 0 calls")
        require("per", per, per > 0, "above 0 seconds")
        if max_wait is not None:
            require("max_wait", max_wait, max_wait >= 0, "at least 0 seconds, or None")
        self.rate = rate
        self.per = per
        self.burst = max(1.0, rate) if burst is None else burst
        require("burst", self.burst, self.burst >= 1, "at least 1 call")
        self.max_wait = max_wait
        self.name = name
        self._interval = per / rate
        self._full_at = float("-inf")
        self._clock = clock
        self._sleep = sleep
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"RateLimit({self.rate!r}, per={self.per!r}, burst={self.burst!r})"

    @property
    def tokens(self) -> float:
        """Tokens in the bucket now; below 0 when calls wait for theirs."""
        return self.burst - max(0.0, self._full_at - self._clock()) / self._interval

    def reserve(self, tokens: float = 1) -> float:
        """Take tokens, from the future if need be.

        Args:
            tokens: How many; at most ``burst``.

        Returns:
            Seconds to wait until they are there; the caller has to wait that long.

        Raises:
            ValueError: More tokens than there ever are at once.
            OverloadedError: It would take longer than ``max_wait``; nothing was taken.
            DeadlineExceededError: It would take longer than the deadline allows; nothing was taken.
        """
        if tokens != 1:
            require("tokens", tokens, 0 < tokens <= self.burst, f"above 0 and at most burst={self.burst:g}")
        left = remaining()
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at, now) + tokens * self._interval
            wait = full_at - now - self.burst * self._interval
            if wait < 1e-9:  # within the rounding of floats
                wait = 0.0
            elif self.max_wait is not None and wait > self.max_wait:
                raise OverloadedError(
                    f"{self.name}: the {self.rate:g} calls per {self.per:g} s are used up, wait {wait:.3g} s",
                    retry_after=wait,
                )
            elif left is not None and wait >= left:
                raise DeadlineExceededError(
                    f"{self.name}: the next call is free in {wait:.3g} s, {left:.3g} s are left"
                )
            self._full_at = full_at
            return wait

    def give_back(self, tokens: float = 1) -> None:
        """Return tokens that were reserved and not used."""
        with self._lock:
            self._full_at -= tokens * self._interval

    def enter(self) -> None:
        """Take a token, waiting for it in this thread if need be."""
        wait = self.reserve()
        if wait:
            try:
                pause(wait, self._sleep)
            except BaseException:
                self.give_back()
                raise

    async def enter_async(self) -> None:
        """Take a token, waiting for it in this task if need be."""
        wait = self.reserve()
        if wait:
            try:
                await pause_async(wait, self._sleep)
            except BaseException:
                self.give_back()
                raise
