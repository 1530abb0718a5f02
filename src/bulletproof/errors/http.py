"""What an HTTP status, and the body that came with it, mean when a service of somebody else answers."""

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from bulletproof.errors.codes import CODES, ErrorType
from bulletproof.errors.headers import parse_retry_after
from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, phrases

STATUS_ATTRIBUTES = frozenset({"status_code", "http_status", "status", "code", "http_code", "response", "raw_response"})
COUNTED_4XX = frozenset({408, 409, 425, 429})
_BY_STATUS = {
    401: "auth_failed", 402: "quota_exhausted", 403: "auth_failed", 407: "auth_failed", 408: "service_timeout",
    409: "service_unavailable", 425: "service_unavailable", 429: "rate_limited",
    504: "service_timeout", 522: "service_timeout", 524: "service_timeout", 598: "service_timeout",
}  # fmt: skip
_NEVER_BETTER = frozenset({501, 505, 506, 508, 510, 511})
_BODY_LIMIT = 65_536

_WORDING = phrases(r"""
context_length_exceeded:
    context[_ ](?:length|window)|maximum context|prompt is too long|input is too long|too many tokens
    exceeds? the (?:maximum|max)(?: number of)? (?:input )?tokens|string_above_max_length
    token count .{0,40}exceeds|reduce the length
content_filtered:
    content[_ ](?:filter|policy|management policy)|responsible ?ai|moderation[_ ]blocked|content_moderation
    safety system|prohibited_content|blocked (?:due to|by) safety
quota_exhausted:
    insufficient[_ ](?:quota|credits?|balance|funds)|billing_(?:hard_limit|error|not_active)|credit balance
    exceeded your current quota|requests?perday|billing (?:account|limit)|out of credits
    exceeded your monthly|access_terminated
auth_failed:
    invalid[_ ]api[_ ]key|incorrect api key|authentication_error|api key not valid|permission_error
    unauthenticated|invalid x-api-key
rate_limited:
    rate[_ -]?limit|too many requests|throttl
service_unavailable:
    overloaded
""")
# Which wordings may change what a status says: a 401 stays a 401 whatever its text.
_OPEN_TO_WORDING = {
    400: {"context_length_exceeded", "content_filtered", "quota_exhausted", "auth_failed", "rate_limited"},
    403: {"quota_exhausted", "content_filtered", "rate_limited"},
    413: {"context_length_exceeded"},
    422: {"context_length_exceeded", "content_filtered"},
    429: {"quota_exhausted"},
}
_VAGUE = {"service_unavailable", "request_rejected", "rate_limited", "bad_response", "internal_error"}
_STATUS_IN_TEXT = re.compile(
    r"^(\d{3})\b|(?:error code:? |http error |(?:client|server) error '|redirect response '|status(?:[_ ]code)?:? )"
    r"(\d{3})\b",
    re.IGNORECASE,
)
_TRY_AGAIN = re.compile(
    r"(?:try again|retry|reset) (?:in|after) (?P<hours>\d{1,3}h)?(?P<minutes>\d{1,4}m(?!s))?"
    r"(?P<seconds>\d{1,6}(?:\.\d{1,6})?)?\s?(?P<unit>ms|s\b|seconds?\b)?",
    re.IGNORECASE,
)


class Body(NamedTuple):
    """The parts of a vendor's error body that say something."""

    kind: str
    code: str
    message: str
    wait: float | None = None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an SDK's error carries, or None.

    Example:
        >>> class APIError(Exception):
        ...     status_code = 503
        >>> status_of(APIError()), status_of(ValueError())
        (503, None)
    """
    for name in ("status_code", "http_status", "status", "code", "http_code"):
        status = _status(read(error, name))
        if status is not None:
            return status
    for name in ("response", "raw_response"):
        response = read(error, name)
        if response is None:
            continue
        if isinstance(response, dict):  # botocore
            metadata = response.get("ResponseMetadata")
            status = _status(metadata.get("HTTPStatusCode")) if isinstance(metadata, dict) else None
        else:
            status = _status(read(response, "status_code")) or _status(read(response, "status"))
        if status is not None:
            return status
    return None


def judge_status(error: BaseException) -> Verdict | None:
    """Say what an error means that carries the HTTP status of somebody else's answer; None when it carries none."""
    status = status_of(error)
    if status is None:
        return None
    body = body_of(error)
    return verdict_of(status, body, text_of(error))


def judge_remote(error: BaseException, otherwise: Verdict) -> Verdict:
    """Say what an error of an SDK for a remote service means: by its status, else its words, else its class."""
    text = text_of(error)
    status = status_of(error)
    body = body_of(error)
    if status is None:
        match = _STATUS_IN_TEXT.search(text[:200])
        status = int(match[1] or match[2]) if match else None
    if status is not None and status >= 400:
        return verdict_of(status, body, text)
    worded = wording(_said(body, text)) if otherwise.code in _VAGUE else None
    if worded is None:
        return otherwise._replace(details=body.message or None) if otherwise.details is None else otherwise
    return Verdict(worded, None, body.message or None, body.wait, CODES[worded].error_type is not ErrorType.VALIDATION)


