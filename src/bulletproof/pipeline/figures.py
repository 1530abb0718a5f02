"""What is counted while a batch runs: in a bounded amount of memory, whatever comes through."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulletproof.pipeline.items import STAGES, TERMINAL, ProcessingItem, ProcessingStatus

_GROWTH = math.log(1.04)  # each bucket is 4 % wide, so that its middle is at most 2 % off
_SHORTEST = 1e-6
_HOSTS = 1000
_SHOWN_HOSTS = 10
_SUMS = ("attempts", "succeeded", "retried", "failed")
_TOTALS = ("retries", "parked", "degraded", "truncated")
_RATE_SECONDS = 30


class Sketch:
    """Quantiles of durations, to 2 %, in at most a few hundred counters.

    The rule is that of C. Masson et al., "DDSketch", VLDB 2019: buckets whose limits grow by a constant factor.

    Example:
        >>> sketch = Sketch()
        >>> for milliseconds in range(1, 101):
        ...     sketch.add(milliseconds / 1000)
        >>> round(sketch.quantile(0.5), 2), round(sketch.quantile(0.99), 1)
        (0.05, 0.1)
    """

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """Take in one duration."""
        self._buckets[math.ceil(math.log(max(seconds, _SHORTEST)) / _GROWTH)] += 1
        self.count += 1

    def as_parts(self) -> dict[int, int]:
        """Return how many durations there are in each bucket."""
        return dict(self._buckets)

    def add_parts(self, parts: Mapping[str, int]) -> None:
        """Take in what another one holds, whose buckets went through JSON."""
        for bucket, number in parts.items():
            self._buckets[int(bucket)] += number
            self.count += number

    def quantile(self, share: float) -> float | None:
        """Return the duration that this share of all does not exceed; None when there are none."""
        wanted = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return math.exp((bucket - 0.5) * _GROWTH)
        return None


@dataclass(slots=True)
class StageFigures:
    """One stage: tries, how they ended, and how long they took."""

    items: int = 0
    attempts: int = 0
    succeeded: int = 0
    retried: int = 0
    failed: int = 0
    times: Sketch = field(default_factory=Sketch)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures; durations in seconds."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name != "times"}
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            seconds = self.times.quantile(share)
            values[name] = None if seconds is None else round(seconds, 6)
        return values


class Figures:
    """The running totals of a batch; ``expected`` is how many items will come, if that is known."""

    def __init__(self, clock: Callable[[], float], expected: int | None = None) -> None:
        self.expected = expected
        self.by_status: Counter[ProcessingStatus] = Counter()
        self.stages = {stage: StageFigures() for stage in STAGES}
        self.failed_types: Counter[str] = Counter()
        self.failed_codes: Counter[str] = Counter()
        self.retried_codes: Counter[str] = Counter()
        self.retries = self.parked = self.duplicates = self.degraded = self.truncated = 0
        self._hosts: dict[str, list[float]] = {}
        self._clock = clock
        self._started = clock()
        self._ended: float | None = None
        self._marks: deque[tuple[float, int]] = deque([(self._started, 0)], maxlen=_RATE_SECONDS)

    @property
    def total(self) -> int:
        """Items that came so far."""
        return sum(self.by_status.values())

    @property
    def done(self) -> int:
        """Items that came to an end."""
        return sum(self.by_status[status] for status in TERMINAL)

    def enter(self, item: ProcessingItem) -> None:
        """Count a new item."""
        self.by_status[item.status] += 1
        if item.stage in self.stages and not item.is_done:
            self.stages[item.stage].items += 1

    def moved(self, before: ProcessingStatus, after: ProcessingStatus) -> None:
        """Count a change of status."""
        self.by_status[before] -= 1
        self.by_status[after] += 1
        if after in TERMINAL and (now := self._clock()) - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))

    def advanced(self, before: str, after: str) -> None:
        """Count a change of stage."""
        for stage, step in ((before, -1), (after, 1)):
            if stage in self.stages:
                self.stages[stage].items += step

    def answered(self, host: str, seconds: float) -> None:
        """Note how long a host took; the slowest of the last thousand or so are remembered."""
        found = self._hosts.setdefault(host, [0, 0.0])
        found[0] += 1
        found[1] += seconds
        if len(self._hosts) > _HOSTS:
            slowest = sorted(self._hosts.items(), key=_mean, reverse=True)[: _HOSTS // 2]
            self._hosts = dict(slowest)

    def as_parts(self) -> dict[str, Any]:
        """Return what can be added up over processes, as JSON; of the hosts the slowest."""
        slowest = sorted(self._hosts.items(), key=_mean, reverse=True)[: _HOSTS // 10]
        return {
            "stages": {
                name: {sum_: getattr(stage, sum_) for sum_ in _SUMS} | {"times": stage.times.as_parts()}
                for name, stage in self.stages.items()
            },
            "hosts": dict(slowest), "retried_codes": dict(self.retried_codes),
            **{name: getattr(self, name) for name in _TOTALS},
        }  # fmt: skip

    def add_parts(self, parts: Mapping[str, Any]) -> None:
        """Take in what ``as_parts`` of another one returned."""
        for name, values in parts["stages"].items():
            stage = self.stages[name]
            for sum_ in _SUMS:
                setattr(stage, sum_, getattr(stage, sum_) + values[sum_])
            stage.times.add_parts(values["times"])
        for host, (number, seconds) in parts["hosts"].items():
            found = self._hosts.setdefault(host, [0, 0.0])
            found[0] += number
            found[1] += seconds
        self.retried_codes.update(parts["retried_codes"])
        for name in _TOTALS:
            setattr(self, name, getattr(self, name) + parts[name])

    def knows(self, host: str) -> bool:
        """Tell whether a host answered lately, however it did."""
        return host in self._hosts

    def end(self) -> None:
        """Stop the clock."""
        self._ended = self._clock()

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as they stand in the report."""
        elapsed = max(0.0, (self._ended if self._ended is not None else self._clock()) - self._started)
        done, rate = self.done, self._rate(elapsed)
        left: float | None = None
        if self._ended is None and self.expected is not None and rate:
            left = max(0, self.expected - done) / rate
        counts = {status.value: self.by_status[status] for status in ProcessingStatus}
        return {
            "total": self.total, **counts,
            "duplicates": self.duplicates, "degraded": self.degraded, "truncated": self.truncated,
            "expected": self.expected,
            "by_status": dict(counts),
            "by_stage": {name: stage.as_dict() for name, stage in self.stages.items()},
            "by_error_type": dict(self.failed_types.most_common()),
            "by_code": dict(self.failed_codes.most_common()),
            "retried_by_code": dict(self.retried_codes.most_common()),
            "attempts": sum(stage.attempts for stage in self.stages.values()),
            "retries": self.retries, "parked": self.parked,
            "elapsed_seconds": round(elapsed, 3),
            "items_per_second": round(rate, 2),
            "seconds_left": None if left is None else round(left, 1),
            "slowest_hosts": [
                {"host": host, "downloads": int(count), "mean_seconds": round(seconds / count, 4)}
                for host, (count, seconds) in sorted(self._hosts.items(), key=_mean, reverse=True)[:_SHOWN_HOSTS]
            ],
        }  # fmt: skip

    def _rate(self, elapsed: float) -> float:
        """Items a second: of the last half minute while it runs, of the whole afterwards."""
        if self._ended is not None:
            return self.done / elapsed if elapsed else 0.0
        at, done = self._marks[0]
        seconds = self._clock() - at
        return (self.done - done) / seconds if seconds > 0 else 0.0


def _mean(entry: tuple[str, list[float]]) -> float:
    return entry[1][1] / entry[1][0]
