"""What went well, too: the denominator of every rate."""

from bulletproof.monitor.series import Series

_MICRO = 1_000_000


class Operations:
    """The operations of one service, failed ones included, and how long they took."""

    __slots__ = ("_at", "_busy", "_pending", "_timed", "failed", "ok")

    def __init__(self) -> None:
        self.ok = Series()
        self.failed = Series()
        self._timed = Series()
        self._busy = Series()
        self._pending: list[float] = [0, 0, 0, 0.0]
        self._at = 0.0

    def observe(self, at: float, ok: bool, duration: float | None) -> None:
        self._at = at
        pending = self._pending
        pending[0 if ok else 1] += 1
        if duration is not None and 0 <= duration < 1e9:
            pending[2] += 1
            pending[3] += duration

    def fold(self) -> tuple[int, int]:
        """Move what is pending to the series and return it: how many went well, how many failed."""
        ok, failed, timed, busy = self._pending
        if ok or failed:
            self._pending = [0, 0, 0, 0.0]
            counts = (ok, failed, timed, busy * _MICRO)
            for series, count in zip((self.ok, self.failed, self._timed, self._busy), counts, strict=True):
                if count:
                    series.add(self._at, round(count))
        return int(ok), int(failed)

    @property
    def kept(self) -> bool:
        return bool(self.ok.kept or self.failed.kept or any(self._pending))

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
