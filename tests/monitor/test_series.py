"""Counts over time."""

from hypothesis import given
from hypothesis import strategies as st

from bulletproof.monitor.series import FINE, HOUR, MINUTE, Series

moments = st.floats(0, 40 * HOUR).map(lambda at: round(at, 1))
events = st.lists(st.tuples(moments, st.integers(1, 5)), max_size=60)


def series_of(added: list[tuple[float, int]]) -> Series:
    series = Series()
    for at, count in added:
        series.add(at, count)
    return series


@given(events, moments, st.booleans())
def test_a_window_misses_nothing_and_adds_less_than_a_minute(
    added: list[tuple[float, int]], start: float, in_order: bool
) -> None:
    series = series_of(sorted(added) if in_order else added)
    inside = sum(count for at, count in added if at >= start)
    with_minute = sum(count for at, count in added if at // MINUTE >= start // MINUTE)
    assert inside <= series.since(start) <= with_minute
    assert series.total == series.kept == sum(count for _, count in added)


@given(events, moments)
def test_dropping_keeps_what_is_younger(added: list[tuple[float, int]], start: float) -> None:
    series = series_of(sorted(added))
    younger = series.since(start)
    assert series.drop(start) == sum(count for _, count in added) - younger
    assert series.kept == younger == series.since(0)


@given(events, moments)
def test_compacting_loses_nothing_and_leaves_one_entry_an_hour(added: list[tuple[float, int]], edge: float) -> None:
    series = series_of(sorted(added))
    young = series.since(edge)
    series.compact(edge)
    series.compact(edge)
    assert series.since(0) == sum(count for _, count in added)
    assert series.since(edge) == young
    assert len(series._last) <= 41 + 60 * max(40 - edge // HOUR, 0)


@given(events, st.lists(moments, min_size=2, max_size=8).map(sorted))
def test_parts_add_up_to_the_whole(added: list[tuple[float, int]], edges: list[float]) -> None:
    series = series_of(added)
    assert sum(series.between(edges)) == series.since(edges[0]) - series.since(edges[-1])


def test_memory_does_not_grow_with_the_number_of_events() -> None:
    series = Series()
    for second in range(0, int(30 * HOUR), 20):
        series.add(float(second), 1000)
        if second % 600 == 0:
            series.drop(second - 24 * HOUR)
            series.compact(second - FINE)
    assert len(series._last) <= 24 * 60 + 11
