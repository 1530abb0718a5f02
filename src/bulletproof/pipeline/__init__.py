"""The URL pipeline: a batch of addresses on their way to stored results."""

from bulletproof.pipeline.extraction import Extract, Extractor
from bulletproof.pipeline.items import DONE, STAGES, ProcessingItem, ProcessingStatus
from bulletproof.pipeline.pipeline import AIProcessingPipeline
from bulletproof.pipeline.report import StatusReport

__all__ = [
    "DONE",
    "STAGES",
    "AIProcessingPipeline",
    "Extract",
    "Extractor",
    "ProcessingItem",
    "ProcessingStatus",
    "StatusReport",
]
