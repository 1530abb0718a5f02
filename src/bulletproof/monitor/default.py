"""The monitor of this process."""

import os
from threading import Lock
from typing import Any

from bulletproof.errors import Diagnosis
from bulletproof.monitor.monitor import AIErrorMonitor

_lock = Lock()
_default: AIErrorMonitor | None = None


def default_monitor() -> AIErrorMonitor:
    """Return the monitor of this process, which is made when it is first asked for.

    Example:
        >>> default_monitor() is default_monitor()
        True
    """
    global _default
    if _default is None:
        with _lock:
            if _default is None:
                _default = AIErrorMonitor()
    return _default


def record_exception(error: BaseException, service: str, **context: Any) -> Diagnosis:
    """Classify an exception, record what it means with the monitor of this process and return it.

    Example:
        >>> try:
        ...     raise ConnectionError("connection refused")
        ... except ConnectionError as error:
        ...     record_exception(error, "llm").retryable
        True
    """
    return default_monitor().record_exception(error, service, **context)


def _start_anew() -> None:
    # What the parent counted is the parent's to report, and its lock may be held by a thread that is not here.
    global _default, _lock
    _default, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
