"""What the processor is made of when nobody says otherwise."""

import os

from bulletproof.analysis import Analyzer, AnalyzerChain, ModelFolder, PooledAnalyzer
from bulletproof.ingest import IngestLimits
from bulletproof.monitor import AIErrorMonitor
from bulletproof.settings import Settings
from bulletproof.store import ResultStore


def default_limits(settings: Settings) -> IngestLimits:
    """Return the bounds on uploads that the settings give."""
    return IngestLimits(
        max_bytes=settings.max_upload_bytes,
        max_decompressed_bytes=settings.max_decompressed_bytes,
        max_records=settings.max_records,
        max_text_chars=settings.max_text_chars,
        max_rejected_share=settings.max_rejected_share,
    )


def default_store(settings: Settings) -> ResultStore:
    """Return the database that the settings name, by default SQLite in the data folder."""
    url = settings.database_url.get_secret_value() if settings.database_url is not None else None
    return ResultStore(url, data_dir=settings.data_dir)


def default_analyzer(settings: Settings, monitor: AIErrorMonitor, *, workers: int = 0) -> Analyzer:
    """Return the chain of the LLM, if one is configured, and the local model.

    Args:
        settings: ``llm_*``, ``analysis_workers`` and ``data_dir`` are used: text classifiers of the caller's own are
            ``models/*.skops`` in there.
        monitor: Told of each failure of the LLM.
        workers: Worker processes for the local model when the settings do not say; with 0 it runs in threads.

    Returns:
        The analyzer.

    Raises:
        ConfigurationError: The LLM is configured wrongly.
    """
    if settings.analysis_workers is not None:
        workers = settings.analysis_workers
    local = PooledAnalyzer(workers) if workers else None
    own = ModelFolder(settings.data_dir / "models")
    return AnalyzerChain.from_settings(settings, fallback=local, classifiers=own, monitor=monitor)


def door_workers() -> int:
    """Return how many worker processes a door gives the local model: one, where there is a second core for it.

    Only for programs whose main module may be imported again, as worker processes do; not for a library.
    """
    return 1 if (os.cpu_count() or 1) > 1 else 0
