"""The exceptions of bulletproof.

::

    AIError
    ├── InputValidationError            the caller's fault                    validation_error
    │   ├── InvalidFileError            a file whose content is broken
    │   ├── UnsupportedFormatError      a kind of file that is not taken
    │   ├── FileTooLargeError           more bytes, rows or columns than allowed
    │   ├── NotFoundError               no such model, version, run, page
    │   ├── AccessDeniedError           key missing, wrong, or not allowed to do this
    │   └── TooManyRequestsError        the caller's own rate limit or quota
    ├── ResourceError                   system and resources                  resource_error
    │   ├── OverloadedError             our own capacity
    │   ├── DeadlineExceededError       the whole time allowed is over        (a TimeoutError too)
    │   ├── StoreError                  the database cannot be used
    │   └── ConfigurationError          a setting or a library is missing or wrong
    ├── ModelError                      model and algorithm                   model_error
    │   ├── ModelLoadError              a model cannot be loaded
    │   ├── PredictionError             a loaded model fails on valid input
    │   ├── PredictionTimeoutError      it does not answer in time            (a TimeoutError too)
    │   └── InvalidModelOutputError     it answers rubbish
    └── ExternalServiceError            a service of somebody else            external_service_error
        ├── RateLimitedError            it says: too many requests
        ├── ServiceUnavailableError     it does not work                      (a ConnectionError too)
        ├── ServiceTimeoutError         it does not answer in time            (a TimeoutError too)
        ├── ServiceAuthError            it refuses our key
        ├── BadResponseError            it answers rubbish
        └── CircuitOpenError            it failed too often and is not called

Every exception has a ``code`` (see ``codes.CODES``), from which type, severity, HTTP status and wording follow.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from bulletproof.errors.codes import CODES, CodeSpec, ErrorType


def _rebuild(cls: type["AIError"], state: dict[str, Any]) -> "AIError":
    error = cls.__new__(cls)
    error.__dict__.update(state)
    error.args = (state["message"],)
    return error


class AIError(Exception):
    """The root of all errors that bulletproof raises itself.

    Args:
        message: What was wrong, in a sentence that a user can act on.
        code: A key of ``CODES``; each class has a default.
        hint: What to do; by default the hint of the code.
        retry_after: Seconds after which another try makes sense.
        retryable: Overrides what the code says.
        **where: The place: ``row``, ``line``, ``column``, ``byte``, ``field``, ``stage``, ``url``, ``path`` ...

    Example:
        >>> error = InvalidFileError("Expected ',' after the value", code="invalid_json", line=3, column=14)
        >>> error.code, error.where
        ('invalid_json', {'line': 3, 'column': 14})
        >>> str(error)
        "Expected ',' after the value (line 3, column 14)"
    """

    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        **where: Any,
    ) -> None:
        self.message = message
        self.code = code if code is not None else self.default_code
        if self.code not in CODES:
            raise ValueError(f"unknown error code {self.code!r}: it must be a key of bulletproof.errors.CODES")
        self.hint = hint if hint is not None else self.spec.hint
        self.retry_after = retry_after
        self.retryable = retryable if retryable is not None else self.spec.retryable
        self.where = {key: value for key, value in where.items() if value is not None}
        super().__init__(message)

    @property
    def spec(self) -> CodeSpec:
        """What the code stands for."""
        return CODES[self.code]

    @property
    def error_type(self) -> ErrorType:
        """Which of the four ways of failing."""
        return self.spec.error_type

    def __str__(self) -> str:
        where = self.where
        if not where:
            return self.message
        if len(where) == 1:  # by far the most common, and this is asked for often
            [(key, value)] = where.items()
            return f"{self.message} ({key} {value})"
        place = ", ".join([f"{key} {value}" for key, value in where.items()])
        return f"{self.message} ({place})"

    def at(self, **where: Any) -> Self:
        """Add what is known about the place and return the same error."""
        self.where.update({key: value for key, value in where.items() if value is not None})
        return self

    def __reduce__(self) -> tuple[Callable[..., "AIError"], tuple[type["AIError"], dict[str, Any]]]:
        # Errors cross process borders on their way out of workers.
        return _rebuild, (type(self), self.__dict__.copy())


class InputValidationError(AIError):
    """The caller sent something that cannot be worked with."""

    default_code = "invalid_input"


class InvalidFileError(InputValidationError):
    """A file whose content is broken; says where."""


class UnsupportedFormatError(InputValidationError):
    """A kind of file that is not taken."""

    default_code = "unsupported_format"


class FileTooLargeError(InputValidationError):
    """More bytes, rows or columns than the limits allow."""

    default_code = "file_too_large"


class NotFoundError(InputValidationError):
    """There is no such model, version, run or page."""

    default_code = "not_found"


class AccessDeniedError(InputValidationError):
    """The key is missing, wrong, or not allowed to do this."""

    default_code = "unauthorized"


class TooManyRequestsError(InputValidationError):
    """The caller's own rate limit or quota is used up."""

    default_code = "too_many_requests"


