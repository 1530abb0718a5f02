"""The Open Inference Protocol, version 2, over REST: what clients of Triton, KServe and MLServer speak.

https://github.com/kserve/open-inference-protocol, with the extension for binary tensor data.
"""

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from bulletproof._version import __version__
from bulletproof.errors import AIError, InputValidationError
from bulletproof.models.server import Prediction
from bulletproof.service.access import services_of
from bulletproof.service.json_body import body_of, json_object
from bulletproof.service.predict import TIMEOUT_HEADER, ask, failure, in_time, left_of, timeout_of
from bulletproof.service.responses import Answer
from bulletproof.service.tensors import INPUT, as_bytes, parameters_of, rows_of, tensor

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

_FIELDS = ("id", "inputs", "parameters", "outputs")
_LENGTH = "Inference-Header-Content-Length"
_MICROSECONDS = 1e-6
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "enum": [INPUT]},
        "shape": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "examples": ["FP32", "FP64", "INT64"]},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR},
                    "parameters": {"type": "object"},
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string", "enum": ["prediction", "confidence", "label"]}},
                        },
                    },
                },
            },
            "example": {"inputs": [{"name": INPUT, "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]},
        }
    },
}
_INFER: dict[str, Any] = {"requestBody": _BODY, "parameters": [TIMEOUT_HEADER]}
Name = Annotated[str, Path(max_length=200)]


@router.get("", summary="What this server is")
async def server_metadata() -> Response:
    """Return name, version and extensions."""
    return Answer({"name": "bulletproof", "version": __version__, "extensions": ["binary_tensor_data"]})


@router.get("/health/live", summary="The process answers")
async def live() -> Response:
    """Answer at once."""
    return Answer({"live": True})


@router.get("/health/ready", summary="The service takes requests")
async def ready(request: Request) -> Response:
    """Answer 200 while requests are taken."""
    return _readiness({}, services_of(request).ready)


@router.get("/models/{name}", summary="What a model takes and gives")
@router.get("/models/{name}/versions/{version}", summary="What a version of a model takes and gives")
async def model_metadata(request: Request, name: Name, version: Name | None = None) -> Response:
    """Return the tensors of a model; without a version those of the active one."""
    registry = services_of(request).models.registry
    try:
        manifest = registry.manifest(name, version)
        found = next(model for model in registry.models() if model.name == name)
    except AIError as error:
        return failure(request, error, name, version, None, tell=True)
    columns = _outputs_of(manifest.output.kind == "classification")
    outputs = [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in columns.items()]
    return Answer(
        {
            "name": name,
            "versions": [item.version for item in found.versions],
            "platform": manifest.type,
            "inputs": [{"name": INPUT, "datatype": "FP64", "shape": [-1, len(manifest.input.features)]}],
            "outputs": outputs,
            "parameters": {
                "model_version": manifest.version,
                "features": [feature.name for feature in manifest.input.features],
                "classes": list(manifest.output.classes),
            },
        }
    )


@router.get("/models/{name}/ready", summary="A model can be asked")
@router.get("/models/{name}/versions/{version}/ready", summary="A version of a model can be asked")
async def model_ready(request: Request, name: Name, version: Name | None = None) -> Response:
    """Answer 200 unless the version is broken or could not be loaded."""
    models = services_of(request).models
    try:
        manifest = models.registry.manifest(name, version)
    except AIError as error:
        return failure(request, error, name, version, None, tell=True)
    state = models.loaded.health()["versions"].get(f"{name}:{manifest.version}", {})
    return _readiness({"name": name}, services_of(request).ready and state.get("state") != "failed")


