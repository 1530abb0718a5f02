"""Worker processes that can be killed: a hang or a crash in one of them stays there."""

from bulletproof.workers.pool import OVERFLOW, WorkerPool, limit_memory

__all__ = ["OVERFLOW", "WorkerPool", "limit_memory"]
