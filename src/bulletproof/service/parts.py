"""The parts of the running service that operators watch and steer."""

from bulletproof.analysis import AnalyzerChain, LLMAnalyzer
from bulletproof.processor import AIDataProcessor
from bulletproof.resilience import AIServiceCircuitBreaker, Bulkhead


def breakers_of(processor: AIDataProcessor) -> dict[str, AIServiceCircuitBreaker]:
    """Return the breakers behind which the processor works, by name."""
    # A chain without an LLM has a breaker too, but nothing behind it.
    parts = [part for part in (processor.analyzer, processor.store) if getattr(part, "primary", part) is not None]
    breakers = [breaker for part in parts if (breaker := getattr(part, "breaker", None)) is not None]
    return {breaker.service_name: breaker for breaker in breakers}


def llm_of(processor: AIDataProcessor) -> LLMAnalyzer | None:
    """Return what asks the LLM, if anything does."""
    return processor.analyzer.primary if isinstance(processor.analyzer, AnalyzerChain) else None


def queues_of(processor: AIDataProcessor, uploads: Bulkhead) -> dict[str, Bulkhead]:
    """Return where work waits, by name."""
    llm = llm_of(processor)
    return {"uploads": uploads} | ({"llm": llm.places} if llm is not None else {})
