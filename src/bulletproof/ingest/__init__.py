"""Parse files: uploads as streams of records, training data as a table."""

from bulletproof.ingest.cleaning import Cleaner, CleaningCounts, clean_text
from bulletproof.ingest.records import Chunk, IngestLimits, Record, Rejection
from bulletproof.ingest.training import load_training_data, read_training_data
from bulletproof.ingest.upload import ParsedFile, open_upload

__all__ = [
    "Chunk",
    "Cleaner",
    "CleaningCounts",
    "IngestLimits",
    "ParsedFile",
    "Record",
    "Rejection",
    "clean_text",
    "load_training_data",
    "open_upload",
    "read_training_data",
]
