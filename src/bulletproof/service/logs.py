"""Structured logs: JSON lines for machines, colours for a terminal."""

import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict

from bulletproof.errors import AIError
from bulletproof.monitor.redaction import clean
from bulletproof.processor import log_context
from bulletproof.service.gate import AnswerBrokenOffError
from bulletproof.service.responses import encode
from bulletproof.settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_EMPTY = vars(logging.makeLogRecord({}))
_CHAIN = 10
_TALKATIVE = ("httpx", "httpx2", "httpcore", "openai", "aiosqlite", "sqlalchemy", "alembic", "python_multipart")


class _Line(logging.Formatter):
    """One structured line for each record.

    A line takes as long as a small prediction, so that what structlog's own formatter does besides is left out.
    """

    def __init__(self, render: Callable[[EventDict], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        event: EventDict = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat()[:-6] + "Z",
        }
        for key, value in vars(record).items():
            if key not in _STANDARD and key[0] != "_":
                event[key] = value
        # What the record does not say itself: the request and the file it is about.
        for known in (structlog.contextvars.get_contextvars(), log_context()):
            for key, value in known.items():
                event.setdefault(key, value)
        if record.exc_info:
            event["exception"] = _traceback(record.exc_info[1])
        return self._render(event)


def _traceback(error: BaseException | None) -> str:
    """Say where an exception came from; what others say in their messages may be anything, so it stays out."""
    parts: list[str] = []
    while error is not None and len(parts) < _CHAIN:
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        said = f": {clean(str(error))}" if isinstance(error, AIError) else ""
        parts.append("".join([*traceback.format_tb(error.__traceback__), kind, said]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nfollowed by\n\n".join(reversed(parts))


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Keep it at one line for a failure: the one of whoever it reached in the end."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, AnswerBrokenOffError):
        return False
    # Said of every websocket that was refused with an answer (github.com/Kludex/uvicorn/pull/3138), after it was told.
    if record.msg == "ASGI callable returned without completing handshake.":
        return False
    # A try that is followed by another is no failure yet.
    is_try = record.name == "bulletproof.resilience" and record.levelno == logging.INFO
    return not is_try or logging.getLogger().isEnabledFor(logging.DEBUG)


def _record(
    name: str,
    level: int,
    pathname: str,
    lineno: int,
    msg: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    sinfo: str | None = None,
    **_: Any,
) -> logging.LogRecord:
    """Make a record without taking apart where it came from, which is most of the work and in none of our lines."""
    if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
        args = args[0]
    made = logging.LogRecord.__new__(logging.LogRecord)
    now = time.time()
    made.__dict__ = _EMPTY | {
        "name": name, "msg": msg, "args": args, "levelno": level, "levelname": logging.getLevelName(level),
        "pathname": pathname, "lineno": lineno, "exc_info": exc_info, "funcName": func, "stack_info": sinfo,
        "created": now, "msecs": now % 1 * 1000,
    }  # fmt: skip
    return made


def _json(event: EventDict) -> str:
    return encode(event).decode()


def _console() -> Callable[[EventDict], str]:
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return lambda event: str(renderer(None, event["level"], event))


def configure_logs(settings: Settings) -> None:
    """Send every log record of the process to standard error, one structured line each.

    Args:
        settings: ``log_format`` and ``log_level`` are used.
    """
    machine = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(_json if machine else _console()))
    handler.addFilter(_worth_a_line)
    # Not in our lines, and each costs something (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001
    logging.setLogRecordFactory(_record)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # An exporter that fails says so in the end; each try of its own is not worth a line.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
