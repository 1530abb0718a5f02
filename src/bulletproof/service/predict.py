"""``POST /predict``: numbers in, what a model says of them out; and ``GET /models``."""

import asyncio
import re
import time
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Path, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bulletproof.errors import AIError, DeadlineExceededError, InputValidationError, classify
from bulletproof.models import Manifest, ModelInfo, ModelRegistry, VersionInfo
from bulletproof.models.requests import PredictionResponse
from bulletproof.models.server import Prediction
from bulletproof.processor import error_answer
from bulletproof.service.access import services_of
from bulletproof.service.attending import HUNG_UP, while_connected
from bulletproof.service.json_body import json_object, kind_of
from bulletproof.service.responses import Answer, error_response
from bulletproof.service.schemas import ModelAnswer, Models, ModelVersion, Predictions

T = TypeVar("T")

router = APIRouter(tags=["predict"])

_FIELDS = ("input_data", "model_version", "model")
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 86400.0
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+")
TIMEOUT_HEADER = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds that the answer may take, from the first byte of the body on. A prediction takes at most "
    "what the model's limits allow, which is the default; more than that is taken for that.",
    "schema": {"type": "number", "minimum": _LEAST_SECONDS},
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["input_data"],
                "additionalProperties": False,
                "properties": {
                    "input_data": {
                        "description": "One row of numbers, or a list of rows, as the model's schema has them.",
                        "anyOf": [
                            {"type": "array", "minItems": 1, "items": {"type": "number"}},
                            {
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
                            },
                        ],
                    },
                    "model_version": {"type": "string", "description": "The version to ask; the active one if absent."},
                    "model": {"type": "string", "description": "The model to ask; by default that of the settings."},
                },
            },
            "examples": {
                "row": {"value": {"input_data": [5.1, 3.5, 1.4, 0.2], "model_version": "v1.0"}},
                "rows": {"value": {"input_data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}},
            },
        }
    },
}


@router.post(
    "/predict",
    response_model=PredictionResponse | Predictions,
    summary="Predict a row, or several",
    openapi_extra={"requestBody": _BODY, "parameters": [TIMEOUT_HEADER]},
)
async def predict(request: Request) -> Response:
    """Ask a model for a prediction of one row of numbers, or of a list of rows.

    The row is checked against the model's own schema, the answer against what the model may answer. A model that hangs
    is a 504, one that crashes or needs too much memory a 503, and the next request is answered.
    """
    answer = await _predict(request)
    return answer if isinstance(answer, Response) else Response(answer, media_type="application/json")


async def _predict(request: Request) -> bytes | Response:
    started = time.perf_counter()
    asked: dict[str, Any] = {}
    try:
        timeout = timeout_of(request)
        asked = _checked(await in_time(json_object(request, _FIELDS), timeout))
        left = left_of(timeout, started)
        found = await ask(request, asked["input_data"], asked.get("model"), asked.get("model_version"), left)
    except Exception as error:  # noqa: BLE001 -- each of them has a typed answer
        return failure(request, error, asked.get("model"), asked.get("model_version"), started)
    services_of(request).measures.observe_prediction(found.model, found.model_version, time.perf_counter() - started)
    return orjson.dumps(_body(found))


@router.get("/models", response_model=Models, summary="The models")
async def get_models(request: Request) -> Response:
    """Return the models there are, their versions, and how each is."""
    services = services_of(request)
    states = services.models.loaded.health()["versions"]
    found = [_described(model, states) for model in services.models.registry.models()]
    return Answer(
        {
            "status": "success",
            "default": services.models.default_model,
            "models": found,
            "trials": services.models.reports(),
        }
    )


@router.get("/models/{name}", response_model=ModelAnswer, summary="One model")
async def get_model(request: Request, name: Annotated[str, Path(max_length=200)]) -> Response:
    """Return the versions of a model, and how each is."""
    services = services_of(request)
    states = services.models.loaded.health()["versions"]
    found = next((model for model in services.models.registry.models() if model.name == name), None)
    if found is None:
        services.models.registry.manifest(name)  # says what there is
        raise AssertionError(name)
    return Answer({"status": "success", "model": _described(found, states)})


@router.get("/models/{name}/{version}", response_model=ModelVersion, summary="One version of a model")
async def get_version(
    request: Request, name: Annotated[str, Path(max_length=200)], version: Annotated[str, Path(max_length=200)]
) -> Response:
    """Return what goes into a version, what comes out, its limits, and how it is."""
    services = services_of(request)
    manifest: Manifest = services.models.registry.manifest(name, version)
    state = services.models.loaded.health()["versions"].get(f"{name}:{version}", {"state": "not loaded"})
    described = manifest.model_dump(mode="json", exclude={"file", "url"})
    return Answer({"status": "success", **described, "state": state})


