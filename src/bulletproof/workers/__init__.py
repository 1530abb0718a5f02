"""Worker processes that can be killed: a hang or a crash in one of them stays there."""

from bulletproof.workers.pool import OVERFLOW, WorkerPool, limit_memory
from bulletproof.workers.starting import end_with_parent

__all__ = ["OVERFLOW", "WorkerPool", "end_with_parent", "limit_memory"]
