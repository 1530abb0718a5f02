"""Structured logs: JSON lines for machines, colours for a terminal."""

import logging
import sys
import traceback
from typing import Any

import structlog
from structlog.typing import EventDict

from bulletproof.errors import AIError
from bulletproof.monitor.redaction import clean
from bulletproof.processor import log_context
from bulletproof.service.gate import AnswerBrokenOffError
from bulletproof.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_CHAIN = 10
_TALKATIVE = ("httpx", "httpx2", "httpcore", "openai", "aiosqlite", "sqlalchemy", "alembic", "python_multipart")


def _extras(_: Any, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    for key, value in vars(record).items():
        if key not in _STANDARD and not key.startswith("_"):
            event[key] = value
    return event


def _context(_: Any, __: str, event: EventDict) -> EventDict:
    """Add what the record does not say itself: the request and the file it is about."""
    for key, value in (structlog.contextvars.get_contextvars() | log_context()).items():
        event.setdefault(key, value)
    return event


def _traceback(_: Any, __: str, event: EventDict) -> EventDict:
    """Say where an exception came from; what others say in their messages may be anything, so it stays out."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    parts: list[str] = []
    while isinstance(error, BaseException) and len(parts) < _CHAIN:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        said = f": {clean(str(error))}" if isinstance(error, AIError) else ""
        parts.append("".join([*traceback.format_tb(error.__traceback__), kind, said]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if parts:
        event["exception"] = "\n\nfollowed by\n\n".join(reversed(parts))
    return event


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Keep it at one line for a failure: the one of whoever it reached in the end."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, AnswerBrokenOffError):
        return False
    # A try that is followed by another is no failure yet.
    is_try = record.name == "bulletproof.resilience" and record.levelno == logging.INFO
    return not is_try or logging.getLogger().isEnabledFor(logging.DEBUG)


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
        _context,
    ]
    final: Any = (
        structlog.processors.JSONRenderer(default=str)
        if machine
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _traceback, final],
        )
    )
    handler.addFilter(_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # An exporter that fails says so in the end; each try of its own is not worth a line.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
