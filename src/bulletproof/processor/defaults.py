"""What the processor is made of when nobody says otherwise."""

from bulletproof.analysis import Analyzer, LocalAnalyzer
from bulletproof.ingest import IngestLimits
from bulletproof.monitor import AIErrorMonitor
from bulletproof.settings import Settings
from bulletproof.store import ResultStore


def default_limits(settings: Settings) -> IngestLimits:
    """Return the bounds on uploads that the settings give."""
    return IngestLimits(
        max_bytes=settings.max_upload_bytes,
        max_decompressed_bytes=settings.max_decompressed_bytes,
        max_text_chars=settings.max_text_chars,
        max_rejected_share=settings.max_rejected_share,
    )


def default_store(settings: Settings) -> ResultStore:
    """Return the database that the settings name, by default SQLite in the data folder."""
    url = settings.database_url.get_secret_value() if settings.database_url is not None else None
    return ResultStore(url, data_dir=settings.data_dir)


def default_analyzer(settings: Settings, monitor: AIErrorMonitor) -> Analyzer:
    """Return the chain of the LLM, if one is configured, and the local model."""
    return LocalAnalyzer()
