"""Rules for our own side of HTTP: frameworks, form parsers, validation of requests and settings."""

from collections.abc import Mapping
from typing import Any

from bulletproof.errors.http import COUNTED_4XX
from bulletproof.errors.reading import read
from bulletproof.errors.registry import Verdict, rule

# What a status means that we answer with ourselves: the table of the service's own errors.
_STATUS = {
    400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "deadline_exceeded", 413: "file_too_large", 415: "unsupported_format", 422: "invalid_input",
    429: "too_many_requests", 502: "bad_response", 503: "overloaded", 504: "deadline_exceeded",
}  # fmt: skip


@rule(
    "starlette.HTTPException", "fastapi.HTTPException", "werkzeug.HTTPException", "aiohttp.web_exceptions.HTTPException"
)
def http_exception(error: BaseException) -> Verdict:
    """A status that the application itself answers with."""
    status = next((s for name in ("status_code", "status", "code") if isinstance(s := read(error, name), int)), 500)
    detail = next((d for name in ("detail", "reason", "description") if isinstance(d := read(error, name), str)), None)
    code = _STATUS.get(status, "invalid_request" if 400 <= status < 500 else "internal_error")
    return Verdict(code, None, detail, counts=not 400 <= status < 500 or status in COUNTED_4XX)


_KINDS = {
    "missing": "missing_field", "json_invalid": "invalid_json", "int_parsing": "not_numeric",
    "float_parsing": "not_numeric", "int_type": "not_numeric", "float_type": "not_numeric",
    "finite_number": "not_numeric", "decimal_parsing": "not_numeric", "int_from_float": "not_numeric",
}  # fmt: skip


@rule("pydantic_core.ValidationError", "pydantic.ValidationError", "fastapi.RequestValidationError")
def validation(error: BaseException) -> Verdict:
    """By the kinds of what is wrong; the text shows places and reasons, never the input."""
    problems = [problem for problem in _problems(error) if isinstance(problem, Mapping)]
    if not problems:
        return Verdict("invalid_input")
    kinds = {_KINDS.get(str(problem.get("type")), "invalid_input") for problem in problems}
    shown = "; ".join(map(_told, problems[:3])) + (f" (and {len(problems) - 3} more)" if len(problems) > 3 else "")
    return Verdict(kinds.pop() if len(kinds) == 1 else "invalid_input", None, shown or None)


def _problems(error: BaseException) -> list[Any]:
    listed = read(error, "errors")
    no_input = {"include_url": False, "include_context": False, "include_input": False}
    for options in (no_input, {}):  # FastAPI's and pydantic 1's take none
        try:
            return list(listed(**options))
        except TypeError:
            continue
        except AttributeError:
            break
    return []  # known by name only


def _told(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem.get("loc") or () if part not in ("body", "query", "path"))
    message = str(problem.get("msg") or "invalid")
    return f"{place}: {message}" if place else message
