"""Requests that come together are run together, and a bad one fails alone."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.errors import AIError, ModelLoadError, PredictionError, PredictionTimeoutError
from bulletproof.models.batching import Joiner
from bulletproof.models.predictor import Outputs
from bulletproof.resilience import deadline, remaining

BAD, HANGS = -1.0, -2.0


class Model:
    """Answers each row with its first number; fails for a whole call when a bad row is in it."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.cancelled = 0
        self.error: AIError = PredictionError("a bad row")

    async def execute(self, rows: Any, on_runaway: Any) -> Outputs:
        firsts = rows[:, 0].tolist()
        self.calls.append(firsts)
        if BAD in firsts:
            raise self.error
        if HANGS in firsts:
            try:
                async with asyncio.timeout(remaining()):
                    await asyncio.sleep(60)
            except TimeoutError as expiry:
                raise PredictionTimeoutError("hangs") from expiry
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Outputs(rows[:, 0], np.stack([rows[:, 0], 1 - rows[:, 0]], axis=1))


@pytest.fixture
def model() -> Model:
    return Model()


def joiner(model: Model, **more: Any) -> Joiner:
    return Joiner(model.execute, **{"name": "it", "most_rows": 8, "wait": 0.005, **more})


def never(_: Any) -> None:
    raise AssertionError("nothing went on")


async def ask(it: Joiner, *firsts: float, seconds: float = 10, on_runaway: Any = lambda _: None) -> list[float]:
    with deadline(seconds):
        outputs = await it.ask(np.array([[first, 0.0] for first in firsts]), on_runaway)
    assert outputs.probabilities is not None
    assert outputs.probabilities[:, 0].tolist() == outputs.values.tolist()
    return outputs.values.tolist()


async def test_what_comes_together_is_one_call_and_each_gets_its_own(model: Model) -> None:
    it = joiner(model)
    answers = await asyncio.gather(
        ask(it, 1, on_runaway=never), ask(it, 2, 3, on_runaway=never), ask(it, 4, on_runaway=never)
    )
    assert (answers, model.calls) == ([[1], [2, 3], [4]], [[1, 2, 3, 4]])


async def test_a_full_batch_starts_at_once_and_the_rest_is_the_next(model: Model) -> None:
    it = joiner(model, most_rows=2, wait=60)
    assert await asyncio.gather(*(ask(it, number) for number in range(4))) == [[0], [1], [2], [3]]
    assert model.calls == [[0, 1], [2, 3]]
    assert await ask(it, 1, 2, 3) == [1, 2, 3]


async def test_a_bad_request_fails_alone(model: Model) -> None:
    it = joiner(model)
    good, bad, other = await asyncio.gather(ask(it, 1), ask(it, BAD), ask(it, 2), return_exceptions=True)
    assert (good, other, type(bad)) == ([1], [2], PredictionError)
    assert model.calls == [[1, BAD, 2], [1], [BAD], [2]]


async def test_a_request_that_hangs_times_out_alone(model: Model) -> None:
    it = joiner(model)
    good, bad = await asyncio.gather(ask(it, 1, seconds=0.4), ask(it, HANGS, seconds=0.4), return_exceptions=True)
    assert (good, type(bad)) == ([1], PredictionTimeoutError)


async def test_a_model_that_cannot_be_loaded_is_not_tried_for_each(model: Model) -> None:
    model.error = ModelLoadError("gone")
    it = joiner(model)
    outcomes = await asyncio.gather(ask(it, BAD), ask(it, 1), return_exceptions=True)
    assert [type(one) for one in outcomes] == [ModelLoadError] * 2
    assert len(model.calls) == 1


async def test_a_caller_that_goes_away_is_left_out_and_the_others_are_answered(model: Model) -> None:
    it = joiner(model, wait=0.05)
    leaves, stays = asyncio.create_task(ask(it, 1)), asyncio.create_task(ask(it, 2))
    await asyncio.sleep(0.01)
    leaves.cancel()
    assert await stays == [2]
    assert model.calls == [[2]]


async def test_a_batch_that_nobody_waits_for_is_cancelled(model: Model) -> None:
    it = joiner(model, wait=0)
    task = asyncio.create_task(ask(it, HANGS))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert model.cancelled == 1


async def test_a_batch_that_is_given_up_before_it_begins_has_ended(model: Model) -> None:
    it = joiner(model, most_rows=1)
    held: list[asyncio.Future[Outputs]] = []
    task = asyncio.create_task(ask(it, 1, on_runaway=held.append))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0.01)
    assert model.calls == []
    assert all(future.done() for future in held)


async def test_a_run_that_goes_on_keeps_the_batch_from_ending() -> None:
    runaway: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()

    async def execute(rows: Any, on_runaway: Any) -> Outputs:
        on_runaway(runaway)
        raise PredictionTimeoutError("too late")

    held: list[asyncio.Future[Outputs]] = []
    with pytest.raises(PredictionTimeoutError):
        await ask(Joiner(execute, name="it", most_rows=1, wait=0), 1, on_runaway=held.append)
    await asyncio.sleep(0.01)
    assert not held[0].done()
    runaway.cancel()
    await asyncio.sleep(0.01)
    assert held[0].done()


async def test_who_leaves_a_batch_that_goes_on_keeps_its_place_until_it_ends(model: Model) -> None:
    it = joiner(model, wait=0)
    held: list[asyncio.Future[Outputs]] = []
    impatient = asyncio.create_task(ask(it, 1, on_runaway=held.append))
    patient = asyncio.create_task(ask(it, HANGS, seconds=0.2))
    await asyncio.sleep(0.02)
    impatient.cancel()
    await asyncio.gather(impatient, patient, return_exceptions=True)
    assert len(held) == 1
    await asyncio.wait(held, timeout=2)
    assert held[0].done()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 50) | st.just(BAD), min_size=1, max_size=5), min_size=1, max_size=12))
def test_every_request_gets_its_own_rows_or_its_own_error(requests: list[list[float]]) -> None:
    async def run() -> list[Any]:
        it = joiner(Model())
        return await asyncio.gather(*(ask(it, *firsts) for firsts in requests), return_exceptions=True)

    for firsts, outcome in zip(requests, asyncio.run(run()), strict=True):
        if BAD in firsts:
            assert isinstance(outcome, PredictionError)
        else:
            assert outcome == firsts
