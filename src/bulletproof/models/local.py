"""A trusted model in this process: in a thread, or in the event loop when it cannot but be quick."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import (
    AIError,
    InvalidModelOutputError,
    PredictionError,
    PredictionTimeoutError,
    ResourceError,
    classify,
)
from bulletproof.models.predictor import Outputs, Predictor
from bulletproof.models.runner import OnRunaway

T = TypeVar("T")
Rows = NDArray[np.float64]

_MOST_SAID = 500
_QUICK = 0.001  # seconds for which nobody else in the event loop minds waiting


class LocalRunner:
    """Runs a model here.

    Each run is made in a thread, so that whatever a model does, the event loop goes on. Python cannot stop a thread:
    one whose time is over goes on, and ``run`` says so. Runs of a model whose time depends on nothing but the number of
    rows are made in a thread until one of them took less than a millisecond; from then on those of as many rows are
    made in the event loop, which saves more than they cost.

    Args:
        predictor: The model.
        name: What to call it in errors.
        memory_bytes: What it holds in memory.
        steady: Whether no row can make it take longer than another.
        clock: Gives seconds.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        name: str,
        memory_bytes: int,
        steady: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.memory_bytes = memory_bytes
        self._steady = steady
        self._predictor = predictor
        self._name = name
        self._clock = clock
        self._seconds: dict[int, float] = {}  # of a run, by the number of rows rounded to a power of two

    async def run(self, rows: Rows, *, timeout: float, on_runaway: OnRunaway | None = None) -> Outputs:
        """Predict rows; see ``Runner.run``."""
        size = len(rows).bit_length()
        usual = self._seconds.get(size, math.inf)
        began = self._clock()
        if self._steady and usual < _QUICK:
            try:
                return predict(self._predictor, rows, self._name)
            except PredictionError as error:
                if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C comes to this thread, whatever runs in it
                    raise error.__cause__ from None
                raise
            finally:
                self._seconds[size] = 0.8 * usual + 0.2 * (self._clock() - began)
        running = start_thread(partial(self._timed, rows, size))
        done, _ = await _wait(running, timeout, on_runaway)
        if not done:
            raise PredictionTimeoutError(f"{self._name} did not answer within {timeout:.3g} s")
        return running.result()

    def _timed(self, rows: Rows, size: int) -> Outputs:
        began = self._clock()
        try:
            return predict(self._predictor, rows, self._name)
        finally:
            # The least time counts: others are longer because the thread had to wait for its turn.
            self._seconds[size] = min(self._seconds.get(size, math.inf), self._clock() - began)

    async def aclose(self) -> None:
        """Let go of the model."""
        self._seconds.clear()


async def _wait(
    running: asyncio.Future[Outputs], timeout: float, on_runaway: OnRunaway | None
) -> tuple[set[asyncio.Future[Outputs]], set[asyncio.Future[Outputs]]]:
    try:
        return await asyncio.wait({running}, timeout=timeout)
    finally:
        if not running.done():
            running.add_done_callback(_forget)
            if on_runaway is not None:
                on_runaway(running)


def _forget(running: asyncio.Future[Outputs]) -> None:
    if not running.cancelled():
        running.exception()  # looked at, or asyncio would complain: its caller has been answered long ago


def start_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread of its own, which does not keep the process from ending.

    Returns:
        Done when the function is. To cancel it does not stop the thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # of type T when there is no error

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 -- raised again where it is awaited
            failure = error if not isinstance(error, StopIteration) else RuntimeError("StopIteration")
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="bulletproof-model", daemon=True).start()
    return future


def predict(predictor: Predictor, rows: Rows, name: str) -> Outputs:
    """Ask a model, and raise whatever goes wrong as an error of ours.

    Raises:
        ResourceError: It ran out of memory.
        PredictionError: It raised something else, or tried to end the process. What it said is a note on the error,
            for the log: it may hold what callers should not see.
        InvalidModelOutputError: What it answered are no numbers.
    """
    outputs = None
    try:
        outputs = predictor.predict(rows)
        return Outputs(_floats(outputs.values), *map(_floats_or_none, (outputs.probabilities, outputs.confidences)))
    except AIError:
        raise
    except BaseException as error:  # what ends a process or a task is the model's own here, and ends neither
        if outputs is not None and isinstance(error, TypeError | ValueError | OverflowError | AttributeError):
            raise InvalidModelOutputError(f"{name} answered something that is not numbers") from error
        message, found = f"{name} raised {type(error).__name__}", classify(error)
        memory = found.code in ("out_of_memory", "gpu_out_of_memory")
        failure = ResourceError(message, code=found.code) if memory else PredictionError(message)
        failure.add_note(found.details[:_MOST_SAID])  # comes through from a worker too, unlike the cause
        raise failure from error


def _floats(given: object) -> Rows:
    return np.asarray(given, dtype=np.float64)


def _floats_or_none(given: object) -> Rows | None:
    return None if given is None else _floats(given)
