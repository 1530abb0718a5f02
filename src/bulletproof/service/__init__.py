"""The HTTP service; ``bulletproof.service:app`` is the ASGI app."""

import gc
from functools import cache
from typing import TYPE_CHECKING, Any

from bulletproof.service.logs import configure_logs
from bulletproof.service.wiring import create_app
from bulletproof.settings import load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    app: FastAPI

__all__ = ["app", "create_app"]


@cache
def _app() -> "FastAPI":
    settings = load_settings()
    configure_logs(settings)
    app = create_app(settings)
    # What is there now stays: the garbage collector need not look at all of it again and again between requests.
    gc.collect()
    gc.freeze()
    return app


def __getattr__(name: str) -> Any:
    # Made when a server asks for it, so that importing this package reads no settings.
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
