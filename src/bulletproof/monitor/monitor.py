"""The monitor: what is failing, since when, how bad."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from heapq import nlargest
from itertools import islice
from math import ceil
from operator import itemgetter
from typing import Any

from bulletproof.errors import Diagnosis, classify
from bulletproof.monitor.event import ErrorEvent
from bulletproof.monitor.health import COUNTED, Measure, Share, judge
from bulletproof.monitor.operations import Operations
from bulletproof.monitor.recorder import Recorder
from bulletproof.monitor.series import HOUR, MINUTE, Series
from bulletproof.monitor.tally import Problem
from bulletproof.monitor.trending import SNOOZE, trend_of

_VALIDATION = "validation_error"
_BY = ("by_type", "by_service", "by_severity", "by_code")
_NAMES = frozenset({"error_type", "severity", "message"})
_TOP = 10
_LONGEST = 24 * 366
_POINTS = 120


class AIErrorMonitor(Recorder):
    """Collect and analyse the errors of an AI system.

    Counts are exact, by the minute for 25 hours and by the hour beyond. Nothing secret is kept, nothing grows without
    bound, and all methods may be called from any thread. Windows follow the monotonic clock: setting the time of the
    machine loses and doubles nothing. The work on a text (redaction, fingerprint) is done once for each distinct
    message and rationed: about 2,000 new messages at once, then 200 a second; beyond that they are counted by type,
    service, severity and code without being read.

    Args:
        retention_hours: How long errors are remembered.
        clock: Gives monotonic seconds.
        now: Gives the present moment (aware), for timestamps.
        samples: How many of the latest errors ``recent`` can give.
        objective: Share of operations that have to succeed, in (0, 1); what is left is the error budget.

    Raises:
        ValueError: If an argument makes no sense.

    Example:
        >>> monitor = AIErrorMonitor(retention_hours=24)
        >>> monitor.record_error("model_error", "ml_service", "high", "out of memory", batch=64, api_key="sk-1")
        >>> monitor.get_error_summary(hours=1)["by_type"]
        {'model_error': 1}
        >>> monitor.recent(1)[0].context
        {'batch': 64, 'api_key': '***'}
    """

    def __init__(
        self,
        retention_hours: float = 24,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] | None = None,
        samples: int = 1000,
        objective: float = 0.99,
    ) -> None:
        if not 0 < retention_hours <= _LONGEST:
            raise ValueError(f"retention_hours must be above 0 and at most {_LONGEST}, not {retention_hours!r}")
        if not 0 < objective < 1:
            raise ValueError(f"objective must be a share between 0 and 1, such as 0.99, not {objective!r}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples!r}")
        super().__init__(retention_hours * HOUR, clock, now, samples)
        self.retention_hours = retention_hours
        self.objective = objective

    def record_exception(self, error: BaseException, service: str, **context: Any) -> Diagnosis:
        """Classify an exception, record what it means and return it.

        Example:
            >>> AIErrorMonitor().record_exception(TimeoutError("no answer"), "llm", model="m").code
            'service_timeout'
        """
        diagnosis = classify(error)
        context = {f"{key}_" if key in _NAMES else key: value for key, value in context.items()}
        context.setdefault("code", diagnosis.code)
        context.setdefault("exception", diagnosis.exception_chain[0] if diagnosis.exception_chain else "")
        self.record_error(diagnosis.error_type.value, service, diagnosis.severity.value, diagnosis.details, **context)
        return diagnosis

    def get_error_summary(self, hours: float = 1) -> dict[str, Any]:
        """Return what failed in the last hours.

        Args:
            hours: Length of the window; longer than the retention means all of it.

        Returns:
            ``total_errors``, ``by_service``, ``by_severity``, ``by_type``, ``by_code`` (counts, the largest first),
            ``error_rate`` (errors a minute), ``failure_ratio`` (failed share of all operations, validation errors not
            counted as failed; None when no operations are reported), ``operations`` by service, ``trending_errors``,
            ``top_errors`` (with first and last time, count and a redacted sample), ``unlisted_errors`` (without a row
            for their fingerprint), ``unrecorded_errors`` (not recorded for want of memory or stack, ever) and
            ``hours``, the window looked at.

        Raises:
            ValueError: If ``hours`` is not a positive number.
        """
        hours = self._window(hours)
        counts: dict[str, Counter[str]] = {key: Counter() for key in _BY}
        failed: Counter[str] = Counter()
        with self._lock:
            at = self._drain()
            start = at - hours * HOUR
            for cell in self._cells:
                count = cell.series.since(start)
                if count:
                    for key, name in zip(_BY, cell.names, strict=True):
                        counts[key][name] += count
                    if cell.error_type != _VALIDATION:
                        failed[cell.service] += count
            rows = [(count, problem) for problem in self._problems if (count := problem.series.since(start))]
            top = [_row(problem, count) for count, problem in nlargest(_TOP, rows, key=itemgetter(0))]
            trending = self._trending(at)
            operations: dict[str, dict[str, Any]] = {}
            for service, seen in list(self._operations.items()):
                failures = failed[service] = seen.failures(start, failed[service])
                total = seen.ok.since(start) + failures
                operations[service] = {"total": total, "failed": failures, "mean_duration": seen.mean_duration(start)}
        del counts["by_code"][""]
        errors = counts["by_type"].total()
        fine = sum(row["total"] - row["failed"] for row in operations.values())
        judged = fine + failed.total() + counts["by_type"][_VALIDATION]
        return {
            "total_errors": errors,
            **{key: dict(counter.most_common()) for key, counter in counts.items()},
            "error_rate": errors / (60 * hours),
            "trending_errors": trending,
            "failure_ratio": failed.total() / judged if operations and judged else None,
            "operations": operations,
            "top_errors": top,
            "unlisted_errors": errors - sum(count for count, _ in rows),
            "unrecorded_errors": self._failed,
            "hours": hours,
        }

    def get_health_status(self) -> str:
        """Return ``healthy``, ``degraded`` or ``critical``.

        Example:
            >>> AIErrorMonitor().get_health_status()
            'healthy'
        """
        return str(self.explain_health()["status"])

    def explain_health(self) -> dict[str, Any]:
        """Return the health with its reasons.

        Returns:
            ``status``, ``basis`` (``burn_rate``, ``counts`` or both), ``reasons`` (sentences, the worst first),
            ``burns`` (windows in which the error budget burns too fast) and ``objective``.

        Example:
            >>> AIErrorMonitor().explain_health()["basis"]
            'counts'
        """
        with self._lock:
            at = self._drain()
            counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
            errors: dict[str, tuple[list[Series], list[Series]]] = {name: ([], []) for name in self._operations}
            for cell in self._cells:
                ours = cell.error_type != _VALIDATION
                if cell.service in errors:
                    errors[cell.service][ours].append(cell.series)
                count = cell.series.since(at - COUNTED) if ours else 0
                if count:
                    counted[cell.service][cell.severity] += count
            measured = {name: _measure(self._operations[name], *series) for name, series in errors.items()}
            return judge(measured, counted, at=at, objective=self.objective, retention_hours=self.retention_hours)

    def recent(self, n: int = 50, *, fingerprint: str | None = None, service: str | None = None) -> list[ErrorEvent]:
        """Return the latest errors, the newest first.

        When more come than may be looked at (see the class), some have no sample; counts are exact all the same.

        Args:
            n: How many at most.
            fingerprint: Only those of this kind.
            service: Only those of this service.
        """
        with self._lock:
            self._drain()
            # The newest first; what other processes saw arrives late.
            ring = sorted(self._ring, key=itemgetter(1))[::-1]
        wanted = (
            ErrorEvent(
                datetime.fromtimestamp(wall, UTC),
                *seen.names[:3],
                seen.message,
                dict(sample or {}),
                seen.fingerprint,
            )
            for seen, _, wall, sample in ring
            if fingerprint in (None, seen.fingerprint) and service in (None, seen.names[1])
        )
        return list(islice(wanted, max(n, 0)))

    def explain_error(self, fingerprint: str) -> dict[str, Any] | None:
        """Return what is known of all errors with one fingerprint, in the whole retention.

        Returns:
            As a row of ``top_errors``, and ``timeline`` (counts of the last 60 minutes, the oldest first); None when
            there are none, or too few to have a row.

        Example:
            >>> monitor = AIErrorMonitor()
            >>> monitor.record_error("model_error", "ml", "high", "tensor 7 is empty")
            >>> monitor.explain_error(monitor.recent(1)[0].fingerprint)["template"]
            'tensor <num> is empty'
        """
        with self._lock:
            at = self._drain()
            problem = self._problems.find(fingerprint)
            count = problem.series.since(at - self.retention_hours * HOUR) if problem is not None else 0
            if problem is None or not count:
                return None
            end = (at // MINUTE + 1) * MINUTE
            minutes = problem.series.between([end - MINUTE * back for back in range(60, -1, -1)])
            return _row(problem, count) | {"timeline": minutes}

    def own_counts(self) -> dict[tuple[str, str, str, str], int]:
        """Return how many errors this process itself recorded, by type, service, severity and code.

        The numbers only grow, but a row that was forgotten with the retention begins anew.
        """
        with self._lock:
            self._drain()
            return {cell.names: cell.own for cell in self._cells if cell.own}

    def timeline(self, hours: float = 1) -> list[dict[str, Any]]:
        """Return errors over time for a chart.

        Args:
            hours: Length of the window; longer than the retention means all of it.

        Returns:
            At most 120 steps of equal length (at least a minute), the oldest first: ``start`` (ISO 8601), ``seconds``
            (length), ``total``, ``by_type``, ``by_severity``, ``by_service``. Steps end at full minutes by the
            monotonic clock; the last one is the present and still grows, and what came in the window before the first
            one is counted in it.

        Raises:
            ValueError: If ``hours`` is not a positive number.
        """
        hours = self._window(hours)
        grain = HOUR if hours > 25 else MINUTE
        step = max(ceil(hours * HOUR / _POINTS / grain), 1) * grain
        with self._lock:
            at = self._drain()
            begin = self._wall() - at
            end = (at // MINUTE + 1) * MINUTE
            starts = [end - step * back for back in range(ceil(hours * HOUR / step), -1, -1)]
            steps: list[dict[str, Any]] = [
                {"start": _moment(begin + start), "seconds": step, "total": 0, **{key: {} for key in _BY[:3]}}
                for start in starts[:-1]
            ]
            starts[0] = min(starts[0], at - hours * HOUR)
            for cell in self._cells:
                for row, count in zip(steps, cell.series.between(starts), strict=True):
                    if count:
                        row["total"] += count
                        for key, name in zip(_BY[:3], cell.names, strict=False):
                            row[key][name] = row[key].get(name, 0) + count
        return steps

    # All of what follows under the lock

    def _window(self, hours: float) -> float:
        if isinstance(hours, bool) or not hours > 0:
            raise ValueError(f"hours must be a positive number, not {hours!r}")
        return min(hours, self.retention_hours)

    def _trending(self, at: float) -> list[dict[str, Any]]:
        found = []
        wall = self._wall()
        for problem in self._problems:
            trend = trend_of(problem.series, at=at, born=self._born, first=problem.born)
            if trend is not None:
                if at - problem.alarmed >= SNOOZE:
                    problem.alarmed = at
                found.append(
                    {
                        "error_type": problem.error_type,
                        "service": problem.service,
                        "fingerprint": problem.fingerprint,
                        **trend._asdict(),
                        "since": _moment(wall - (at - problem.alarmed)),
                        "code": problem.code,
                        "message": problem.message,
                    }
                )
        return sorted(found, key=lambda row: -row["recent"] + row["baseline"])


def _measure(operations: Operations, theirs: list[Series], ours: list[Series]) -> Measure:
    def measure(start: float) -> Share:
        failed = operations.failures(start, sum(series.since(start) for series in ours))
        refused = sum(series.since(start) for series in theirs)
        return Share(failed, operations.ok.since(start) + failed + refused)

    return measure


def _row(problem: Problem, count: int) -> dict[str, Any]:
    return {
        "fingerprint": problem.fingerprint,
        "error_type": problem.error_type,
        "service": problem.service,
        "severity": problem.severity,
        "code": problem.code,
        "count": count,
        "first_seen": _moment(problem.first),
        "last_seen": _moment(problem.last),
        "template": problem.template,
        "message": problem.message,
        "context": dict(problem.context),
    }


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()
