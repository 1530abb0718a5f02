"""``/health`` and ``/metrics``: is it well, and what has happened."""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from bulletproof._version import __version__
from bulletproof.errors import AIError, classify
from bulletproof.models import ModelServer
from bulletproof.processor import AIDataProcessor
from bulletproof.service.access import services_of
from bulletproof.service.exposition import expose, refresh
from bulletproof.service.figures import figures_of
from bulletproof.service.parts import all_breakers, breakers_of, llm_of
from bulletproof.service.responses import Answer
from bulletproof.service.schemas import Health, Live, Metrics
from bulletproof.store import ResultStore

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
        "analyzer": _analyzer(services.processor),
        "models": _models(services.models),
        "sharing": _sharing(request),
        "keys": _told(services.keys.problem),
        "resources": _told(services.watermarks.problem()),
    }
    if services.chaos.active:
        told = "faults are put in on purpose (BULLETPROOF_CHAOS)"
        components["chaos"] = {"status": "degraded", "details": told, **services.chaos.report()}
    breakers = _breakers(request)
    errors = services.processor.monitor.explain_health()
    faults = [(item["status"], f"{name}: {item['details']}") for name, item in components.items() if "details" in item]
    faults += [
        ("degraded", f"the circuit {name} is {item['state'].replace('_', ' ')}")
        for name, item in breakers.items()
        if item["state"] in ("open", "forced_open")
    ]
    found = [errors["status"], *(item["status"] for item in components.values()), *(status for status, _ in faults)]
    status = _worst(found)
    body: dict[str, Any] = {"status": status}
    if request.state.caller.known:
        body |= {
            "reasons": [reason for _, reason in faults] + (errors["reasons"] if errors["status"] == status else []),
            "components": components,
            "breakers": breakers,
            "errors": errors,
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
    monitor = services.processor.monitor
    exposition = await expose(services, request.headers.get("accept", ""))
    if exposition is not None:
        return Response(exposition[0], headers={"Vary": "Accept"}, media_type=exposition[1])
    refresh(services)
    return Answer(
        {
            "status": "success",
            **monitor.get_error_summary(hours=hours),
            "timeline": monitor.timeline(hours=hours),
            "health": monitor.explain_health(),
            "breakers": _breakers(request),
            **figures_of(services.measures.families()),
        },
        headers={"Vary": "Accept"},
    )


async def _store(request: Request) -> dict[str, Any]:
    store = services_of(request).processor.store
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            await store.ping()
        # Used again, but not as it was: somebody has to know until it is seen to.
        if isinstance(store, ResultStore) and (problem := await asyncio.to_thread(store.access.left_aside)):
            raise problem
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer
        diagnosis = classify(error)
        return {"status": "degraded", "code": diagnosis.code, "details": diagnosis.details, "hint": diagnosis.hint}
    return {"status": "healthy"}


def _told(problem: AIError | None) -> dict[str, Any]:
    if problem is None:
        return {"status": "healthy"}
    return {"status": "degraded", "code": problem.code, "details": problem.message, "hint": problem.hint}


def _analyzer(processor: AIDataProcessor) -> dict[str, Any]:
    found: dict[str, Any] = {"status": "healthy", "name": processor.analyzer.name}
    breaker = breakers_of(processor).get("llm")
    if llm_of(processor) is not None and breaker is not None and breaker.state.value in ("open", "forced_open"):
        found |= {"status": "degraded", "note": "the LLM is not asked while its circuit is open"}
    return found


def _models(models: ModelServer) -> dict[str, Any]:
    """Say which versions are loaded, which cannot be, and which need not even be tried."""
    found = models.loaded.health()
    broken = {
        f"{model.name}:{item.version}": item.problem
        for model in models.registry.models()
        for item in model.versions
        if item.manifest is None
    }
    if broken:
        told = [f"{name.replace(':', ' ')}: {problem}" for name, problem in broken.items()]
        found["status"] = "degraded"
        found["details"] = "; ".join([*([found["details"]] if "details" in found else []), *told])
        found["versions"] |= {name: {"state": "failed", "details": problem} for name, problem in broken.items()}
    return found


def _sharing(request: Request) -> dict[str, Any]:
    shared = services_of(request).shared
    if shared is None:
        return {"status": "healthy"}
    status = shared.status()
    if status["reachable"] is not False:
        return {"status": "healthy"}
    return {
        "status": "degraded",
        "details": "errors and circuits of other processes are not known: this one goes on alone",
        "since": status["since"].isoformat(),
    }


def _breakers(request: Request) -> dict[str, dict[str, Any]]:
    breakers = all_breakers(services_of(request))
    return {name: breaker.get_metrics() for name, breaker in breakers.items()}


def _worst(statuses: list[str]) -> str:
    order = ("healthy", "degraded", "critical")
    return max(statuses, key=order.index)
