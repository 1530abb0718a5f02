"""Work that survives the process that does it."""

from bulletproof.jobs.engine import BatchJobs

__all__ = ["BatchJobs"]
