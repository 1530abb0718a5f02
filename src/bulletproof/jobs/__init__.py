"""Work that survives the process that does it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulletproof.jobs.engine import BatchJobs
    from bulletproof.jobs.kept import KeptCalls
    from bulletproof.jobs.uploads import Uploads

__all__ = ["BatchJobs", "KeptCalls", "Uploads"]

# Whoever keeps calls need not have what batches need.
_HOMES = {"BatchJobs": "engine", "KeptCalls": "kept", "Uploads": "uploads"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
