"""One memory for all worker processes and replicas, over the database of the results."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bulletproof.analysis import AnalyzerChain
from bulletproof.errors import classify
from bulletproof.monitor import MonitorSharing
from bulletproof.processor import AIDataProcessor
from bulletproof.resilience import AIServiceCircuitBreaker, RetryPolicy
from bulletproof.resilience.shared import SharedState
from bulletproof.service.parts import breakers_of
from bulletproof.store import SqlErrorSink, SqlStateStore
from bulletproof.store.access import CIRCUIT, StoreAccess

logger = logging.getLogger("bulletproof.service")

_FIRST_SECONDS = 2.0
_LAST_SECONDS = 3.0


@asynccontextmanager
async def shared_memory(processor: AIDataProcessor) -> AsyncIterator[SharedState | None]:
    """Exchange error counts and the states of breakers with other processes, in tasks that no request waits for.

    What was known before a restart is there when the service takes its first request, unless the database is slow.

    Yields:
        What can tell whether the others are reached; None when they never are.
    """
    results: StoreAccess | None = getattr(processor.store, "access", None)
    if results is None:
        # A store of somebody else's: each process keeps to itself.
        yield None
        return
    # A way of its own to the database: an operator may close the one for results, and its breaker should tell of
    # results alone. Both exchanges are repeated for ever, so nothing in them has to be tried again at once.
    breaker = AIServiceCircuitBreaker("sharing", CIRCUIT)
    access = StoreAccess(results.address, retry=RetryPolicy(max_attempts=1), breaker=breaker)
    errors = MonitorSharing(processor.monitor, SqlErrorSink(access))
    circuits = _circuits(processor, access)
    await _exchange(errors, _FIRST_SECONDS, logging.DEBUG, "error counts are not known yet")
    task = asyncio.create_task(errors.run(), name="bulletproof-error-sharing")
    circuits.start()
    try:
        yield circuits
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await circuits.aclose()
        await _exchange(errors, _LAST_SECONDS, logging.WARNING, "the last error counts were not shared")
        await access.aclose()


def _circuits(processor: AIDataProcessor, access: StoreAccess) -> SharedState:
    shared = SharedState(SqlStateStore(access))
    for breaker in breakers_of(processor).values():
        shared.add(breaker)
    gate = processor.analyzer.policy.gate if isinstance(processor.analyzer, AnalyzerChain) else None
    if gate is not None:
        gate.on_hold = shared.hold
        shared.add_gate(gate)
    return shared


async def _exchange(sharing: MonitorSharing, seconds: float, level: int, failure: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await sharing.exchange()
    except Exception as error:  # noqa: BLE001 -- monitoring must keep no service from starting or stopping
        diagnosis = classify(error)
        logger.log(level, "%s: %s", failure, diagnosis.code, extra={"code": diagnosis.code})
