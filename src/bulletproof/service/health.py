"""``/health`` and ``/metrics``: is it well, and what has happened."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from starlette.responses import Response

from bulletproof._version import __version__
from bulletproof.errors import classify
from bulletproof.service.access import services_of
from bulletproof.service.responses import Answer
from bulletproof.service.schemas import Health, Live, Metrics

router = APIRouter(tags=["operation"])

_STARTED = time.monotonic()
_STORE_SECONDS = 2.0


@router.get("/health/live", response_model=Live, summary="The process answers")
async def live() -> Response:
    """Answer at once; for liveness probes."""
    return Answer({"status": "alive"})


@router.get("/health/ready", response_model=Live, summary="The service takes requests")
async def ready(request: Request) -> Response:
    """Answer 200 while requests are taken, 503 while starting or stopping; for readiness probes."""
    if services_of(request).ready:
        return Answer({"status": "ready"})
    return Answer({"status": "stopping"}, status_code=503, headers={"Retry-After": "5"})


@router.get("/health", response_model=Health, summary="How the service is", responses={503: {"model": Health}})
async def health_check(request: Request) -> Response:
    """Return the health and its reasons; 503 when it is critical. Details are for known callers only."""
    services = services_of(request)
    components = {
        "store": await _store(request),
        "analyzer": {"status": "healthy", "name": services.processor.analyzer.name},
    }
    breakers = _breakers(request)
    errors = services.processor.monitor.get_health_status()
    status = _worst([errors, *(item["status"] for item in components.values())])
    if any(item["state"] in ("open", "forced_open") for item in breakers.values()):
        status = _worst([status, "degraded"])
    body: dict[str, Any] = {"status": status}
    if request.state.caller.known:
        body |= {
            "components": components,
            "breakers": breakers,
            "errors": {"status": errors},
            "version": __version__,
            "uptime_s": round(time.monotonic() - _STARTED, 1),
        }
    return Answer(body, status_code=503 if status == "critical" else 200)


@router.get("/metrics", response_model=Metrics, summary="What has happened")
async def get_metrics(
    request: Request,
    hours: Annotated[int, Query(ge=1, le=24, description="Length of the window for errors, in hours.")] = 1,
) -> Response:
    """Return errors, breakers, latencies and counts: JSON, or the Prometheus forms when Accept names them."""
    services = services_of(request)
    accept = request.headers.get("accept", "")
    vary = {"Vary": "Accept"}
    if "application/openmetrics-text" in accept:
        return Response(
            await asyncio.to_thread(generate_openmetrics, services.measures.registry),
            headers=vary,
            media_type=OPENMETRICS,
        )
    if "text/plain" in accept:
        return Response(
            await asyncio.to_thread(generate_latest, services.measures.registry),
            headers=vary,
            media_type=CONTENT_TYPE_LATEST,
        )
    summary = services.processor.monitor.get_error_summary(hours=hours)
    return Answer(
        {"status": "success", **summary, "breakers": _breakers(request), **services.measures.as_dict()},
        headers=vary,
    )


async def _store(request: Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            await services_of(request).processor.store.ping()
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer
        diagnosis = classify(error)
        return {"status": "degraded", "code": diagnosis.code, "details": diagnosis.details, "hint": diagnosis.hint}
    return {"status": "healthy"}


def _breakers(request: Request) -> dict[str, dict[str, Any]]:
    processor = services_of(request).processor
    # A chain without an LLM has a breaker too, but nothing behind it.
    parts = [part for part in (processor.analyzer, processor.store) if getattr(part, "primary", part) is not None]
    breakers = [breaker for part in parts if (breaker := getattr(part, "breaker", None)) is not None]
    return {breaker.service_name: breaker.get_metrics() for breaker in breakers}


def _worst(statuses: list[str]) -> str:
    order = ("healthy", "degraded", "critical")
    return max(statuses, key=order.index)