@router.post("/models/{name}/infer", summary="Infer by a model", openapi_extra=_INFER)
@router.post("/models/{name}/versions/{version}/infer", summary="Infer by a version of a model", openapi_extra=_INFER)
async def infer(request: Request, name: Name, version: Name | None = None) -> Response:
    """Ask a model: one input with all features, and as outputs prediction, confidence and, of a classifier, label."""
    started = time.perf_counter()
    try:
        allowed = timeout_of(request)
        body, tail = await in_time(_split(request), allowed)
        asked = await json_object(request, _FIELDS, body)
        wanted = _wanted(asked)
        rows = rows_of(asked.get("inputs"), tail)
        left = left_of(_timeout(parameters_of(asked), allowed), started)
        found = await ask(request, rows, name, version, left)
        answer = _answer(found, asked, wanted)
    except Exception as error:  # noqa: BLE001 -- each of them has a typed answer
        return failure(request, error, name, version, started, tell=True)
    services_of(request).measures.observe_prediction(found.model, found.model_version, time.perf_counter() - started)
    return answer


async def _split(request: Request) -> tuple[bytes, bytes]:
    """Return the JSON of a request and the bytes of its tensors behind it."""
    body, given = await body_of(request), request.headers.get(_LENGTH)
    if given is None:
        return body, b""
    if not (given.isascii() and given.isdigit() and len(given) < 12 and int(given) <= len(body)):
        raise InputValidationError(
            f"{_LENGTH} is {given!r:.40}, and the body has {len(body):,} bytes", code="invalid_request"
        )
    return body[: int(given)], body[int(given) :]


def _wanted(asked: dict[str, Any]) -> dict[str, bool] | None:
    """Return the outputs asked for and whether each is to come as bytes; None for all of them."""
    if not isinstance(asked.get("id", ""), str):
        raise InputValidationError("id must be a text", field="id")
    outputs = asked.get("outputs")
    if not outputs and isinstance(outputs, list | None):
        return None
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise InputValidationError("outputs must be a list of objects, each with a name", field="outputs")
    binary = parameters_of(asked).get("binary_data_output") is True
    wanted: dict[str, bool] = {}
    for one in outputs:
        parameters = parameters_of(one)
        if "classification" in parameters:
            raise InputValidationError("the classification extension is not supported", hint="Ask for 'label'.")
        wanted[str(one.get("name"))] = parameters.get("binary_data", binary) is True
    return wanted


def _timeout(parameters: dict[str, Any], by_header: float | None) -> float | None:
    """Return the seconds that the client gives us: by header, or by the parameter ``timeout`` in microseconds."""
    given = parameters.get("timeout")
    if given is None:
        return by_header
    if type(given) is not int or given <= 0:
        raise InputValidationError("the parameter timeout must be a whole number of microseconds", field="timeout")
    return given * _MICROSECONDS


def _outputs_of(classifies: bool) -> dict[str, str]:
    names = {"prediction": "INT64" if classifies else "FP64", "confidence": "FP64"}
    return names | ({"label": "BYTES"} if classifies else {})


def _answer(found: Prediction, asked: dict[str, Any], wanted: dict[str, bool] | None) -> Response:
    columns = _outputs_of(found.predictions[0].label is not None)
    if wanted is None:
        wanted = dict.fromkeys(columns, parameters_of(asked).get("binary_data_output") is True)
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        raise InputValidationError(
            f"there is no output {unknown[0]!r:.80}: there are {', '.join(columns)}", field="outputs"
        )
    tensors = [tensor(name, columns[name], [getattr(row, name) for row in found.predictions]) for name in wanted]
    tail = b"".join(as_bytes(one) for one in tensors if wanted[one["name"]])
    about = {"model_name": found.model, "model_version": found.model_version}
    body = orjson.dumps(about | ({"id": asked["id"]} if "id" in asked else {}) | {"outputs": tensors})
    if not tail:
        return Response(body, media_type="application/json")
    return Response(body + tail, media_type="application/octet-stream", headers={_LENGTH: str(len(body))})


def _readiness(about: dict[str, Any], is_ready: bool) -> Response:
    if is_ready:
        return Answer(about | {"ready": True})
    return Answer(about | {"ready": False, "error": "not ready"}, status_code=503, headers={"Retry-After": "5"})
