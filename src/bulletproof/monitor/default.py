"""The monitor of this process."""

import os
from typing import Any

from bulletproof.errors import Diagnosis
from bulletproof.monitor.monitor import AIErrorMonitor

_default = AIErrorMonitor()


def default_monitor() -> AIErrorMonitor:
    """Return the monitor of this process.

    Example:
        >>> default_monitor() is default_monitor()
        True
    """
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
    global _default
    _default = AIErrorMonitor()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
