"""What has just become worse: a test of the last minutes against what was usual."""

from math import sqrt
from typing import NamedTuple

from bulletproof.monitor.series import MINUTE, Series

RECENT = 5 * MINUTE
BASELINE = 180 * MINUTE
MIN_RATIO = 2.0
MIN_EVENTS = 5
THRESHOLD = 3.3
SNOOZE = 15 * MINUTE
NEW = 10 * MINUTE
WARM = 30 * MINUTE
"""A fingerprint is news only to a monitor that has watched for so long without it."""


class Trend(NamedTuple):
    """More than usual.

    Args:
        recent: Errors in the last minutes.
        baseline: Errors to be expected in that time.
        ratio: The first over the second.
        new: Whether the fingerprint was never seen before.
    """

    recent: int
    baseline: float
    ratio: float
    new: bool


def trend_of(series: Series, *, at: float, born: float, first: float) -> Trend | None:
    """Say whether there are more errors than usual.

    Args:
        series: The errors.
        at: The present, on the monotonic clock.
        born: When watching began.
        first: When the first of these errors was seen.

    Returns:
        How much more, or None when it may well be chance.
    """
    start = (at - RECENT) // MINUTE * MINUTE
    recent = series.since(start)
    if recent < MIN_EVENTS:
        return None
    length = at - start
    past = max(min(BASELINE, start - born), 0.0)
    before = series.since(start - past) - recent
    if first >= at - NEW:
        if first - born < WARM:
            return None
        usual = 0.5 * length / max(past, length)
        return Trend(recent, round(usual, 3), round(recent / usual, 1), True)
    if past < length:
        return None
    share = length / past
    usual = max(before, 0.5) * share
    ratio = recent / usual
    if ratio < MIN_RATIO:
        return None
    # Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika 35, 1948:
    # 2 sqrt(x + 3/8) has a variance of one; that of the baseline comes on top.
    z = 2 * (sqrt(recent + 0.375) - sqrt(before * share + 0.375)) / sqrt(1 + share)
    if z < THRESHOLD:
        return None
    return Trend(recent, round(usual, 3), round(ratio, 1), False)