class ResourceError(AIError):
    """The system itself or one of its resources failed."""


class OverloadedError(ResourceError):
    """Our own capacity is used up."""

    default_code = "overloaded"


class DeadlineExceededError(ResourceError, TimeoutError):
    """The whole time allowed for the work is over."""

    default_code = "deadline_exceeded"


class StoreError(ResourceError):
    """The database cannot be used."""

    default_code = "database_unavailable"


class ConfigurationError(ResourceError):
    """A setting or a library is missing or wrong."""

    default_code = "misconfigured"


class ModelError(AIError):
    """The model or the algorithm failed."""

    default_code = "prediction_failed"


class ModelLoadError(ModelError):
    """A model cannot be loaded."""

    default_code = "model_load_failed"


class PredictionError(ModelError):
    """A loaded model fails on valid input."""


class PredictionTimeoutError(ModelError, TimeoutError):
    """A model does not answer in time."""

    default_code = "prediction_timeout"


class InvalidModelOutputError(ModelError):
    """A model answers something that its schema does not allow."""

    default_code = "invalid_model_output"


class ExternalServiceError(AIError):
    """A service of somebody else failed."""

    default_code = "service_unavailable"


class RateLimitedError(ExternalServiceError):
    """The service says that it gets too many requests."""

    default_code = "rate_limited"


class ServiceUnavailableError(ExternalServiceError, ConnectionError):
    """The service does not work or cannot be reached."""


class ServiceTimeoutError(ExternalServiceError, TimeoutError):
    """The service does not answer in time."""

    default_code = "service_timeout"


class ServiceAuthError(ExternalServiceError):
    """The service refuses our key."""

    default_code = "auth_failed"


class BadResponseError(ExternalServiceError):
    """The service answers something that cannot be used."""

    default_code = "bad_response"


class CircuitOpenError(ExternalServiceError):
    """A circuit breaker refuses the call because its service failed too often.

    Args:
        service: Name of the service, as given to the breaker.
        state: State of the circuit, such as ``open``, ``half_open`` or ``forced_open``.
        retry_after: Seconds until a call may be admitted again; None when an operator holds it open.
    """

    default_code = "circuit_open"

    def __init__(self, service: str, state: str = "open", retry_after: float | None = None) -> None:
        when = (
            "an operator holds it open" if retry_after is None else f"the next call is admitted in {retry_after:.1f} s"
        )
        super().__init__(f"circuit of {service!r} is {state}: {when}", retry_after=retry_after)
        self.service = service
        self.state = state

    def __getattr__(self, name: str) -> Any:
        # A refused call has to be cheap: the breaker makes this error by __new__ alone, and what it says is worked out
        # when somebody asks.
        if "service" in self.__dict__ or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        CircuitOpenError.__init__(self, *self.args)
        return getattr(self, name)

    def __reduce__(self) -> tuple[Callable[..., AIError], tuple[type[AIError], dict[str, Any]]]:
        _ = self.message  # worked out by now
        return super().__reduce__()
