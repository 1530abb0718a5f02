"""The processor: one uploaded file from its first byte to stored results and an answer."""

from bulletproof.processor.answer import error_answer
from bulletproof.processor.defaults import default_analyzer, default_limits, default_store, door_workers
from bulletproof.processor.labels import split_labels
from bulletproof.processor.processor import AIDataProcessor, ProcessOptions, log_context
from bulletproof.processor.run import AnalysisRun, row_as_dict
from bulletproof.processor.stages import STAGES, FileReport, StageTime

__all__ = [
    "STAGES",
    "AIDataProcessor",
    "AnalysisRun",
    "FileReport",
    "ProcessOptions",
    "StageTime",
    "default_analyzer",
    "default_limits",
    "default_store",
    "door_workers",
    "error_answer",
    "log_context",
    "row_as_dict",
    "split_labels",
]
