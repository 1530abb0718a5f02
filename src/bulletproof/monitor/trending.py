"""What has just become worse: a test of the last minutes against what was usual."""

from math import sqrt
from typing import NamedTuple

from bulletproof.monitor.series import MINUTE, Series

WINDOWS = ((6 * MINUTE, 3.35), (12 * MINUTE, 3.55))
"""Lengths of "the last minutes", each with the standard deviations that it takes to say so.

Chosen by simulation (benchmarks/trending.py) so that chance alone raises at most 0.3 alarms a day for an error that
comes at a steady rate, whatever the rate and however often one asks.
"""
BASELINE = 180 * MINUTE
WARM = 10 * MINUTE
"""What was usual is not known before so much time has been watched."""
MIN_RATIO = 2.0
MIN_EVENTS = 5
SNOOZE = 15 * MINUTE
"""An alarm stands for so long before the same error can raise another."""


class Trend(NamedTuple):
    """More errors in the last minutes than usual: ``ratio`` times ``baseline``, or of a kind never seen before."""

    recent: int
    baseline: float
    ratio: float
    minutes: float
    new: bool


def trend_of(series: Series, *, at: float, born: float, first: float) -> Trend | None:
    """Say how many more errors there are than usual ``at`` the present; watching began when the monitor was ``born``.

    It is None when it may well be chance: fewer than 5, less than twice the usual, or not significant by Anscombe's
    transformation (Biometrika 35, 1948): 2 √(x + 3/8) of a Poisson count has a variance of one; the variance of the
    baseline comes on top.

    Example:
        >>> errors = Series()
        >>> for minute in range(120):
        ...     errors.add(60.0 * minute, 1)
        >>> trend_of(errors, at=7200.0, born=0.0, first=0.0) is None
        True
        >>> errors.add(7200.0, 20)
        >>> trend_of(errors, at=7200.0, born=0.0, first=0.0)
        Trend(recent=26, baseline=6.0, ratio=4.3, minutes=6.0, new=False)
    """
    for window, threshold in WINDOWS:
        start = (at - window) // MINUTE * MINUTE
        recent = series.since(start)
        past = min(BASELINE, start - born)
        if recent < MIN_EVENTS or past < WARM:
            continue
        share = (at - start) / past
        new = first >= start
        before = 0 if new else series.since(start - past) - recent
        usual = max(before, 0.5) * share
        z = 2 * (sqrt(recent + 0.375) - sqrt(before * share + 0.375)) / sqrt(1 + share)
        if recent / usual >= MIN_RATIO and (new or z >= threshold):
            minutes = round((at - start) / MINUTE, 1)
            return Trend(recent, round(usual, 2), round(recent / usual, 1), minutes, new)
    return None
