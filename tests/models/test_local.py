"""A trusted model runs in a thread; in the event loop only when it cannot but be quick."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bulletproof.errors import PredictionError, PredictionTimeoutError, ResourceError
from bulletproof.models.local import LocalRunner
from bulletproof.models.predictor import Outputs

ROW = np.zeros((1, 2))


class Model:
    """Notes the thread that it runs in."""

    def __init__(self, deed: Callable[[], Any] = lambda: None) -> None:
        self.deed = deed
        self.threads: list[int] = []

    def predict(self, rows: Any, /) -> Outputs:
        self.threads.append(threading.get_ident())
        self.deed()
        return Outputs(np.zeros(len(rows)))

    def where(self) -> list[str]:
        return ["loop" if one == threading.get_ident() else "thread" for one in self.threads]


class Clock:
    """Each reading is later by the time that the model takes."""

    def __init__(self, took: float) -> None:
        self.took, self.now = took, 0.0

    def __call__(self) -> float:
        self.now += self.took / 2
        return self.now


def runner(model: Model, took: float = 0.0001, steady: bool = True) -> tuple[LocalRunner, Clock]:
    clock = Clock(took)
    return LocalRunner(model, name="it", memory_bytes=0, steady=steady, clock=clock), clock


async def test_the_first_run_is_measured_in_a_thread_and_quick_ones_follow_in_the_loop() -> None:
    model = Model()
    quick, _ = runner(model)
    for _ in range(3):
        await quick.run(ROW, timeout=5)
    assert model.where() == ["thread", "loop", "loop"]


async def test_a_model_that_one_row_may_hang_stays_in_threads_however_quick_it_was() -> None:
    go = threading.Event()
    model = Model()
    it, _ = runner(model, steady=False)
    for _ in range(3):
        await it.run(ROW, timeout=5)
    model.deed = lambda: go.wait(20)
    began = time.monotonic()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heart = asyncio.create_task(beat())
    with pytest.raises(PredictionTimeoutError):
        await it.run(ROW, timeout=0.2)
    heart.cancel()
    go.set()
    assert model.where() == ["thread"] * 4
    assert time.monotonic() - began < 5
    assert beats > 3


async def test_each_size_is_measured_for_itself() -> None:
    model = Model()
    quick, _ = runner(model)
    for rows in (1, 1, 1000, 1000, 1):
        await quick.run(np.zeros((rows, 2)), timeout=5)
    assert model.where() == ["thread", "loop", "thread", "loop", "loop"]


async def test_a_slow_model_stays_in_threads_and_one_that_becomes_slow_goes_there() -> None:
    model = Model()
    slow, clock = runner(model, took=0.01)
    for _ in range(2):
        await slow.run(ROW, timeout=5)
    assert model.where() == ["thread", "thread"]
    clock.took = 0.0001
    for _ in range(2):
        await slow.run(ROW, timeout=5)
    clock.took = 0.1
    for _ in range(2):
        await slow.run(ROW, timeout=5)
    assert model.where()[2:] == ["thread", "loop", "loop", "thread"]


async def test_a_run_past_its_time_is_answered_at_once_and_its_thread_is_told_of() -> None:
    go = threading.Event()
    endless, _ = runner(Model(lambda: go.wait(20)))
    runaways: list[asyncio.Future[Outputs]] = []
    with pytest.raises(PredictionTimeoutError, match=r"it did not answer within 0.05 s"):
        await endless.run(ROW, timeout=0.05, on_runaway=runaways.append)
    [runaway] = runaways
    assert not runaway.done()
    go.set()
    await asyncio.wait_for(runaway, 5)


async def test_a_caller_that_gives_up_leaves_a_runaway_thread() -> None:
    go = threading.Event()
    endless, _ = runner(Model(lambda: go.wait(20)))
    runaways: list[asyncio.Future[Outputs]] = []
    task = asyncio.create_task(endless.run(ROW, timeout=20, on_runaway=runaways.append))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await asyncio.wait_for(runaways[0], 5)


def raising(error: BaseException) -> Callable[[], None]:
    def deed() -> None:
        raise error

    return deed


@pytest.mark.parametrize("before", [0, 1], ids=["thread", "loop"])
@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (KeyError("column"), PredictionError, "prediction_failed"),
        (StopIteration(), PredictionError, "prediction_failed"),
        (SystemExit(1), PredictionError, "prediction_failed"),
        (GeneratorExit(), PredictionError, "prediction_failed"),
        (asyncio.CancelledError(), PredictionError, "prediction_failed"),
        (BaseException("odd"), PredictionError, "prediction_failed"),
        (MemoryError(), ResourceError, "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), ResourceError, "gpu_out_of_memory"),
    ],
)
async def test_whatever_the_model_raises_is_typed(before: int, error: BaseException, kind: Any, code: str) -> None:
    model = Model()
    it, _ = runner(model)
    for _ in range(before):
        await it.run(ROW, timeout=5)
    model.deed = raising(error)
    with pytest.raises(kind) as caught:
        await it.run(ROW, timeout=5)
    assert (caught.value.code, caught.value.__cause__) == (code, error)
    assert str(caught.value) == f"it raised {type(error).__name__}"  # what it said may be meant for its owner alone


async def test_a_keyboard_interrupt_that_a_model_raises_is_its_own_and_one_of_the_user_goes_through() -> None:
    model = Model(raising(KeyboardInterrupt()))
    it, _ = runner(model)
    with pytest.raises(PredictionError, match="it raised KeyboardInterrupt"):
        await it.run(ROW, timeout=5)
    model.deed = lambda: None
    await it.run(ROW, timeout=5)
    model.deed = raising(KeyboardInterrupt())  # in the thread of the event loop it comes from the keyboard
    with pytest.raises(KeyboardInterrupt):
        await it.run(ROW, timeout=5)


class Numbers:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError


async def test_what_is_raised_while_its_answer_is_read_is_the_models_too() -> None:
    class Lazy:
        def predict(self, rows: Any, /) -> Outputs:
            return Outputs(Numbers())  # type: ignore[arg-type]

    with pytest.raises(PredictionError, match="it raised CancelledError"):
        await LocalRunner(Lazy(), name="it", memory_bytes=0).run(ROW, timeout=5)
