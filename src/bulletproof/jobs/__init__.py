"""Work that survives the process that does it."""

from bulletproof.jobs.engine import BatchJobs
from bulletproof.jobs.uploads import Uploads

__all__ = ["BatchJobs", "Uploads"]
