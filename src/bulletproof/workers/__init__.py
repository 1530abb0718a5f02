"""Worker processes that can be killed: a hang or a crash in one of them stays there."""

from bulletproof.workers.pool import WorkerPool, limit_memory

__all__ = ["WorkerPool", "limit_memory"]
