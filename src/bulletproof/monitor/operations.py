"""What went well, too: the denominator of every rate."""

from bulletproof.monitor.series import Series

_MICRO = 1_000_000


class Operations:
    """The operations of one service, failed ones included, and how long they took."""

    __slots__ = ("busy", "failed", "last", "ok", "pending_busy", "pending_failed", "pending_ok", "timed")

    def __init__(self) -> None:
        self.ok = Series()
        self.failed = Series()
        self.busy = Series()
        self.timed = Series()
        self.pending_ok = 0
        self.pending_failed = 0
        self.pending_busy: list[float] = [0, 0.0]
        self.last = 0.0

    def count(self, at: float, ok: bool, duration: float | None) -> None:
        """Count one operation; ``duration`` in seconds."""
        self.last = at
        if ok:
            self.pending_ok += 1
        else:
            self.pending_failed += 1
        if duration is not None and 0 <= duration < 1e9:
            self.pending_busy[0] += 1
            self.pending_busy[1] += duration

    def fold(self) -> tuple[int, int]:
        """Move what is pending to the series and return it: how many went well, how many failed."""
        counted = self.pending_ok, self.pending_failed
        if any(counted):
            self.add(self.last, *counted)
            timed, busy = self.pending_busy
            if timed:
                self.timed.add(self.last, int(timed))
                self.busy.add(self.last, round(busy * _MICRO))
            self.pending_ok = self.pending_failed = 0
            self.pending_busy = [0, 0.0]
        return counted

    def add(self, at: float, ok: int, failed: int) -> None:
        """Count many that were counted elsewhere."""
        if ok:
            self.ok.add(at, ok)
        if failed:
            self.failed.add(at, failed)

    def forget(self, start: float, fine: float) -> None:
        """Drop what is older than ``start``, merge what is older than ``fine``."""
        for series in (self.ok, self.failed, self.busy, self.timed):
            series.drop(start)
            series.compact(fine)

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered."""
        return not (self.ok.kept or self.failed.kept or self.pending_ok or self.pending_failed)

    def mean_duration(self, start: float) -> float | None:
        """Return the mean duration in seconds from ``start`` on, None when no durations were given."""
        timed = self.timed.since(start)
        return self.busy.since(start) / timed / _MICRO if timed else None
