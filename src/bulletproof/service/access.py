"""What a route gets from its request."""

from typing import TYPE_CHECKING, cast

from fastapi import Request

if TYPE_CHECKING:
    from bulletproof.service.wiring import Services


def services_of(request: Request) -> "Services":
    """Return what the routes of this app work with."""
    return cast("Services", request.app.state.services)
