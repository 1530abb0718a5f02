"""Telling a monitor what became of a call."""

from typing import Any, Protocol

from bulletproof.errors import AIError, Diagnosis, classify


class ErrorListener(Protocol):
    """Takes in failures: an ``AIErrorMonitor``, or anything with its method."""

    def record_error(self, /, error_type: str, service: str, severity: str, message: str, **context: Any) -> None: ...


def tell(sink: ErrorListener | None, error: BaseException, service: str, **context: Any) -> Diagnosis:
    """Classify an error, tell the sink, and return what it means.

    Args:
        sink: Who is told, if anybody.
        error: What happened.
        service: The part of the system that failed.
        **context: What else is known.
    """
    found = classify(error)
    if sink is not None:
        # The text of an error that is none of a service's may hold anything.
        known = isinstance(error, AIError) or found.code != "internal_error"
        message = found.details if known else found.exception_chain[0]
        sink.record_error(str(found.error_type), service, str(found.severity), message, code=found.code, **context)
    return found


def tell_success(sink: ErrorListener | None, service: str, seconds: float | None = None) -> None:
    """Tell the sink of a call that went well, if it wants to know."""
    record = getattr(sink, "record_success", None)
    if record is not None:
        record(service, seconds)
