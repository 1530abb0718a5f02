"""A model in processes of its own, which are killed when it hangs and replaced when it crashes."""

import asyncio
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import AIError, ModelError, ModelLoadError, PredictionTimeoutError, ResourceError
from bulletproof.models.loading import open_predictor
from bulletproof.models.local import predict
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs, Predictor
from bulletproof.models.runner import OnRunaway
from bulletproof.workers import OVERFLOW, WorkerPool, limit_memory

Rows = NDArray[np.float64]

_MOST_WORKERS = 8  # at the same time: each holds the model, and a container often sees more cores than it may use
_LOAD_SECONDS = 900.0  # whoever waits for it gives up long before
_GRACE_SECONDS = 2.0  # in which the pool kills a worker whose time is over
_PRELOADED = (__name__, "joblib", "sklearn.utils.validation", "onnxruntime")  # whatever of it is installed


def places_of(manifest: Manifest) -> int:
    """Return how many runs of an isolated model can be under way at the same time: more than cores gain nothing."""
    return min(manifest.limits.max_concurrent, os.cpu_count() or 1, _MOST_WORKERS)


class IsolatedRunner:
    """Runs a model in worker processes, one of which is spare: a call after a crash need not wait for a new one.

    Each loads the model once, and may then take ``limits.memory_bytes`` more. A run whose time is over, or whose caller
    goes away, ends with its worker.

    Args:
        folder: Where the model's file is.
        manifest: What is known of it.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.memory_bytes = 0
        self._most = manifest.limits.memory_bytes
        self._name = manifest.title
        self._places = asyncio.Semaphore(places_of(manifest))
        self._workers = places_of(manifest) + 1
        self._pool = WorkerPool(
            self._workers,
            name=self._name,
            initializer=partial(_load, folder, manifest),
            preload=_PRELOADED,
        )

    async def open(self) -> None:
        """Load the model in a worker.

        Raises:
            ModelLoadError: It cannot be loaded, or kills the process that tries to.
        """
        try:
            self.memory_bytes = await self._pool.run(_held) * self._workers
        except BaseException as error:
            await self.aclose()
            if isinstance(error, ResourceError) and error.code == "internal_error":
                raise ModelLoadError(f"loading {self._name} crashes the process that does it") from error
            raise

    async def run(self, rows: Rows, *, timeout: float, on_runaway: OnRunaway | None = None) -> Outputs:  # noqa: ARG002 -- nothing runs away from here
        """Predict rows; see ``Runner.run``."""
        expires = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout), self._places:
                return await self._pool.run(_predict, rows, expires)
        except ResourceError as error:
            if getattr(error.__cause__, "exitcode", None) == -signal.SIGKILL:  # by the system, or by somebody
                raise ResourceError(
                    f"the process of {self._name} was killed, probably for want of memory", code=error.code
                ) from error
            if error.code == "out_of_memory":
                allowed = "" if self._most is None else f" than the {self._most / 2**20:,.0f} MiB allowed"
                raise ResourceError(f"{self._name} needed more memory{allowed}", code=error.code) from error
            if error.code != "internal_error":
                raise
            raise ModelError(f"the process of {self._name} crashed: {error.message}", code="model_crashed") from error
        except TimeoutError as expiry:
            if isinstance(expiry, AIError):
                raise
            raise PredictionTimeoutError(f"{self._name} did not answer within {timeout:.3g} s") from expiry

    async def aclose(self) -> None:
        """End the workers."""
        await self._pool.aclose()


# In the worker

_loaded: tuple[Predictor, str] | AIError | None = None


def _load(folder: Path, manifest: Manifest) -> None:
    global _loaded
    _last_for(_LOAD_SECONDS)
    try:
        _loaded = open_predictor(folder, manifest), manifest.title
        if manifest.limits.memory_bytes is not None:
            limit_memory(manifest.limits.memory_bytes)  # of all it does from now on: what a model hoards counts too
    except AIError as error:
        _loaded = error  # raised by the first task: from here it would only end the worker
    except BaseException as error:  # noqa: BLE001
        _loaded = ModelLoadError(f"{manifest.title} cannot be loaded: {type(error).__name__}: {error}")
    finally:
        _last_for(0)


def _last_for(seconds: float) -> None:
    """End this process after so many seconds, even if it is stuck and nobody is left to kill it; 0 lets it live on."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _model() -> tuple[Predictor, str]:
    if isinstance(_loaded, tuple):
        return _loaded
    raise _loaded if _loaded is not None else ModelLoadError("this worker has loaded no model")


def _held() -> int:
    """Return the bytes of memory that this worker holds; 0 where the system does not tell."""
    _model()
    if sys.platform != "linux":
        return 0
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _predict(rows: Rows, expires: float) -> Outputs:
    predictor, name = _model()
    left = expires - time.monotonic()
    if left <= 0:  # it waited for this worker to start; its caller has been answered
        raise PredictionTimeoutError(f"no process of {name} was free in time")
    _last_for(left + _GRACE_SECONDS)
    try:
        return predict(predictor, rows, name)
    except ResourceError as error:
        if error.code == "out_of_memory":  # what it holds by now would be missing to those who come next
            os._exit(OVERFLOW)
        raise
    finally:
        _last_for(0)
