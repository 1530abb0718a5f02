"""What operators look at and do: breakers, errors, recent runs."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from bulletproof.errors import AccessDeniedError, NotFoundError
from bulletproof.service.access import services_of
from bulletproof.service.callers import LOCAL
from bulletproof.service.parts import all_breakers
from bulletproof.service.peers import is_loopback
from bulletproof.service.responses import Answer
from bulletproof.service.schemas import Breaker, Breakers, Errors, OneError, Runs

router = APIRouter(tags=["operation"])

_SAMPLES = 20
_REMEMBERED = 1000
ASKED_BY = Annotated[
    str | None, Header(max_length=100, description="Any value; needed unless the content type is JSON.")
]
_ERROR_TYPES = Literal["validation_error", "resource_error", "model_error", "external_service_error"]


@router.get("/breakers", response_model=Breakers, summary="The circuit breakers")
async def get_breakers(request: Request) -> Response:
    """Return the figures of every breaker by its name."""
    breakers = all_breakers(services_of(request))
    return Answer({"status": "success", "breakers": {name: one.get_metrics() for name, one in breakers.items()}})


@router.post("/breakers/{name}/{action}", response_model=Breaker, summary="Steer a circuit breaker")
async def steer_breaker(
    request: Request,
    name: Annotated[str, Path(max_length=200, description="As GET /breakers names it.")],
    action: Annotated[
        Literal["force-open", "reset", "enable", "disable", "shadow"],
        Path(
            description="force-open refuses every call; disable lets every call through; shadow does so too and "
            "reports when it would have opened; enable ends these three; reset closes it as if new."
        ),
    ],
    x_requested_with: ASKED_BY = None,
) -> Response:
    """Act on one breaker and return its new figures; the other processes follow within a second.

    The request needs a JSON content type or the header X-Requested-With. A page of another site can make a browser
    send a form here, but neither of these without asking first, which the service never allows.
    """
    refuse_other_sites(request, x_requested_with)
    breaker = all_breakers(services_of(request)).get(name)
    if breaker is None:
        raise NotFoundError(f"there is no breaker {name!r:.80}", hint="GET /breakers names those there are.")
    getattr(breaker, action.replace("-", "_"))()
    return Answer({"status": "success", "breaker": breaker.get_metrics()})


@router.get("/errors", response_model=Errors, summary="The latest errors")
async def get_errors(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=_REMEMBERED, description="Largest number of errors.")] = 100,
    service: Annotated[
        str | None,
        Query(max_length=200, description="Only those of this part, as by_service names it."),
    ] = None,
    error_type: Annotated[_ERROR_TYPES | None, Query(description="Only those of this type.")] = None,
) -> Response:
    """Return the latest errors of all processes, the newest first; secrets were taken out when they were recorded."""
    recent = services_of(request).processor.monitor.recent(_REMEMBERED, service=service)
    found = (event for event in recent if error_type in (None, event.error_type))
    return Answer({"status": "success", "errors": [event.as_dict() for event in islice(found, limit)]})


@router.get("/errors/{fingerprint}", response_model=OneError, summary="One kind of error")
async def get_error(
    request: Request,
    fingerprint: Annotated[str, Path(max_length=64, description="As GET /errors and top_errors name it.")],
    samples: Annotated[int, Query(ge=0, le=100, description="Largest number of samples.")] = _SAMPLES,
) -> Response:
    """Return how often errors of this kind came, when first and last, and samples of them, the newest first."""
    monitor = services_of(request).processor.monitor
    known = monitor.explain_error(fingerprint)
    if known is None:
        raise NotFoundError(
            f"no error of the kind {fingerprint!r:.80} is remembered",
            hint="It may be older than the retention, or too rare to be told apart; GET /errors lists the latest.",
        )
    events = monitor.recent(samples, fingerprint=fingerprint)
    return Answer({"status": "success", **known, "samples": [event.as_dict() for event in events]})


@router.get("/runs", response_model=Runs, summary="The latest runs")
async def get_runs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000, description="Largest number of runs.")] = 20,
) -> Response:
    """Return the files that were processed for the caller's own key, the last one first."""
    runs = await services_of(request).processor.store.recent_runs(limit, owner=request.state.caller.name)
    return Answer({"status": "success", "runs": [_shown(asdict(run)) for run in runs]})


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    del run["owner"]
    return run | {"results": f"/results/{run['processing_id']}"}


def refuse_other_sites(request: Request, x_requested_with: str | None) -> None:
    """Raise ``AccessDeniedError`` for a request that a page of another site could make a browser send."""
    headers = request.headers
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    asked = bool(x_requested_with) or content_type == "application/json"
    # Browsers say where a request comes from; other programs do not, and need not.
    if asked and headers.get("sec-fetch-site", "none") in ("none", "same-origin") and _is_own_page(request):
        return
    raise AccessDeniedError(
        "nothing is changed by a request that a page of another site could make a browser send",
        code="forbidden",
        hint="Send the header X-Requested-With: bulletproof, or Content-Type: application/json.",
    )


def _is_own_page(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        page = urlsplit(origin)
        host = page.hostname or ""
    except ValueError:
        return False
    # Without keys being on this machine is all that is asked for, and any name can be made to lead here.
    named_well = request.state.caller.name != LOCAL or is_loopback(host)
    return named_well and page.netloc == request.headers.get("host")
