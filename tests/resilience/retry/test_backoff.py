"""The arithmetic of waiting, for all numbers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.resilience import Backoff

bases = st.floats(0.001, 1000)
caps = st.floats(0.001, 1000)
factors = st.floats(1, 10)
steps = st.integers(0, 2000)
draws = st.floats(0, 1, exclude_max=True)
jitters = st.sampled_from(["full", "equal", "additive", "none"])
strategies = st.sampled_from(["exponential", "constant", "decorrelated"])


@given(bases, caps, factors, strategies, jitters, steps, draws, st.floats(0, 1000))
def test_a_wait_is_never_negative_and_never_above_the_cap(base, cap, factor, strategy, jitter, step, draw, previous):
    wait = Backoff(base, cap, factor, strategy, jitter).wait(step, previous, lambda: draw)
    assert 0 <= wait <= cap


@given(caps, strategies, jitters, steps, draws)
def test_a_base_of_zero_never_waits(cap, strategy, jitter, step, draw):
    assert Backoff(0, cap, 2, strategy, jitter).wait(step, 0.0, lambda: draw) == 0


@given(bases, caps, factors, st.integers(0, 50), draws)
def test_each_jitter_keeps_to_its_range(base, cap, factor, step, draw):
    nominal = Backoff(base, cap, factor, jitter="none").wait(step, 0.0, lambda: draw)
    full = Backoff(base, cap, factor, jitter="full").wait(step, 0.0, lambda: draw)
    equal = Backoff(base, cap, factor, jitter="equal").wait(step, 0.0, lambda: draw)
    assert full == nominal * draw
    assert nominal / 2 <= equal <= nominal


@given(bases, st.integers(0, 18), draws)
def test_additive_jitter_without_a_cap_is_the_step_plus_up_to_a_second(base, step, draw):
    assert Backoff(base, None, 2, jitter="additive").wait(step, 0.0, lambda: draw) == pytest.approx(
        base * 2**step + draw, abs=1e-6
    )


@given(bases, caps, st.lists(draws, min_size=1, max_size=30))
def test_decorrelated_waits_stay_between_the_base_and_three_times_the_last(base, cap, numbers):
    backoff = Backoff(base, cap, strategy="decorrelated")
    previous = 0.0
    for number in numbers:
        wait = backoff.wait(0, previous, lambda number=number: number)
        assert min(base, cap) <= wait <= max(min(base, cap), min(cap, 3 * (previous or base)))
        previous = wait


@pytest.mark.parametrize("jitter", ["full", "equal", "additive"])
def test_waits_at_the_cap_are_spread(jitter):
    backoff = Backoff(0.5, 8, jitter=jitter)
    waits = {backoff.wait(40, 0.0, random.Random(seed).random) for seed in range(1000)}
    assert len(waits) >= 990


def test_a_step_beyond_what_floats_hold_waits_the_cap():
    assert Backoff(1, 8, jitter="none").wait(5000, 0.0, lambda: 0.0) == 8
    assert Backoff(1, None, jitter="none").wait(5000, 0.0, lambda: 0.0) == 1e9
