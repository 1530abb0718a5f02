"""The HTTP service; ``bulletproof.service:app`` is the ASGI app."""

import gc
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from bulletproof.service.logs import configure_logs
from bulletproof.service.wiring import create_app
from bulletproof.settings import load_settings
from bulletproof.workers import end_with_parent

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI

__all__ = ["app", "create_app"]

_LONG_SECONDS = 0.02


@cache
def _app() -> "FastAPI":
    end_with_parent()  # one of several workers, whose parent looks after the socket
    settings = load_settings()
    configure_logs(settings)
    app = create_app(settings)
    # What is there now stays: the garbage collector need not look at all of it again and again between requests.
    gc.collect()
    gc.freeze()
    gc.callbacks.append(_Keeping())
    return app


class _Keeping:
    """Sets aside what a long full collection left, too: models and modules that came with the first requests.

    A few times only: what is set aside is never looked at again, garbage in cycles included.
    """

    def __init__(self) -> None:
        self._left, self._began = 8, 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] == 2 and self._left:
            if phase == "start":
                self._began = time.perf_counter()
            elif time.perf_counter() - self._began > _LONG_SECONDS:
                self._left -= 1
                gc.freeze()


def __getattr__(name: str) -> Any:
    # Made when a server asks for it, so that importing this package reads no settings.
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
