"""What goes wrong with a download, as errors of our own; ``classify`` decides what the libraries' errors mean."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bulletproof.errors import (
    AccessDeniedError,
    AIError,
    BadResponseError,
    ErrorType,
    ExternalServiceError,
    InputValidationError,
    NotFoundError,
    RateLimitedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    classify,
)
from bulletproof.errors.headers import parse_retry_after
from bulletproof.errors.http import Body, verdict_of
from bulletproof.errors.text import one_line
from bulletproof.fetch.address import Address, shown
from bulletproof.fetch.guard import Attempt, Guard

_CLASSES: dict[str, type[ExternalServiceError]] = {
    "rate_limited": RateLimitedError,
    "service_unavailable": ServiceUnavailableError,
    "service_timeout": ServiceTimeoutError,
    "bad_response": BadResponseError,
}
LOOK = "Open the address in a browser and use the one that it ends at; if it leads nowhere there either, leave it out."
LEAVE_OUT = "Leave the page out, or tell the site's owner: this does not get better by itself."
_LATER = frozenset({408, 409, 425, 429})
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def check_status(
    status: int, headers: Mapping[str, str], address: Address, *, now: Callable[[], datetime] | None = None
) -> None:
    """Raise what an HTTP status means for a page (RFC 9110 §15); 2xx and 304 pass.

    Worth another try are 408, 409, 425, 429 and most of 5xx; a status that answers nothing, such as 300 or 999, is not.
    """
    if 200 <= status < 300 or status == 304:
        return
    where: dict[str, Any] = {"url": shown(address), "http_status": status}
    if status in (404, 410):
        gone = "is not there any more" if status == 410 else "does not exist"
        raise NotFoundError(f"the page {gone} (HTTP {status})", **where)
    if status in (401, 403, 407):
        raise AccessDeniedError(
            f"the site does not let us read this page (HTTP {status})",
            code="unauthorized" if status == 401 else "forbidden",
            hint="Leave the page out, or ask the site's owner for access.",
            **where,
        )
    if 400 <= status < 500 and status not in _LATER:
        raise InputValidationError(
            f"the site refuses this address with HTTP {status}", hint="Look at the address in a browser.", **where
        )
    if not 400 <= status < 600:
        message = f"the site answers with HTTP {status}, which is no page"
        raise BadResponseError(message, hint=LOOK, retryable=False, **where)
    verdict = verdict_of(status, Body("", "", ""))
    raise _CLASSES[verdict.code](
        f"the site answers with HTTP {status}",
        retryable=verdict.retryable,
        retry_after=parse_retry_after(headers.get("Retry-After"), now=now),
        hint="The site asks to come back later." if verdict.retryable is not False else LEAVE_OUT,
        **where,
    )


@contextmanager
def translating(address: Address, attempt: Attempt) -> Iterator[None]:
    """Raise an error of our tree in place of one of aiohttp or the system; a bug is raised as it is."""
    try:
        yield
    except AIError as error:
        error.where.setdefault("url", shown(address))
        raise
    except Exception as error:
        if attempt.refusals and not attempt.tried:
            raise Guard.error(address, "; ".join(dict.fromkeys(attempt.refusals[:5]))) from error
        lookup = getattr(error, "os_error", None)
        if isinstance(lookup, socket.gaierror):
            raise _unknown_host(lookup, address) from error
        if type(error).__name__ == "ClientResponseError":
            raise _no_http(error, address) from error
        found = classify(error)
        if found.error_type is not ErrorType.EXTERNAL_SERVICE:
            raise
        raise _CLASSES.get(found.code, ExternalServiceError)(
            f"{address.site}: {_told(error) or found.details}",
            code=found.code,
            hint=found.hint,
            retryable=found.retryable,
            url=shown(address),
        ) from error


def _unknown_host(error: socket.gaierror, address: Address) -> AIError:
    if error.errno in _NO_SUCH_NAME:
        hint = "Check the spelling of the host; if it is right, check the name servers of this machine."
        return NotFoundError(f"there is no host {address.host}", hint=hint, url=shown(address))
    return ServiceUnavailableError(
        f"the host {address.host} cannot be looked up now: {one_line(str(error))}",
        hint="Check the network and the name servers of this machine.",
        url=shown(address),
    )


def _no_http(error: Exception, address: Address) -> BadResponseError:
    # What aiohttp's parser does not understand comes with a status of its own making; headers do not get smaller.
    said = one_line(str(getattr(error, "message", "")), limit=100).partition(":")[0]  # after it comes what was sent
    large = re.search("more than|too many", said, re.IGNORECASE) is not None
    what = "headers that are too large or too many" if large else "something that is no HTTP"
    more: dict[str, Any] = {"hint": LEAVE_OUT, "retryable": False} if large else {}
    return BadResponseError(f"{address.site} answers {what} ({said})", url=shown(address), **more)


def _told(error: BaseException) -> str:
    """What it says: of aiohttp's errors their message, which is not their whole text, and the system's words."""
    system = getattr(error, "os_error", error)
    if isinstance(system, OSError) and system.errno and "Connect call failed" in str(system):
        return os.strerror(system.errno)  # asyncio puts its own words in its place
    said = getattr(error, "message", None) or system
    return one_line(str(said) or type(error).__name__)
