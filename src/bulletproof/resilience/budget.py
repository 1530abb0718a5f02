"""A limit on how much of the load may be retries."""

from threading import RLock

from bulletproof.resilience.backoff import require


class RetryBudget:
    """Let only a share of the calls in flight be retries, so that a storm of them cannot finish off a sick service.

    One budget is meant for all calls to one service: give it to every policy that calls that service. A retry holds
    its place from the decision to retry, over the wait, to the end of that try. (The rule of Envoy's
    ``retry_budget``: ``budget_percent`` 20, ``min_retry_concurrency`` 3.) Thread-safe.

    Args:
        ratio: Share of the calls in flight that may be retrying, in (0, 1].
        floor: Retries that are always allowed, however few calls there are.

    Raises:
        ValueError: A number is outside its range.

    Example:
        >>> budget = RetryBudget(ratio=0.2, floor=1)
        >>> budget.acquire(), budget.acquire()
        (True, False)
    """

    __slots__ = ("_calls", "_lock", "_retries", "floor", "ratio")

    def __init__(self, ratio: float = 0.2, floor: int = 3) -> None:
        require("ratio", ratio, 0 < ratio <= 1, "above 0 and at most 1")
        require("floor", floor, floor >= 0, "at least 0")
        self.ratio = ratio
        self.floor = floor
        self._calls = 0
        self._retries = 0
        self._lock = RLock()  # a call may end in the garbage collector, at any allocation

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio!r}, floor={self.floor!r})"

    @property
    def calls(self) -> int:
        """Calls in flight."""
        return self._calls

    @property
    def retries(self) -> int:
        """Those of them that are retrying."""
        return self._retries

    @property
    def limit(self) -> int:
        """Retries allowed at this moment."""
        return max(self.floor, int(self._calls * self.ratio))

    def enter(self) -> None:
        """Count a call in."""
        with self._lock:
            self._calls += 1

    def leave(self) -> None:
        """Count a call out."""
        with self._lock:
            self._calls -= 1

    def acquire(self) -> bool:
        """Take a place for a retry; False when there is none."""
        with self._lock:
            if self._retries >= self.limit:
                return False
            self._retries += 1
            return True

    def release(self) -> None:
        """Give the place of a retry back."""
        with self._lock:
            self._retries -= 1
