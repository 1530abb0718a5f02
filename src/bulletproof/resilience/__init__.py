"""Keep going when a service fails: retry, breaker, timeout and their companions."""

from bulletproof.resilience.attempts import RetryEvent
from bulletproof.resilience.backoff import Backoff
from bulletproof.resilience.budget import RetryBudget
from bulletproof.resilience.bulkhead import Bulkhead
from bulletproof.resilience.deadlines import check_deadline, deadline, remaining
from bulletproof.resilience.pausing import no_waits
from bulletproof.resilience.retry import RetryPolicy, ai_api_retry
from bulletproof.resilience.timelimit import timeout

__all__ = [
    "Backoff",
    "Bulkhead",
    "RetryBudget",
    "RetryEvent",
    "RetryPolicy",
    "ai_api_retry",
    "check_deadline",
    "deadline",
    "no_waits",
    "remaining",
    "timeout",
]
