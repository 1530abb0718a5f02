"""Keep going when a service fails: retry, breaker, timeout and their companions."""

from bulletproof.resilience.adaptive_limit import AdaptiveLimit
from bulletproof.resilience.attempts import RetryEvent
from bulletproof.resilience.backoff import Backoff
from bulletproof.resilience.breaker import AIServiceCircuitBreaker
from bulletproof.resilience.breaker_events import CircuitEvent
from bulletproof.resilience.budget import RetryBudget
from bulletproof.resilience.bulkhead import Bulkhead
from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.deadlines import check_deadline, deadline, remaining
from bulletproof.resilience.fallback import Fallback, FallbackEvent
from bulletproof.resilience.gate import Gate
from bulletproof.resilience.hedge import Hedge
from bulletproof.resilience.pausing import no_waits
from bulletproof.resilience.policy import Policy
from bulletproof.resilience.rate_limit import RateLimit
from bulletproof.resilience.registry import BreakerRegistry
from bulletproof.resilience.retry import RetryPolicy, ai_api_retry
from bulletproof.resilience.shared import Notice, SharedState, StateStore
from bulletproof.resilience.state_machine import CircuitState
from bulletproof.resilience.timelimit import timeout

__all__ = [
    "AIServiceCircuitBreaker",
    "AdaptiveLimit",
    "Backoff",
    "BreakerRegistry",
    "Bulkhead",
    "CircuitConfig",
    "CircuitEvent",
    "CircuitState",
    "Fallback",
    "FallbackEvent",
    "Gate",
    "Hedge",
    "Notice",
    "Policy",
    "RateLimit",
    "RetryBudget",
    "RetryEvent",
    "RetryPolicy",
    "SharedState",
    "StateStore",
    "ai_api_retry",
    "check_deadline",
    "deadline",
    "no_waits",
    "remaining",
    "timeout",
]
