"""What goes wrong with an LLM, as errors of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from bulletproof.errors import (
    AIError,
    BadResponseError,
    ErrorType,
    ExternalServiceError,
    InputValidationError,
    RateLimitedError,
    ServiceAuthError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    classify,
)
from bulletproof.errors.text import one_line

_CLASSES: dict[str, type[ExternalServiceError]] = {
    "rate_limited": RateLimitedError,
    "service_unavailable": ServiceUnavailableError,
    "service_timeout": ServiceTimeoutError,
    "auth_failed": ServiceAuthError,
    "bad_response": BadResponseError,
}


@contextmanager
def decoding(service: str) -> Iterator[None]:
    """Take an error of decoding inside for what it is: the service answered rubbish.

    The SDKs let ``JSONDecodeError`` and ``UnicodeDecodeError`` of an answer through as they are; here they become
    ``BadResponseError``.
    """
    try:
        yield
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResponseError(f"{service} answered something that is not JSON ({one_line(str(error))})") from error


@contextmanager
def translating(service: str) -> Iterator[None]:
    """Raise an error of our tree in place of one of an SDK, so that callers need not know the SDK.

    An error that is ours already, or a bug and not the service's, is raised as it is.
    """
    try:
        yield
    except AIError as error:
        if isinstance(error, ServiceTimeoutError):
            error.where.setdefault("service", service)
        raise
    except Exception as error:
        found = classify(error)
        message = f"{service}: {_with_cause(error, found.details)}"
        if found.error_type is ErrorType.VALIDATION:
            raise InputValidationError(message, code=found.code, hint=found.hint) from error
        if found.error_type is not ErrorType.EXTERNAL_SERVICE:
            raise
        raise service_error(
            found.code, message, hint=found.hint, retryable=found.retryable, retry_after=found.retry_after
        ) from error


def service_error(code: str, message: str, **more: Any) -> ExternalServiceError:
    """Return the error of the class that belongs to a code."""
    return _CLASSES.get(code, ExternalServiceError)(message, code=code, **more)


def _with_cause(error: BaseException, details: str) -> str:
    """Add the innermost cause: an SDK says "Connection error." and the socket says why."""
    cause: BaseException = error
    for _ in range(8):
        deeper = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if deeper is None:
            break
        cause = deeper
    said = "" if cause is error else one_line(str(cause))
    return f"{details} ({said})" if said and said not in details else details
