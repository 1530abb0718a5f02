"""The ASGI app: where the rooms are wired together behind HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from bulletproof._version import __version__
from bulletproof.chaos import Chaos
from bulletproof.dashboard import mount
from bulletproof.errors import Diagnosis, InputValidationError, classify
from bulletproof.fetch.guard import Guard
from bulletproof.llm import LLMCall
from bulletproof.models import LoadedModels, ModelRegistry, ModelServer, open_runner
from bulletproof.monitor import AIErrorMonitor
from bulletproof.processor import AIDataProcessor, FileReport, default_analyzer, door_workers, error_answer
from bulletproof.resilience.shared import SharedState
from bulletproof.service import batches, docs, health, inference, kept, operate, predict, process, results
from bulletproof.service.access import form_problem, known_query
from bulletproof.service.callers import LOCAL, Callers
from bulletproof.service.doors import Doors
from bulletproof.service.exposition import published, refresh
from bulletproof.service.faults import chaos_of, jobs_with, put_into, warn_of
from bulletproof.service.gate import Gate
from bulletproof.service.hosts import TrustedHosts
from bulletproof.service.keys import KeyRing, key_ring, warning_of
from bulletproof.service.measures import Measures
from bulletproof.service.parts import llm_of
from bulletproof.service.quota import Meter, limits_of, metering
from bulletproof.service.refusals import Refusals
from bulletproof.service.responses import error_response
from bulletproof.service.retention import expiring
from bulletproof.service.sharing import shared_memory
from bulletproof.service.stopping import when_told_to_stop
from bulletproof.service.watermarks import Watermarks
from bulletproof.settings import Settings, load_settings

if TYPE_CHECKING:
    from bulletproof.jobs import BatchJobs
    from bulletproof.service.telemetry import Telemetry

logger = logging.getLogger("bulletproof.service")

_FORM_OVERHEAD = 64 * 1024
_OTHER_BODY = 2 * 2**20
_LAST_SECONDS = 3.0
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_HTTP_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "file_too_large",
}


@dataclass(slots=True)
class Services:
    """What the routes work with.

    Args:
        settings: The settings of the app.
        processor: Processes uploads.
        keys: Who may use the service.
        meter: How much callers have used.
        measures: Counts requests and records.
        doors: Bound the requests under way and waiting, and share places out among callers.
        models: Answers predictions.
        chaos: Faults put in on purpose; none by default.
        watermarks: Tell whether there is room for uploads.
        jobs: Runs batches of URLs; None where they are not installed.
        shared: Tells whether the other processes are reached.
        ready: False before the start and while stopping.
    """

    settings: Settings
    processor: AIDataProcessor
    keys: KeyRing
    meter: Meter
    measures: Measures
    doors: Doors
    models: ModelServer
    chaos: Chaos
    watermarks: Watermarks
    jobs: "BatchJobs | None" = None
    shared: SharedState | None = None
    ready: bool = field(default=False)

    def stop(self) -> None:
        """Take no more requests as far as probes are concerned, and end streams; safe in a signal handler."""
        self.ready = False
        if self.jobs is not None:
            self.jobs.end_streams()


def create_app(
    settings: Settings | None = None,
    processor: AIDataProcessor | None = None,
    *,
    telemetry: "Telemetry | None" = None,
) -> FastAPI:
    """Make the app.

    Args:
        settings: By default those of the environment.
        processor: By default one made from the settings; closed by the app only when the app made it.
        telemetry: Takes traces and metrics; by default one made from the environment if the settings want it.

    Returns:
        The ASGI app. Nothing is opened before it starts.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    settings = settings if settings is not None else load_settings()
    Guard(settings.fetch_allow_hosts, settings.fetch_allow_ports)  # what is wrong there is told now, not by a batch
    own = processor is None
    if processor is None:
        monitor = AIErrorMonitor()
        analyzer = default_analyzer(settings, monitor, workers=door_workers())
        processor = AIDataProcessor(settings=settings, analyzer=analyzer, monitor=monitor)
    keys = key_ring(settings)
    services = Services(
        settings,
        processor,
        keys,
        Meter(limits_of(settings)),
        Measures(),
        Doors(settings, sole=frozenset({LOCAL})),
        _model_server(settings, processor.monitor),
        chaos_of(settings),
        Watermarks(settings.data_dir, min_memory=settings.min_free_memory_bytes, min_disk=settings.min_free_disk_bytes),
    )
    if services.chaos.active:
        put_into(processor, services.chaos)

    if telemetry is None and settings.otel:
        from bulletproof.service.telemetry import Telemetry

        telemetry = Telemetry.from_environment()

    gates: list[Gate] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        try:
            await _open_store(services)
            async with (
                shared_memory(processor) as services.shared,
                published(services),
                expiring(processor.store, settings),
                metering(services.meter, processor.store),
                running_jobs(settings, processor, services.chaos) as services.jobs,
            ):
                with when_told_to_stop(services.stop):
                    services.ready = True
                    services.models.warm()
                    # Traces are to have every request, those too that are refused.
                    yield {"refusals": Refusals(gates[-1])} if gates and telemetry is None else {}
                    services.ready = False
        finally:
            services.ready = False
            if dashboard is not None:
                await dashboard.aclose()
            await _close_models(services)
            if own:
                await processor.aclose()
            if telemetry is not None:
                await asyncio.to_thread(telemetry.close)

    app = FastAPI(
        title="Bulletproof AI Processor",
        version=__version__,
        description="Send a JSON, CSV or text file; get every record analysed, stored and answered.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # An upload must not be sent twice, and a redirect has no form that a program could read.
        redirect_slashes=False,
        responses=docs.ERRORS,
        dependencies=[Depends(known_query)],
        # FastAPI's own instruments would tell the same a second time, and look for a taker at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    _watch(services, telemetry)
    # Each request looks through the routes in this order.
    for router in (
        predict.router,
        inference.router,
        process.router,
        batches.router,
        results.router,
        health.router,
        operate.router,
        kept.router,
    ):
        app.include_router(router)
    docs.add_pages(app)
    dashboard = mount(app, port=settings.dashboard_port)
    _add_error_handlers(app)

    def report(diagnosis: Diagnosis, request_id: str) -> None:
        processor.monitor.record_error(
            str(diagnosis.error_type),
            "service",
            str(diagnosis.severity),
            diagnosis.exception_chain[0] if diagnosis.code == "internal_error" else diagnosis.details,
            code=diagnosis.code,
            request_id=request_id,
        )

    def guarded(inner: ASGIApp) -> Gate:
        gates.append(gate(inner))
        return gates[-1]

    gate = partial(
        Gate,
        callers=Callers(keys, services.meter, TrustedHosts(settings.trusted_hosts)),
        doors=services.doors,
        check_room=services.watermarks.check,
        max_body=dict.fromkeys(("/process", "/batches"), settings.max_upload_bytes + _FORM_OVERHEAD)
        | {"": _OTHER_BODY},
        body_seconds=settings.upload_timeout,
        observe=services.measures.observe_request,
        report=report,
    )
    app.add_middleware(predict.Direct)
    app.add_middleware(guarded)
    if telemetry is not None:
        app.add_middleware(telemetry.middleware)
    return app


def _model_server(settings: Settings, monitor: AIErrorMonitor) -> ModelServer:
    registry = ModelRegistry(settings.data_dir / "models", default=settings.default_model)
    loaded = LoadedModels(open_runner, registry.folder_of, memory_bytes=settings.model_memory_bytes)
    return ModelServer(registry, loaded=loaded, monitor=monitor)


async def _close_models(services: Services) -> None:
    """Let predictions end that are still under way, and the models go; nothing that hangs holds the service up."""
    # The app may be started again.
    models, services.models = services.models, _model_server(services.settings, services.processor.monitor)
    await models.drain(_LAST_SECONDS)
    try:
        async with asyncio.timeout(_LAST_SECONDS):
            await models.aclose()
            await models.loaded.aclose()
    except TimeoutError:
        logger.warning("a model goes on beyond its time; it ends with this process")


@asynccontextmanager
async def running_jobs(
    settings: Settings, processor: AIDataProcessor, chaos: Chaos
) -> "AsyncIterator[BatchJobs | None]":
    """Run batches in this process, unless what they need is not installed or the store is somebody else's."""
    access = getattr(processor.store, "access", None)
    if access is None or find_spec("dbos") is None or find_spec("aiohttp") is None:
        yield None
        return
    jobs = jobs_with(settings, processor, chaos)
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.aclose(_LAST_SECONDS)


def _watch(services: Services, telemetry: "Telemetry | None") -> None:
    """Have files and LLM calls counted."""
    processor, measures = services.processor, services.measures
    if telemetry is not None:
        telemetry.follow(measures.counted, lambda: refresh(services))

    def on_file(report: FileReport) -> None:
        measures.observe_file(report)
        if telemetry is not None:
            telemetry.on_file(report)

    def on_call(call: LLMCall) -> None:
        measures.observe_llm(call)
        if telemetry is not None:
            telemetry.on_llm(call)

    processor.on_file = on_file
    llm = llm_of(processor)
    if llm is not None:
        llm.client.on_call = on_call


async def _open_store(services: Services) -> None:
    if not services.keys.wanted:
        logger.warning(
            "there are no API keys: only this machine may use the service; make one with 'bulletproof keys create' "
            "or set BULLETPROOF_API_KEYS to let others in"
        )
    if (guessable := warning_of(services.settings)) is not None:
        logger.warning(guessable)
    warn_of(services.chaos)
    try:
        await services.processor.store.open()
    except Exception as error:  # noqa: BLE001 -- a database that is down must not keep the service from starting
        diagnosis = classify(error)
        logger.error(
            "the database cannot be used now; results are answered but not stored until it can: %s",
            diagnosis.details,
            extra={"code": diagnosis.code, "hint": diagnosis.hint},
        )


def _add_error_handlers(app: FastAPI) -> None:
    def respond(request: Request, body: dict[str, Any], status: int, headers: Any = None) -> Response:
        request.state.code = body["code"]
        return error_response(
            body,
            request_id=request.state.request_id,
            accept=request.headers.get("accept", ""),
            status=status,
            headers=headers,
        )

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _HTTP_CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
        told = error.detail if error.status_code < 500 else ""
        details = {
            "not_found": f"there is nothing at {request.url.path!r}",
            "method_not_allowed": f"{request.method} is not possible at {request.url.path!r}",
        }.get(code, str(told))
        hint = _without_slash(request) if code == "not_found" else None
        problem = InputValidationError(details, code=code, hint=hint)
        headers = {"Allow": _methods_at(request)} if code == "method_not_allowed" else error.headers
        return respond(request, error_answer(classify(problem)), error.status_code, headers)

    async def invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problem = form_problem(request) or _problem_of(error.errors()[0])
        return respond(request, error_answer(classify(problem)), problem.spec.http_status)

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)


