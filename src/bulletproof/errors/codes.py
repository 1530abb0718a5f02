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


_TABLE = """
# code, HTTP status, severity, "retry" when another try may succeed | title | hint
[validation_error]
invalid_request 400 low | Invalid request | Correct the request as the details say and send it again.
invalid_input 422 low | Invalid input | Correct the input as the details say and send it again.
invalid_json 422 low | Invalid JSON | Correct the JSON at the place named; a JSON linter shows it.
invalid_csv 422 low | Invalid CSV | Export the table again as UTF-8 CSV with one header row.
invalid_encoding 422 low | Invalid text encoding | Save the file as UTF-8 and send it again.
invalid_archive 422 low | Invalid compressed file | Compress the file again, or send it uncompressed.
unsupported_format 415 low | Unsupported file format | Send JSON, JSON lines, CSV, TSV or plain text.
file_too_large 413 low | File too large | Split the file, or raise the limit in the settings.
empty_file 422 low | Empty file | Send a file with at least one record in it.
file_not_found 404 low | File not found | Check the path; it must name an existing file.
permission_denied 422 low | Permission denied | Make the file readable for this user, or choose another.
missing_field 422 low | Missing field | Add the missing field, or name the field to use instead.
empty_text 422 low | Empty text | Fill in the text of this record, or leave the record out.
text_too_long 422 low | Text too long | Shorten the text or split it into several records.
not_numeric 422 low | Invalid input format | Send finite numbers only.
shape_mismatch 422 low | Wrong shape | Give every row the same length and one label per row.
too_many_bad_rows 422 low | Too many bad rows | Correct the rows listed; the first ones show what is wrong.
corrupted_image 422 low | Corrupted image | Export or upload the image again.
unsupported_language 422 low | Unsupported language | Send text in one of the supported languages.
labels_unavailable 422 low | No classifier for these labels | Configure an LLM (BULLETPROOF_LLM_BASE_URL or
    BULLETPROOF_LLM_API_KEY), or save a text classifier of your own that knows them as models/NAME.skops in the data
    folder.
unknown_model 404 low | Unknown model | Choose one of the models listed.
unknown_model_version 404 low | Unknown model version | Choose one of the versions listed.
not_found 404 low | Not found | Check the address or the id.
method_not_allowed 405 low | Method not allowed | Use one of the methods in the Allow header.
conflict 409 low | Not possible in this state | Look at its state now, and choose what fits it.
unauthorized 401 low | API key missing or wrong | Send a valid key in the header 'Authorization: Bearer KEY' or
    'X-API-Key: KEY'.
forbidden 403 low | Not allowed | Use a key that may do this.
too_many_requests 429 low retry | Too many requests | Slow down, and wait as long as Retry-After says.
request_timeout 408 low retry | Request not received in time | Send the body without long pauses, or allow more time
    with BULLETPROOF_UPLOAD_TIMEOUT.
blocked_url 422 low | URL not allowed | Use a public http or https address.
content_filtered 422 low | Content refused by the model's filter | Rephrase or leave out the text refused.
context_length_exceeded 422 low | Text too long for the model | Shorten the text, or use a model with more context.

[resource_error]
out_of_memory 503 critical | Out of memory | Use smaller batches or files, or give the process more memory.
gpu_out_of_memory 503 high | GPU out of memory | Lower the batch size, or free the GPU from other work.
disk_full 503 critical | Disk full | Free disk space where the data folder lies.
database_unavailable 503 high retry | Database unavailable | Check that the database runs and that
    BULLETPROOF_DATABASE_URL is right; then try again.
overloaded 503 medium retry | Overloaded | Try again as soon as Retry-After says.
deadline_exceeded 504 medium | Deadline exceeded | Send less at once, or allow more time.
missing_dependency 503 high | Missing library | Install the library named and start again.
misconfigured 503 high | Wrong configuration | Correct the setting named; docs/configure.md describes them all.
io_error 503 high | Input/output error | Check the disk and the file handles of the machine.
cancelled 503 low | Cancelled | The work was stopped from outside; send it again if it is still wanted.
internal_error 500 high | Internal error | Report this with the request id; the log has the cause.

[model_error]
model_load_failed 503 high | Model cannot be loaded | Check the model file, its type and the library version.
model_tampered 503 critical | Model file changed | The file does not match its checksum: restore it from a trusted
    source.
prediction_failed 500 high | Prediction failed | Check the input against the model's schema; the log has the cause.
prediction_timeout 504 medium retry | Prediction timed out | Send a smaller input, or allow more time.
model_crashed 503 high | Model crashed | Check the input and the model: its process died and was replaced.
invalid_model_output 500 high | Invalid model output | Check the model: its answer does not fit its schema.

[external_service_error]
rate_limited 503 medium retry | Rate limited by the service | Wait as long as Retry-After says, or lower the rate.
quota_exhausted 503 high | Quota of the service exhausted | Check plan and billing at the provider.
service_unavailable 503 medium retry | Service unavailable | Try again later; see the provider's status page.
service_timeout 504 medium retry | Service timed out | Try again, or allow the service more time.
auth_failed 503 high | Key refused by the service | Check the API key of the service and its rights.
request_rejected 502 medium | Request refused by the service | Check model name and options sent to the service.
circuit_open 503 medium retry | Circuit open | The service failed too often; try again after the time given.
bad_response 502 medium retry | Bad response from the service | Try again; if it persists, ask the provider.
"""


def _codes(table: str) -> dict[str, CodeSpec]:
    codes = {}
    kind = ErrorType.VALIDATION
    for line in table.replace("\n    ", " ").splitlines():
        if line.startswith("["):
            kind = ErrorType(line.strip("[]"))
        elif line and not line.startswith("#"):
            facts, title, hint = line.split(" | ")
            code, status, severity, *retry = facts.split()
            codes[code] = CodeSpec(kind, int(status), Severity(severity), bool(retry), title, hint)
    return codes


CODES: dict[str, CodeSpec] = _codes(_TABLE)
