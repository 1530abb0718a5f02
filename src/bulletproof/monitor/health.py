"""How bad it is: the error budget and how fast it burns."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bulletproof.monitor.series import HOUR, MINUTE

STATUSES = ("healthy", "degraded", "critical")


class Pair(NamedTuple):
    """A long window (hours) that shows that it matters and a short one (hours) that shows that it still goes on.

    ``burn`` says how many times faster than allowed the budget must burn in both.
    """

    long: float
    short: float
    burn: float
    status: str


PAIRS = (
    Pair(1, 5 / 60, 14.4, "critical"),
    Pair(6, 0.5, 6, "critical"),
    Pair(24, 2, 3, "degraded"),
    Pair(72, 6, 1, "degraded"),
)
"""The page and ticket pairs of Google's SRE Workbook, chapter 5, "Alerting on SLOs" (multiwindow, multi-burn-rate)."""

MIN_OPERATIONS = 20
"""Operations in the long window below which a share says nothing."""
MIN_FAILURES = 5
"""Failures in the long window below which a share says nothing."""
MIN_RECENT_FAILURES = 2

COUNTED = 5 * MINUTE
"""Without a denominator: errors of the last five minutes count, by severity."""
CRITICAL_AT = {"critical": 5, "high": 50}
DEGRADED_AT = {"critical": 1, "high": 5}


class Share(NamedTuple):
    """Operations in a window: how many failed, of how many."""

    failed: int
    total: int


Measure = Callable[[float], Share]
"""Gives the operations from a moment of the monotonic clock on."""


class Burn(NamedTuple):
    """A pair of windows whose budget burns too fast."""

    service: str
    status: str
    long_hours: float
    short_hours: float
    threshold: float
    burn_long: float
    burn_short: float
    failed: int
    total: int

    @property
    def reason(self) -> str:
        return (
            f"{self.service}: {self.failed} of {self.total} operations failed in the last {_span(self.long_hours)}, "
            f"{self.burn_long:.1f} times what the objective allows (and {self.burn_short:.1f} times in the last "
            f"{_span(self.short_hours)}); {self.status} from {self.threshold:g} times on"
        )


def judge(
    measured: Mapping[str, Measure],
    counted: Mapping[str, Mapping[str, int]],
    *,
    at: float,
    objective: float,
    retention_hours: float,
) -> dict[str, Any]:
    """Say how the system is.

    All measured services together decide whether it is critical; one of several that burns its own budget makes it
    degraded. Services without enough operations to divide by are judged by counts.

    ``measured`` has the operations of each service that reports them, ``counted`` the errors of each service in the
    last five minutes by severity, validation errors left out. Returns what ``AIErrorMonitor.explain_health`` does.
    """
    pairs = [pair for pair in PAIRS if pair.long <= retention_hours or pair is PAIRS[0]]
    burns = _burns(measured, pairs, at, 1 - objective)
    thin = sorted(name for name, measure in measured.items() if measure(at - HOUR).total < MIN_OPERATIONS)
    by_counts = [name for name in sorted(counted) if name not in measured or name in thin]
    totals = {severity: sum(counted[name].get(severity, 0) for name in by_counts) for severity in CRITICAL_AT}
    counts_status = _by_counts(totals)
    status = max([counts_status, *(burn.status for burn in burns)], key=STATUSES.index)
    all_thin = len(thin) == len(measured)
    bases = {"burn_rate": burns or not all_thin, "counts": by_counts or all_thin}
    reasons = [burn.reason for burn in burns]
    if counts_status != "healthy":
        seen = " and ".join(f"{number} {severity}" for severity, number in totals.items() if number)
        reasons.append(f"{', '.join(by_counts)}: {seen} errors in the last 5 minutes")
    if status == "healthy":
        reasons.append("nothing fails more than it may")
    if bases["counts"]:
        reasons.append(_why_counts(bool(measured), thin))
    return {
        "status": status,
        "basis": " and ".join(name for name, used in bases.items() if used),
        "reasons": reasons,
        "burns": [burn._asdict() for burn in burns],
        "objective": objective,
    }


def _burns(measured: Mapping[str, Measure], pairs: list[Pair], at: float, budget: float) -> list[Burn]:
    def everything(start: float) -> Share:
        failed, total = zip(*(measure(start) for measure in measured.values()), strict=True)
        return Share(sum(failed), sum(total))

    if len(measured) <= 1:
        return [burn for name, measure in measured.items() for burn in _of(name, measure, pairs, at, budget)]
    burns = _of("all services", everything, pairs, at, budget)
    # Part of the system: the rest still works.
    weaker = [pair._replace(status="degraded") for pair in pairs]
    for name, measure in sorted(measured.items()):
        burns += _of(name, measure, weaker, at, budget)
    return sorted(burns, key=lambda burn: -STATUSES.index(burn.status))


def _of(name: str, measure: Measure, pairs: list[Pair], at: float, budget: float) -> list[Burn]:
    found = []
    for pair in pairs:
        wide, narrow = measure(at - pair.long * HOUR), measure(at - pair.short * HOUR)
        if wide.total < MIN_OPERATIONS or wide.failed < MIN_FAILURES or narrow.failed < MIN_RECENT_FAILURES:
            continue
        fast, now = (share.failed / share.total / budget for share in (wide, narrow))
        if min(fast, now) >= pair.burn:
            windows = (pair.long, pair.short, pair.burn)
            found.append(Burn(name, pair.status, *windows, round(fast, 2), round(now, 2), wide.failed, wide.total))
    return found


def _by_counts(totals: Mapping[str, int]) -> str:
    for status, limits in (("critical", CRITICAL_AT), ("degraded", DEGRADED_AT)):
        if any(totals[severity] >= limit for severity, limit in limits.items()):
            return status
    return "healthy"


def _why_counts(measured: bool, thin: list[str]) -> str:
    if not measured:
        return "judged by counts of the last 5 minutes: no operations are reported (record_success, observe)"
    few = f" ({', '.join(thin)}: fewer than {MIN_OPERATIONS} operations in the last hour)" if thin else ""
    return f"judged by counts of the last 5 minutes where no or few operations are reported{few}"


def _span(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