def verdict_of(status: int, body: Body, text: str = "") -> Verdict:
    """Say what an HTTP status of somebody else's answer means (RFC 9110 §15, RFC 6585, the vendors' error pages).

    Args:
        status: 100 to 599.
        body: What the body of the answer says.
        text: The exception's own text, looked at when the body says nothing.

    Returns:
        The verdict: 4xx are neutral for a breaker but for 408, 409, 425 and 429.

    Example:
        >>> verdict_of(429, Body("", "insufficient_quota", "")).code, verdict_of(503, Body("", "", "")).retryable
        ('quota_exhausted', None)
    """
    said = _said(body, text)
    code = _BY_STATUS.get(status)
    retryable = None
    if code is None:
        if status >= 500:
            code, retryable = "service_unavailable", (False if status in _NEVER_BETTER else None)
        elif status >= 400:
            code = "request_rejected"
        else:
            code, retryable = "bad_response", False
    retry_after = None
    if status in _OPEN_TO_WORDING:
        worded = wording(said)
        if code == "rate_limited":
            retry_after = body.wait or _worded_wait(said)
        if worded is not None and worded in _OPEN_TO_WORDING[status]:
            # A quota of a minute is a rate limit: the service says when to come back. A quota of a day is not.
            code = "rate_limited" if worded == "quota_exhausted" and retry_after and "perday" not in said else worded
    counts = not 400 <= status < 500 or status in COUNTED_4XX or code == "rate_limited"
    return Verdict(code, retryable, _details(status, body, text), retry_after, counts)


@lru_cache(maxsize=1024)
def wording(text: str) -> str | None:
    """Return the code that a service's words stand for, or None."""
    return next((verdict.code for pattern, verdict in _WORDING if pattern.search(text)), None)


def body_of(error: BaseException) -> Body:
    """Return what the vendor's error body says, wherever the SDK keeps it."""
    body = parse_body(read(error, "body")) or parse_body(read(error, "details")) or parse_body(_response_json(error))
    if body is not None:
        return body
    return _body(read(error, "type"), read(error, "code"), read(error, "message"))


def parse_body(source: Any, depth: int = 0) -> Body | None:
    """Read the usual shapes of an error body: ``{"error": {"type", "code", "message"}}`` and its kin."""
    if isinstance(source, bytes | str) and len(source) <= _BODY_LIMIT and source[:1] in ("{", "[", b"{", b"["):
        try:
            source = json.loads(source)
        except (ValueError, RecursionError):
            return None
    if isinstance(source, list) and source:
        source = source[0]
    if not isinstance(source, dict):
        return None
    inner = source.get("error") or source.get("Error")
    if isinstance(inner, dict | list) and depth < 4:
        return parse_body(inner, depth + 1)
    kind = source.get("type") or source.get("status") or (inner if isinstance(inner, str) else "")
    message = source.get("message") or source.get("Message") or source.get("detail") or source.get("error_description")
    code = source.get("code") or source.get("Code")
    found = _body(kind, code, message, _wait(source.get("details")))
    return found if any(found) else None


def _body(kind: Any, code: Any, message: Any, wait: float | None = None) -> Body:
    kind, code, message = (part if isinstance(part, str) else "" for part in (kind, code, message))
    return Body(kind, code, message, wait)


def _said(body: Body, text: str) -> str:
    return (
        f"{body.kind} {body.code} {body.message}"[:_BODY_LIMIT].lower() if any(body[:3]) else text[:_BODY_LIMIT].lower()
    )


def _wait(details: Any) -> float | None:
    """Read google.rpc.RetryInfo: ``[{"retryDelay": "35s"}]``."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            return parse_retry_after(delay[:-1])
    return None


def _response_json(error: BaseException) -> Any:
    # Only what has been read already: asking for more would be I/O.
    response = read(error, "response")
    if isinstance(response, dict):
        return response
    content = None if response is None else read(response, "_content")
    return content if isinstance(content, bytes) else None


def _status(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return int(value)
    return None


def _details(status: int, body: Body, text: str) -> str:
    said = body.message or text or body.code or body.kind
    return f"HTTP {status}: {said}" if said else f"HTTP {status}"


@lru_cache(maxsize=1024)
def _worded_wait(text: str) -> float | None:
    match = _TRY_AGAIN.search(text)
    if match is None or not (match["hours"] or match["minutes"] or match["unit"]):
        return None
    seconds = float(match["seconds"] or 0) * (0.001 if match["unit"] == "ms" else 1.0)
    minutes = 60 * int((match["hours"] or "0h")[:-1]) + int((match["minutes"] or "0m")[:-1])
    return 60.0 * minutes + seconds or None
