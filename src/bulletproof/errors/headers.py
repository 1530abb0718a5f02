"""What a service says about trying again: ``Retry-After``, ``retry-after-ms``, ``x-should-retry``."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bulletproof.errors.reading import links, read

Now = Callable[[], datetime]

_NUMBER = re.compile(r"\d{1,12}(?:\.\d{0,9})?", re.ASCII)
_DATE = re.compile(r"[A-Za-z]{3,9},? ?[\x20-\x7e]{8,40}")
_LONGEST = 366 * 86400.0
_DEPTH = 16


def parse_retry_after(value: object, *, now: Now | None = None) -> float | None:
    """Read the value of a ``Retry-After`` header (RFC 9110 §10.2.3): seconds, or an HTTP date.

    Args:
        value: The header's text; numbers are taken as seconds.
        now: Gives the present moment (aware); only asked when the value is a date.

    Returns:
        Seconds to wait, above 0; None for nonsense, for no wait at all, for a moment in the past and for more than
        a year.

    Example:
        >>> parse_retry_after("120"), parse_retry_after("1.5"), parse_retry_after("-10"), parse_retry_after("inf")
        (120.0, 1.5, None, None)
        >>> parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=lambda: datetime(2015, 10, 21, 7, 27, tzinfo=UTC))
        60.0
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _sensible(value)
    if isinstance(value, bytes):
        value = value[:100].decode("latin-1")
    if not isinstance(value, str):
        return None
    text = value[:100].strip()
    if _NUMBER.fullmatch(text):
        return _sensible(float(text))
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _sensible((moment - (now or _utc)()).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # not a date after all


def retry_after_of(error: BaseException, *, now: Now | None = None) -> float | None:
    """Return how many seconds the other side asks to wait before another try.

    Looks at ``retry_after`` of our own errors, then at the headers of the response that an SDK's error carries
    (``retry-after-ms`` before ``Retry-After``, as the OpenAI SDK does), then at the causes.

    Args:
        error: Any exception.
        now: Gives the present moment (aware); only asked when the header holds a date.

    Returns:
        Seconds above 0, or None when nothing sensible was said.

    Example:
        >>> class Busy(Exception):
        ...     headers = {"Retry-After": "20"}
        >>> retry_after_of(Busy())
        20.0
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _DEPTH:
        seen.add(id(current))
        seconds = _retry_after(current, headers_of(current), now)
        if seconds is not None:
            return seconds
        if read(current, "code") == "circuit_open":
            return None  # None means that an operator holds it open; the cause's wish no longer matters
        cause, context = links(current)
        current = cause if cause is not None else context
    return None


def told_of(error: BaseException, *, now: Now | None = None) -> tuple[float | None, bool | None]:
    """Return how long this one exception says to wait, its causes left aside, and what ``should_retry_of`` says."""
    headers = headers_of(error)
    return _retry_after(error, headers, now), _should_retry(headers)


def _retry_after(error: BaseException, headers: Any, now: Now | None) -> float | None:
    seconds = parse_retry_after(read(error, "retry_after"), now=now)
    if seconds is not None:
        return seconds
    if headers is None:
        return None
    milliseconds = header(headers, "retry-after-ms")
    if isinstance(milliseconds, str) and _NUMBER.fullmatch(milliseconds.strip()):
        seconds = _sensible(float(milliseconds) / 1000.0)
        if seconds is not None:
            return seconds
    return parse_retry_after(header(headers, "retry-after"), now=now)


def should_retry_of(error: BaseException) -> bool | None:
    """Return what the service says in ``x-should-retry``; None when it says nothing.

    Example:
        >>> class Busy(Exception):
        ...     headers = {"x-should-retry": "false"}
        >>> should_retry_of(Busy()), should_retry_of(ValueError())
        (False, None)
    """
    return _should_retry(headers_of(error))


def _should_retry(headers: Any) -> bool | None:
    value = None if headers is None else header(headers, "x-should-retry")
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def headers_of(error: BaseException) -> Any:
    """Return the mapping of response headers that an SDK's error carries, or None."""
    response = read(error, "response")
    if response is None:
        response = read(error, "raw_response")
    if isinstance(response, dict):  # botocore
        metadata = response.get("ResponseMetadata")
        found = metadata.get("HTTPHeaders") if isinstance(metadata, dict) else None
    else:
        found = None if response is None else read(response, "headers")
    if found is None:
        found = read(error, "headers")
    return found


def header(headers: Any, name: str) -> Any:
    """Return a header's value, its name in any case; None when there is none."""
    try:
        value = headers.get(name)
        if value is None and isinstance(headers, dict):
            value = next((v for k, v in headers.items() if isinstance(k, str) and k.lower() == name), None)
    except Exception:  # noqa: BLE001 - headers may be an object of any kind
        return None
    return value


def _sensible(seconds: float) -> float | None:
    try:
        seconds = float(seconds)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds <= _LONGEST else None


def _utc() -> datetime:
    return datetime.now(UTC)
