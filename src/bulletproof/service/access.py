"""What a route gets from its request."""

from typing import TYPE_CHECKING, cast

from fastapi import Request
from python_multipart.multipart import parse_options_header

from bulletproof.errors import InputValidationError

if TYPE_CHECKING:
    from bulletproof.service.wiring import Services


def services_of(request: Request) -> "Services":
    """Return what the routes of this app work with."""
    return cast("Services", request.app.state.services)


async def known_query(request: Request) -> None:
    """Refuse a parameter that the route does not know: of a misspelt filter nobody would see that it does nothing.

    A route that has none takes any, which probes and proxies add to be sure that nothing answers from memory, and so
    does the one of the metrics: scrapers send parameters of their own.
    """
    if not request.query_params or request.url.path == "/metrics":
        return
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = next((name for name in request.query_params if name not in known), None)
    if known and unknown is not None:
        raise InputValidationError(f"unknown query parameter {unknown!r:.80}", hint=f"Known here: {', '.join(known)}.")


def form_problem(request: Request) -> InputValidationError | None:
    """Return what is wrong with a multipart form that was cut off, None when it is whole.

    A form ends with its boundary between two pairs of dashes (RFC 2046, section 5.1.1).
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary", b"")
    if b"--" + boundary + b"--" in getattr(request.state, "body_end", b""):
        return None
    return InputValidationError(
        "the multipart form is cut off: its closing boundary is missing",
        code="invalid_request",
        hint="Send the form again, whole.",
    )
