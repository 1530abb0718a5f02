"""Every error code: what it means, how bad it is and what a user can do about it.

This table is the only place where a code gets its type, severity, HTTP status and default wording.
An exception or a classifier rule names a code; all the rest follows from here.
"""

from enum import StrEnum
from typing import NamedTuple


class ErrorType(StrEnum):
    """The four ways in which an AI system fails."""

    VALIDATION = "validation_error"
    RESOURCE = "resource_error"
    MODEL = "model_error"
    EXTERNAL_SERVICE = "external_service_error"


class Severity(StrEnum):
    """How bad an error is for whoever runs the system."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class CodeSpec(NamedTuple):
    """What a code stands for."""

    error_type: ErrorType
    http_status: int
    severity: Severity
    retryable: bool
    title: str
    hint: str


_V, _R, _M, _X = ErrorType.VALIDATION, ErrorType.RESOURCE, ErrorType.MODEL, ErrorType.EXTERNAL_SERVICE
_LOW, _MEDIUM, _HIGH, _CRITICAL = Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL

CODES: dict[str, CodeSpec] = {
    # The caller's fault.
    "invalid_request": CodeSpec(
        _V, 400, _LOW, False, "Invalid request", "Correct the request as the details say and send it again."
    ),
    "invalid_input": CodeSpec(
        _V, 422, _LOW, False, "Invalid input", "Correct the input as the details say and send it again."
    ),
    "invalid_json": CodeSpec(
        _V, 422, _LOW, False, "Invalid JSON", "Correct the JSON at the place named; a JSON linter shows it."
    ),
    "invalid_csv": CodeSpec(
        _V, 422, _LOW, False, "Invalid CSV", "Export the table again as UTF-8 CSV with one header row."
    ),
    "invalid_encoding": CodeSpec(
        _V, 422, _LOW, False, "Invalid text encoding", "Save the file as UTF-8 and send it again."
    ),
    "invalid_archive": CodeSpec(
        _V, 422, _LOW, False, "Invalid compressed file", "Compress the file again, or send it uncompressed."
    ),
    "unsupported_format": CodeSpec(
        _V, 415, _LOW, False, "Unsupported file format", "Send JSON, JSON lines, CSV, TSV or plain text."
    ),
    "file_too_large": CodeSpec(
        _V, 413, _LOW, False, "File too large", "Split the file, or raise the limit in the settings."
    ),
    "empty_file": CodeSpec(
        _V, 422, _LOW, False, "Empty file", "Send a file with at least one record in it."
    ),
    "file_not_found": CodeSpec(
        _V, 404, _LOW, False, "File not found", "Check the path; it must name an existing file."
    ),
    "permission_denied": CodeSpec(
        _V, 422, _LOW, False, "Permission denied", "Make the file readable for this user, or choose another."
    ),
    "missing_field": CodeSpec(
        _V, 422, _LOW, False, "Missing field", "Add the missing field, or name the field to use instead."
    ),
    "empty_text": CodeSpec(
        _V, 422, _LOW, False, "Empty text", "Fill in the text of this record, or leave the record out."
    ),
    "text_too_long": CodeSpec(
        _V, 422, _LOW, False, "Text too long", "Shorten the text or split it into several records."
    ),
    "not_numeric": CodeSpec(_V, 422, _LOW, False, "Invalid input format", "Send finite numbers only."),
    "shape_mismatch": CodeSpec(
        _V, 422, _LOW, False, "Wrong shape", "Give every row the same length and one label per row."
    ),
    "too_many_bad_rows": CodeSpec(
        _V, 422, _LOW, False, "Too many bad rows", "Correct the rows listed; the first ones show what is wrong."
    ),
    "corrupted_image": CodeSpec(
        _V, 422, _LOW, False, "Corrupted image", "Export or upload the image again."
    ),
    "unsupported_language": CodeSpec(
        _V, 422, _LOW, False, "Unsupported language", "Send text in one of the supported languages."
    ),
    "labels_unavailable": CodeSpec(
        _V, 422, _LOW, False, "No classifier for these labels",
        "Configure an LLM (BULLETPROOF_LLM_BASE_URL or BULLETPROOF_LLM_API_KEY), "
        "or save a text classifier of your own that knows them as models/NAME.skops in the data folder.",
    ),
    "unknown_model": CodeSpec(_V, 404, _LOW, False, "Unknown model", "Choose one of the models listed."),
    "unknown_model_version": CodeSpec(
        _V, 404, _LOW, False, "Unknown model version", "Choose one of the versions listed."
    ),
    "not_found": CodeSpec(_V, 404, _LOW, False, "Not found", "Check the address or the id."),
    "method_not_allowed": CodeSpec(
        _V, 405, _LOW, False, "Method not allowed", "Use one of the methods in the Allow header."
    ),
    "conflict": CodeSpec(
        _V, 409, _LOW, False, "Not possible in this state", "Look at its state now, and choose what fits it."
    ),
    "unauthorized": CodeSpec(
        _V, 401, _LOW, False, "API key missing or wrong",
        "Send a valid key in the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
    ),
    "forbidden": CodeSpec(_V, 403, _LOW, False, "Not allowed", "Use a key that may do this."),
    "too_many_requests": CodeSpec(
        _V, 429, _LOW, True, "Too many requests", "Slow down, and wait as long as Retry-After says."
    ),
    "request_timeout": CodeSpec(
        _V, 408, _LOW, True, "Request not received in time",
        "Send the body without long pauses, or allow more time with BULLETPROOF_UPLOAD_TIMEOUT.",
    ),
    "blocked_url": CodeSpec(
        _V, 422, _LOW, False, "URL not allowed", "Use a public http or https address."
    ),
    "content_filtered": CodeSpec(
        _V, 422, _LOW, False, "Content refused by the model's filter", "Rephrase or leave out the text refused."
    ),
    "context_length_exceeded": CodeSpec(
        _V, 422, _LOW, False, "Text too long for the model", "Shorten the text, or use a model with more context."
    ),
    # The system's resources.
    "out_of_memory": CodeSpec(
        _R, 503, _CRITICAL, False, "Out of memory", "Use smaller batches or files, or give the process more memory."
    ),
    "gpu_out_of_memory": CodeSpec(
        _R, 503, _HIGH, False, "GPU out of memory", "Lower the batch size, or free the GPU from other work."
    ),
    "disk_full": CodeSpec(
        _R, 503, _CRITICAL, False, "Disk full", "Free disk space where the data folder lies."
    ),
    "database_unavailable": CodeSpec(
        _R, 503, _HIGH, True, "Database unavailable",
        "Check that the database runs and that BULLETPROOF_DATABASE_URL is right; then try again.",
    ),
    "overloaded": CodeSpec(
        _R, 503, _MEDIUM, True, "Overloaded", "Try again as soon as Retry-After says."
    ),
    "deadline_exceeded": CodeSpec(
        _R, 504, _MEDIUM, False, "Deadline exceeded", "Send less at once, or allow more time."
    ),
    "missing_dependency": CodeSpec(
        _R, 503, _HIGH, False, "Missing library", "Install the library named and start again."
    ),
    "misconfigured": CodeSpec(
        _R, 503, _HIGH, False, "Wrong configuration", "Correct the setting named; docs/configure.md describes them all."
    ),
    "io_error": CodeSpec(
        _R, 503, _HIGH, False, "Input/output error", "Check the disk and the file handles of the machine."
    ),
    "cancelled": CodeSpec(
        _R, 503, _LOW, False, "Cancelled", "The work was stopped from outside; send it again if it is still wanted."
    ),
    "internal_error": CodeSpec(
        _R, 500, _HIGH, False, "Internal error", "Report this with the request id; the log has the cause."
    ),
    # The model.
    "model_load_failed": CodeSpec(
        _M, 503, _HIGH, False, "Model cannot be loaded", "Check the model file, its type and the library version."
    ),
    "model_tampered": CodeSpec(
        _M, 503, _CRITICAL, False, "Model file changed",
        "The file does not match its checksum: restore it from a trusted source.",
    ),
    "prediction_failed": CodeSpec(
        _M, 500, _HIGH, False, "Prediction failed", "Check the input against the model's schema; the log has the cause."
    ),
    "prediction_timeout": CodeSpec(
        _M, 504, _MEDIUM, True, "Prediction timed out", "Send a smaller input, or allow more time."
    ),
    "model_crashed": CodeSpec(
        _M, 503, _HIGH, False, "Model crashed", "Check the input and the model: its process died and was replaced."
    ),
    "invalid_model_output": CodeSpec(
        _M, 500, _HIGH, False, "Invalid model output", "Check the model: its answer does not fit its schema."
    ),
    # Services of others.
    "rate_limited": CodeSpec(
        _X, 503, _MEDIUM, True, "Rate limited by the service", "Wait as long as Retry-After says, or lower the rate."
    ),
    "quota_exhausted": CodeSpec(
        _X, 503, _HIGH, False, "Quota of the service exhausted", "Check plan and billing at the provider."
    ),
    "service_unavailable": CodeSpec(
        _X, 503, _MEDIUM, True, "Service unavailable", "Try again later; see the provider's status page."
    ),
    "service_timeout": CodeSpec(
        _X, 504, _MEDIUM, True, "Service timed out", "Try again, or allow the service more time."
    ),
    "auth_failed": CodeSpec(
        _X, 503, _HIGH, False, "Key refused by the service", "Check the API key of the service and its rights."
    ),
    "request_rejected": CodeSpec(
        _X, 502, _MEDIUM, False, "Request refused by the service", "Check model name and options sent to the service."
    ),
    "circuit_open": CodeSpec(
        _X, 503, _MEDIUM, True, "Circuit open", "The service failed too often; try again after the time given."
    ),
    "bad_response": CodeSpec(
        _X, 502, _MEDIUM, True, "Bad response from the service", "Try again; if it persists, ask the provider."
    ),
}  # fmt: skip
