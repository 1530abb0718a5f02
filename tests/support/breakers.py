"""States of a circuit breaker, and how it gets into them."""

from bulletproof.resilience import AIServiceCircuitBreaker, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
BOOM = ConnectionError("boom")


def trip(breaker: AIServiceCircuitBreaker, error: Exception = BOOM) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker._record_failure(error)
    assert breaker.state is OPEN
