"""What went well, too: the denominator of every rate."""

from bulletproof.monitor.series import Series

_MICRO = 1_000_000


class Operations:
    """The operations of one service, failed ones included, and how long they took."""

    __slots__ = ("_busy", "_timed", "failed", "ok", "service")

    def __init__(self, service: str) -> None:
        self.service = service
        self.ok = Series()
        self.failed = Series()
        self._timed = Series()
        self._busy = Series()

    def observe(self, at: float, ok: bool, duration: float | None) -> None:
        """Count one operation; ``duration`` in seconds."""
        (self.ok if ok else self.failed).add(at, 1)
        if duration is not None and 0 <= duration < 1e9:
            self._timed.add(at, 1)
            self._busy.add(at, round(duration * _MICRO))

    def forget(self, start: float, fine: float) -> None:
        """Drop what is older than ``start``, merge what is older than ``fine``."""
        for series in (self.ok, self.failed, self._timed, self._busy):
            series.drop(start)
            series.compact(fine)

    def failures(self, start: float, errors: int) -> int:
        """Return how many failed from ``start`` on: the larger one of those observed and the errors recorded."""
        return max(self.failed.since(start), errors)

    def mean_duration(self, start: float) -> float | None:
        """Return the mean duration in seconds from ``start`` on, None when no durations were given."""
        timed = self._timed.since(start)
        return self._busy.since(start) / timed / _MICRO if timed else None