class Direct:
    """Leads ``POST /predict`` past the router, whose work for a route costs more than a small model.

    Args:
        app: All the rest; it has the same route, for whoever mounts the app below a path of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._route = next(route for route in router.routes if isinstance(route, Route) and route.path == "/predict")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] != "/predict" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"] = self._route
        answer = await _predict(Request(scope, receive))
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def ask(request: Request, rows: Any, model: str | None, version: str | None, timeout: float | None) -> Prediction:
    """Ask the model server; give up when the client hangs up."""
    services = services_of(request)
    work = services.models.predict(rows, model=model, version=version, timeout=timeout)
    found = await while_connected(work, request.receive)
    services.meter.add(request.state.subject, "records", len(found.predictions))
    return found


def failure(
    request: Request,
    error: Exception,
    model: str | None,
    version: str | None,
    started: float | None,
    *,
    tell: bool = False,
) -> Response:
    """Answer a prediction that failed, and count it.

    Args:
        request: The request.
        error: Why; the model server has logged and recorded what came from it.
        model: The model asked for.
        version: The version asked for.
        started: When it began, by ``time.perf_counter``; None for what was no prediction.
        tell: Whether ``error`` in the answer says all, for clients that read nothing else.

    Returns:
        The typed answer.
    """
    services, state = services_of(request), request.state
    diagnosis = classify(error)
    if started is not None:
        known = _known(services.models.registry, model, version)
        services.measures.observe_prediction(*known, time.perf_counter() - started, outcome=diagnosis.code)
    state.code = diagnosis.code
    if isinstance(error, ClientDisconnect):
        return Response(status_code=HUNG_UP)
    state.failure_logged = not isinstance(error, InputValidationError)
    body = error_answer(diagnosis)
    if tell:
        body["error"] = f"{diagnosis.title}: {diagnosis.details}"
    return error_response(
        body,
        request_id=state.request_id,
        accept=request.headers.get("accept", ""),
        status=diagnosis.http_status,
    )


def timeout_of(request: Request) -> float | None:
    """Return the seconds that the client gives us; of more than a day a day.

    Raises:
        InputValidationError: They are none.
    """
    given = request.headers.get("x-request-timeout")
    if given is None:
        return None
    if not _DECIMAL.fullmatch(given) or (seconds := float(given)) < _LEAST_SECONDS:
        raise InputValidationError(
            f"X-Request-Timeout is {given!r:.40}, not a number of seconds such as 2 or 0.5, from {_LEAST_SECONDS} on",
            code="invalid_request",
            field="X-Request-Timeout",
        )
    return min(seconds, _MOST_SECONDS)


async def in_time(reading: Awaitable[T], timeout: float | None) -> T:
    """Await the reading of a body for as long as the client gives us.

    Args:
        reading: What to await.
        timeout: Seconds; None for as long as the service waits for any body.

    Raises:
        InputValidationError: ``request_timeout``: it has not come in time.
    """
    if timeout is None:
        return await reading
    try:
        async with asyncio.timeout(timeout):
            return await reading
    except TimeoutError as expiry:
        if isinstance(expiry, AIError):
            raise
        raise InputValidationError(
            f"the body had not arrived within the {timeout:g} s of X-Request-Timeout",
            code="request_timeout",
            hint="Send the body without long pauses, or allow more time with X-Request-Timeout.",
        ) from expiry


def left_of(timeout: float | None, started: float) -> float | None:
    """Return what is left of the seconds that the client gives us.

    Args:
        timeout: The seconds; None for no limit.
        started: When the request began, by ``time.perf_counter``.

    Raises:
        DeadlineExceededError: Nothing.
    """
    if timeout is None:
        return None
    left = timeout - (time.perf_counter() - started)
    if left <= 0:
        raise DeadlineExceededError(f"reading the request took the {timeout:g} s of X-Request-Timeout")
    return left


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if "input_data" not in asked:
        raise InputValidationError(
            "the field 'input_data' is missing",
            code="missing_field",
            hint='Send a row of numbers: {"input_data": [5.1, 3.5, 1.4, 0.2]}.',
            field="input_data",
        )
    for name in ("model_version", "model"):
        if not isinstance(asked.get(name, ""), str):
            raise InputValidationError(
                f"{name} must be a text such as {'v1.0' if name == 'model_version' else 'iris'!r}, "
                f"not {kind_of(asked[name])}",
                field=name,
            )
    return asked


def _body(found: Prediction) -> dict[str, Any]:
    rows = [
        {"prediction": row.prediction, "confidence": row.confidence, "label": row.label}
        if row.label is not None
        else {"prediction": row.prediction, "confidence": row.confidence}
        for row in found.predictions
    ]
    what: dict[str, Any] = rows[0] if found.single else {"predictions": rows}
    what["model_version"] = found.model_version
    what["status"] = "success"
    what["model"] = found.model
    return what


def _known(registry: ModelRegistry, model: str | None, version: str | None) -> tuple[str, str]:
    """Return what to count a failure under: names come from callers, and only those there are get a series."""
    try:
        manifest = registry.manifest(model, version)
    except AIError:
        return "unknown", "unknown"
    return manifest.name, manifest.version


def _described(model: ModelInfo, states: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": model.name,
        "active": model.active,
        "candidate": None if model.candidate is None else model.candidate.model_dump(mode="json"),
        "problem": model.problem or None,
        "versions": [_version(item, states.get(f"{model.name}:{item.version}")) for item in model.versions],
    }


def _version(item: VersionInfo, state: dict[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"version": item.version, "bundled": item.bundled}
    if item.manifest is None:
        return found | {"state": {"state": "failed", "details": item.problem}}
    manifest = item.manifest
    about = {"type": manifest.type, "description": manifest.description, "isolated": manifest.isolated}
    return found | about | {"state": state or {"state": "not loaded"}}