def _without_slash(request: Request) -> str | None:
    """Name the path that was meant, where there is one but for a slash at the end."""
    scope = {**request.scope, "path": request.scope["path"].rstrip("/")}
    if scope["path"] == request.scope["path"] or not _leads(request, scope, Match.PARTIAL):
        return None
    return f"Leave out the slash at the end: {scope['path']}"


def _leads(request: Request, scope: dict[str, Any], least: Match) -> bool:
    # Asked rather than read: a router that is included does not show its routes.
    return any(route.matches(scope)[0].value >= least.value for route in request.app.routes)


def _methods_at(request: Request) -> str:
    """Return what is possible at a path, by all routes that lead there (RFC 9110, section 10.2.1)."""
    return ", ".join(way for way in _METHODS if _leads(request, {**request.scope, "method": way}, Match.FULL))


def _problem_of(first: dict[str, Any]) -> InputValidationError:
    """Say in our words what FastAPI found wrong."""
    places = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    name = ".".join(places) or "body"
    if first["type"] in ("json_invalid", "value_error.jsondecode"):
        return InputValidationError("the body is not valid JSON", code="invalid_request")
    if name == "file":
        missing = first["type"] == "missing"
        return InputValidationError(
            "the form field 'file' is missing" if missing else "the form field 'file' holds text, not a file",
            code="missing_field" if missing else "invalid_input",
            hint="Send the file as multipart form: curl -F file=@reviews.csv .../process",
        )
    code = "missing_field" if first["type"] == "missing" else "invalid_input"
    return InputValidationError(f"{name}: {first['msg']}", code=code)
