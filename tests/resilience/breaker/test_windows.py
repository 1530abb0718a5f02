"""The windows of the circuit breaker beside plain lists."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bulletproof.resilience.windows import CountWindow, FailureTimes, TimeWindow

OUTCOMES = st.tuples(st.booleans(), st.booleans())


@given(size=st.integers(1, 9), steps=st.lists(st.one_of(OUTCOMES, st.integers(0, 25)), max_size=40))
def test_a_count_window_holds_exactly_the_last_calls(size: int, steps: list[Any]) -> None:
    window = CountWindow(size)
    all_calls: list[tuple[bool, bool]] = []
    for step in steps:
        if isinstance(step, int):
            window.absorb(step)
            all_calls += [(False, False)] * step
        else:
            window.add(0.0, *step)
            all_calls.append(step)
        last = all_calls[-size:]
        assert window.total == len(last)
        assert window.failures == sum(failed for failed, _ in last)
        assert window.slow == sum(slow for _, slow in last)


@given(steps=st.lists(st.tuples(st.integers(0, 6), OUTCOMES, st.integers(0, 3)), max_size=60))
def test_a_time_window_is_exact_for_calls_further_apart_than_its_grain(steps: list[Any]) -> None:
    window = TimeWindow(10.0)
    calls: list[tuple[float, bool, bool]] = []
    now = 0.0
    for pause, outcome, successes in steps:
        now += pause
        window.add(now, *outcome)
        window.absorb(successes)
        calls += [(now, *outcome)] + [(now, False, False)] * successes
        inside = [call for call in calls if call[0] > now - 10.0]
        assert window.total == len(inside)
        assert window.failures == sum(failed for _, failed, _ in inside)
        assert window.slow == sum(slow for _, _, slow in inside)


@given(st.lists(st.floats(0.0, 0.3), max_size=400))
def test_a_time_window_stays_small_and_errs_by_its_grain_at_most(pauses: list[float]) -> None:
    window = TimeWindow(10.0)
    times: list[float] = []
    now = 0.0
    for pause in pauses:
        now += pause
        window.add(now, True, False)
        times.append(now)
        assert len(window._entries) <= 257
        surely = sum(time > now - 10.0 + 10.0 / 256 for time in times)
        assert surely <= window.failures <= sum(time > now - 10.0 for time in times)


def test_a_time_window_can_be_absorbed_into_after_it_was_emptied() -> None:
    window = TimeWindow(10.0)
    window.absorb(3)
    assert window.total == 0
    assert window.until == float("-inf")


@given(threshold=st.integers(1, 6), pauses=st.lists(st.integers(0, 5), max_size=40))
def test_failure_times_count_exactly_up_to_the_threshold(threshold: int, pauses: list[int]) -> None:
    times = FailureTimes(threshold, 10.0)
    seen: list[float] = []
    now = 0.0
    for pause in pauses:
        now += pause
        seen.append(now)
        assert times.add(now) == min(threshold, sum(time > now - 10.0 for time in seen))
