"""What goes wrong with an LLM, as errors of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

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

    The SDKs let ``JSONDecodeError`` and ``UnicodeDecodeError`` of an answer through as they are.

    Args:
        service: Who answers.

    Raises:
        BadResponseError: Instead of these.
    """
    try:
        yield
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResponseError(f"{service} answered something that is not JSON ({one_line(str(error))})") from error


@contextmanager
def translating(service: str) -> Iterator[None]:
    """Raise an error of our tree in place of one of an SDK; see ``translated``.

    Args:
        service: Who is called.
    """
    try:
        yield
    except Exception as error:
        ours = translated(error, service)
        if ours is error:
            if isinstance(error, ServiceTimeoutError):
                error.where.setdefault("service", service)
            raise
        raise ours from error


def translated(error: Exception, service: str) -> Exception:
    """Return an error of our tree for one of an SDK.

    So callers need not know the SDK, and ``except ConnectionError`` and ``except TimeoutError`` hold.

    Args:
        error: Anything raised by a call.
        service: Who was called.

    Returns:
        The error; the same one when it is ours already, or a bug and not the service's.
    """
    if isinstance(error, AIError):
        return error
    found = classify(error)
    message = f"{service}: {_with_cause(error, found.details)}"
    if found.error_type is ErrorType.VALIDATION:
        return InputValidationError(message, code=found.code, hint=found.hint)
    if found.error_type is not ErrorType.EXTERNAL_SERVICE:
        return error
    return service_error(found.code, message, hint=found.hint, retryable=found.retryable, retry_after=found.retry_after)


def service_error(
    code: str,
    message: str,
    *,
    hint: str | None = None,
    retryable: bool | None = None,
    retry_after: float | None = None,
) -> ExternalServiceError:
    """Return the error of the class that belongs to a code."""
    kind = _CLASSES.get(code, ExternalServiceError)
    return kind(message, code=code, hint=hint, retryable=retryable, retry_after=retry_after)


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
