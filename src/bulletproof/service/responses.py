"""JSON answers that never fail to encode, and the two forms of an error."""

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from bulletproof.errors import CODES, Diagnosis
from bulletproof.processor import error_answer

PROBLEM = "application/problem+json"
_MINIMUM_WAIT = 1


def encode(value: Any) -> bytes:
    """Encode a value as JSON; what JSON cannot hold becomes null or is escaped.

    Example:
        >>> encode({"score": float("nan"), "text": "\\ud800"})
        b'{"score": null, "text": "\\\\ud800"}'
    """
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):
        # A lone surrogate or another thing that UTF-8 cannot hold: plain ASCII with escapes can.
        return json.dumps(_finite(value), allow_nan=False, default=str).encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class Answer(Response):
    """A JSON response."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return encode(content)


def status_of(body: Mapping[str, Any]) -> int:
    """Return the HTTP status for an answer in the service's own form."""
    return 200 if body.get("status") != "error" else CODES[body["code"]].http_status


def error_response(
    body: dict[str, Any],
    *,
    request_id: str,
    accept: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response for an error, as RFC 9457 problem details when the client asks for them.

    Args:
        body: The error in our own form, as ``error_answer`` makes it.
        request_id: Id of the request.
        accept: The Accept header.
        status: The HTTP status, when it is not that of the code.
        headers: Further headers, such as Allow.

    Returns:
        The response; 429 and 503 carry Retry-After (RFC 9110, section 10.2.3).
    """
    code = status if status is not None else status_of(body)
    body = {**body, "request_id": request_id}
    if body["code"] == "internal_error":
        # What a bug says is for the log, not for strangers.
        body["details"] = "The service failed unexpectedly."
    extra = dict(headers or {})
    if code in (429, 503):
        wait = body.get("retry_after")
        extra["Retry-After"] = str(max(_MINIMUM_WAIT, math.ceil(wait)) if wait is not None else 5)
    if PROBLEM not in accept:
        return Answer(body, status_code=code, headers=extra)
    problem = {
        **body,
        "type": f"urn:bulletproof:error:{body['code']}",
        "title": body["error"],
        "status": code,
        "detail": body["details"],
        "instance": f"urn:bulletproof:request:{request_id}",
    }
    return Answer(problem, status_code=code, headers=extra, media_type=PROBLEM)


def diagnosis_response(diagnosis: Diagnosis, *, request_id: str, accept: str = "") -> Response:
    """Return the response for a diagnosed failure."""
    return error_response(error_answer(diagnosis), request_id=request_id, accept=accept)
