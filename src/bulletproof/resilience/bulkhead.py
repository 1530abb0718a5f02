"""So many calls at the same time, and no more."""

from bulletproof.resilience.backoff import require
from bulletproof.resilience.guarding import Block
from bulletproof.resilience.slots import Slots


class Bulkhead(Slots, Block):
    """Let only so many calls run at once, so that one slow service cannot take every thread or connection.

    The rest wait in a bounded queue, first come, first served; when that is full they are refused at once. One
    bulkhead serves threads and tasks alike, as a decorator, by ``call``, and as ``with`` or ``async with``.

    Args:
        name: What it protects; named in errors.
        max_concurrent: Calls at the same time.
        max_queued: Calls that may wait; 0 refuses at once.
        max_wait: Seconds a call may wait; None for as long as its deadline allows.
        retry_after: Seconds that a refused caller is told to wait.

    Raises:
        ValueError: A number is outside its range.
        OverloadedError: From a call: no place, and none in the queue, or not in time.
        DeadlineExceededError: From a call: its deadline came before a place was free.

    Example:
        >>> uploads = Bulkhead("uploads", max_concurrent=1)
        >>> with uploads:
        ...     with uploads:
        ...         pass
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.OverloadedError: uploads: all 1 places and all 0 places in the queue are taken
    """

    __slots__ = ()

    def __init__(
        self,
        name: str,
        *,
        max_concurrent: int,
        max_queued: int = 0,
        max_wait: float | None = None,
        retry_after: float = 1,
    ) -> None:
        require("max_concurrent", max_concurrent, max_concurrent >= 1, "at least 1")
        require("max_queued", max_queued, max_queued >= 0, "at least 0")
        require("retry_after", retry_after, retry_after > 0, "above 0 seconds")
        if max_wait is not None:
            require("max_wait", max_wait, max_wait > 0, "above 0 seconds, or None")
        super().__init__(name, max_concurrent, max_queued, max_wait, retry_after)

    def __repr__(self) -> str:
        return f"Bulkhead({self.name!r}, max_concurrent={self.limit}, max_queued={self.max_queued})"

    @property
    def in_use(self) -> int:
        """Calls that run now."""
        return self.used
