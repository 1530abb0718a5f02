"""Structured logs: JSON lines for machines, colours for a terminal."""

import logging
import sys
from typing import Any

import structlog

from bulletproof.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def _extras(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    record: logging.LogRecord = event["_record"]
    for key, value in vars(record).items():
        if key not in _STANDARD and not key.startswith("_"):
            event.setdefault(key, value)
    return event


def configure_logs(settings: Settings) -> None:
    """Send every log record of the process to standard error, one structured line each.

    Args:
        settings: ``log_format`` and ``log_level`` are used.
    """
    machine = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _extras,
    ]
    final: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if machine
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("httpx", "httpx2", "httpcore", "openai", "aiosqlite", "sqlalchemy", "alembic", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
