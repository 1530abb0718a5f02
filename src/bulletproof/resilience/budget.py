"""A limit on how much of the load may be retries."""

from dataclasses import dataclass, field
from threading import RLock

from bulletproof.resilience.backoff import require


@dataclass(slots=True, eq=False)
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

    ratio: float = 0.2
    floor: int = 3
    calls: int = field(default=0, init=False, repr=False)
    """Calls in flight."""
    retries: int = field(default=0, init=False, repr=False)
    """Those of them that are retrying."""
    # Re-entrant: a call may end in the garbage collector, at any allocation.
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        require("ratio", self.ratio, 0 < self.ratio <= 1, "above 0 and at most 1")
        require("floor", self.floor, self.floor >= 0, "at least 0")

    @property
    def limit(self) -> int:
        """Retries allowed at this moment."""
        return max(self.floor, int(self.calls * self.ratio))

    def enter(self) -> None:
        """Count a call in."""
        with self._lock:
            self.calls += 1

    def leave(self) -> None:
        """Count a call out."""
        with self._lock:
            self.calls -= 1

    def acquire(self) -> bool:
        """Take a place for a retry; False when there is none."""
        with self._lock:
            if self.retries >= self.limit:
                return False
            self.retries += 1
            return True

    def release(self) -> None:
        """Give the place of a retry back."""
        with self._lock:
            self.retries -= 1
