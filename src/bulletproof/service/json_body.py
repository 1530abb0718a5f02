"""JSON bodies, read strictly: what is wrong with one is said, and nothing in it is quietly dropped."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from bulletproof.errors import InputValidationError
from bulletproof.ingest import IngestLimits
from bulletproof.ingest.strict_json import WHITESPACE, Flaw, StrictDecoder

_THREAD_BYTES = 64 * 1024  # from here on careful reading would hold other requests up
# What is too large for a number is for whoever knows what it was meant for; Python reads no longer ones.
_LIMITS = IngestLimits(max_integer_digits=4000)


async def json_object(request: Request, fields: Sequence[str], body: bytes | None = None) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Args:
        request: The request.
        fields: Names that the object may have.
        body: What to read instead of the whole body.

    Returns:
        The object; NaN and Infinity come through as floats, for whoever knows what the number was meant for.

    Raises:
        InputValidationError: It is none, a name comes twice, or one is not known.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InputValidationError(
            "the body is compressed", code="unsupported_format", hint="Send it as plain JSON, without Content-Encoding."
        )
    text = await body_of(request) if body is None else body
    try:
        found = orjson.loads(text)
        careful = _may_hide_something(text, found, fields)
    except orjson.JSONDecodeError:
        careful = True
    if careful:
        found = await asyncio.to_thread(read_carefully, text) if len(text) > _THREAD_BYTES else read_carefully(text)
    if not isinstance(found, dict):
        raise InputValidationError(f"the body is {kind_of(found)}, not an object", hint=_hint(fields))
    if not found.keys() <= set(fields):
        unknown = next(name for name in found if name not in fields)
        raise InputValidationError(f"unknown field {unknown!r:.80}", hint=_hint(fields))
    return found


async def body_of(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        ClientDisconnect: The client hung up before all of it was there.
    """
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def read_carefully(body: bytes) -> Any:
    """Decode one JSON value, and say what is wrong and where if it is none.

    Args:
        body: The text as UTF-8.

    Returns:
        The value; NaN and Infinity come through as floats.

    Raises:
        InputValidationError: ``invalid_request``: not UTF-8, not JSON, or a name that comes twice.

    Example:
        >>> read_carefully(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.InputValidationError: the field 'a' comes twice
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _broken(f"byte {error.start + 1} is not UTF-8") from error
    start = len(text) - len(text.lstrip(WHITESPACE))
    if start == len(text):
        raise _broken("it is empty")
    decoder = StrictDecoder(_LIMITS, constants=True)
    try:
        value, end = decoder.decode(text, start)
    except Flaw as flaw:
        raise _broken(f"{flaw.message} ({_place(text, flaw.pos)})") from flaw
    rest = text[end:].lstrip(WHITESPACE)
    if rest:
        raise _broken(f"there is more after its end ({_place(text, len(text) - len(rest))})")
    if decoder.duplicates:
        raise InputValidationError(
            f"the field {decoder.duplicates[0]!r:.80} comes twice", code="invalid_request", hint="Send each field once."
        )
    return value


def kind_of(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    if value is None:
        return "null"
    kinds = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "something else")


def _may_hide_something(body: bytes, found: Any, fields: Sequence[str]) -> bool:
    """Tell whether a name may come twice: this reader keeps the last and says nothing."""
    if not isinstance(found, dict) or b"\\" in body:
        return True
    return any(body.count(b'"%b"' % name.encode()) > 1 for name in fields) or not found.keys() <= set(fields)


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - text.rfind(chr(10), 0, position)}"


def _broken(why: str) -> InputValidationError:
    return InputValidationError(
        f"the body is not valid JSON: {why}", code="invalid_request", hint="Correct the JSON at the place named."
    )


def _hint(fields: Sequence[str]) -> str:
    return f"Send an object with the fields {json.dumps(list(fields))[1:-1]}."
