"""How often chance alone makes an error trend and how soon a real step is found: the monitor's own test, simulated.

Errors come by chance at a steady rate (a Poisson process), for a day, at rates from one in an hour and a half to a
hundred a minute; somebody asks every minute, and again every ten seconds. An alarm stands for 15 minutes. The bar: at
most 0.3 false alarms per key and day at any rate. Then a rate of one a minute rises threefold; the bar: found within 6
minutes (median). No test can do much better: the best one possible for a known step and the same number of false alarms
(Page's CUSUM) takes 5 to 6 minutes on average.

    python -m benchmarks trending
"""

import json
import statistics
import sys

import numpy as np

from benchmarks.harness import RESULTS, machine
from bulletproof.monitor.series import Series
from bulletproof.monitor.trending import SNOOZE, trend_of

RATES = (0.011, 0.1, 0.3, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 100.0)
DAY = 24 * 60
BAR_ALARMS, BAR_MINUTES = 0.3, 6.0


def counts(rng: np.random.Generator, rate: float, minutes: int, asked: int) -> list[int]:
    """Return how many errors come in each step; ``asked`` steps a minute."""
    return [int(count) for count in rng.poisson(rate / asked, minutes * asked)]


def alarms_of(steps: list[int], asked: int) -> list[float]:
    """Return at which minutes alarms are raised when somebody asks at the end of each step."""
    series, found = Series(), []
    length, first, snoozed = 60.0 / asked, None, float("-inf")
    for number, count in enumerate(steps):
        end = (number + 1) * length
        if count:
            # Spread over the step, the last one just before somebody asks.
            series.add(end - 0.001, count)
            first = end - length / 2 if first is None else first
        if first is not None and end - snoozed >= SNOOZE and trend_of(series, at=end, born=0.0, first=first):
            found.append(end / 60)
            snoozed = end
    return found


def false_alarms(rng: np.random.Generator, asked: int, keys: int) -> dict[float, float]:
    """Return false alarms per key and day for each rate."""
    found = {}
    for rate in RATES:
        found[rate] = sum(len(alarms_of(counts(rng, rate, DAY, asked), asked)) for _ in range(keys)) / keys
    return found


def delays(rng: np.random.Generator, asked: int, keys: int, *, before: int = 180, after: int = 60) -> list[float]:
    """Return after how many minutes a threefold step at one a minute is found."""
    found = []
    while len(found) < keys:
        raised = alarms_of(counts(rng, 1, before, asked) + counts(rng, 3, after, asked), asked)
        if any(before - 15 < minute <= before for minute in raised):
            continue  # A false alarm just before stands over the step and would look like a find.
        found.append(next((minute - before for minute in raised if minute > before), float(after)))
    return found


def main() -> int:
    """Simulate, report, and fail when a bar is missed."""
    rng = np.random.default_rng(20250301)
    figures, met = {}, True
    for asked, keys in ((1, 400), (6, 300)):
        alarms = false_alarms(rng, asked, keys)
        waits = delays(rng, asked, 1000 if asked == 1 else 300)
        median = statistics.median(waits)
        within = sum(wait <= BAR_MINUTES for wait in waits) / len(waits)
        late = sorted(waits)[int(0.9 * len(waits))]
        worst = max(alarms.values())
        print(f"\nasked {asked} time{'s' * (asked > 1)} a minute; {keys} keys for a day at each rate")
        print("  errors a minute   " + " ".join(f"{rate:>6g}" for rate in alarms))
        print("  false alarms/day  " + " ".join(f"{alarm:>6.3f}" for alarm in alarms.values()))
        print(f"  worst {worst:.2f}, at most {BAR_ALARMS}")
        print(
            f"  threefold step found after {median:.1f} min (median), {late:.1f} min (9 of 10); {within:.0%} in 6 min"
        )
        met &= worst <= BAR_ALARMS and median <= BAR_MINUTES
        figures[f"asked {asked} a minute"] = {
            "keys": keys,
            "false_alarms_per_key_and_day": alarms,
            "found_after_minutes": {"median": median, "nine_of_ten": late, "share_within_6": within},
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "trending.json").write_text(
        json.dumps({"benchmark": "trending", **machine(), **figures}, indent=1) + "\n"
    )
    print(f"\n{'met' if met else 'MISSED'}")
    return not met


if __name__ == "__main__":
    sys.exit(main())
