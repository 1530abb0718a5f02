"""The parts of the running service that operators watch and steer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from bulletproof.analysis import AnalyzerChain, LLMAnalyzer
from bulletproof.processor import AIDataProcessor
from bulletproof.resilience import AIServiceCircuitBreaker

if TYPE_CHECKING:
    from bulletproof.service.wiring import Services


class Queue(Protocol):
    """A place where work waits its turn."""

    @property
    def in_use(self) -> int:
        """What is under way."""

    @property
    def queued(self) -> int:
        """What waits."""


def breakers_of(processor: AIDataProcessor) -> dict[str, AIServiceCircuitBreaker]:
    """Return the breakers behind which the processor works, by name."""
    # A chain without an LLM has a breaker too, but nothing behind it.
    parts = [part for part in (processor.analyzer, processor.store) if getattr(part, "primary", part) is not None]
    breakers = [breaker for part in parts if (breaker := getattr(part, "breaker", None)) is not None]
    return {breaker.service_name: breaker for breaker in breakers}


def llm_of(processor: AIDataProcessor) -> LLMAnalyzer | None:
    """Return what asks the LLM, if anything does."""
    return processor.analyzer.primary if isinstance(processor.analyzer, AnalyzerChain) else None


def all_breakers(services: "Services") -> dict[str, AIServiceCircuitBreaker]:
    """Return every breaker, those of the models included, by name."""
    models = {breaker.service_name: breaker for breaker in services.models.loaded.breakers}
    return breakers_of(services.processor) | models


def queues_of(services: "Services") -> Mapping[str, Queue]:
    """Return where work waits, by name."""
    llm = llm_of(services.processor)
    doors = {door.name: door.turns for door in services.doors.all if door.turns is not None and door.used}
    queues: dict[str, Queue] = {**doors, **services.models.queues()}
    if llm is not None:
        queues["llm"] = llm.places
    return queues
