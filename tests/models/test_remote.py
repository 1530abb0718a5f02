"""A model behind another server: asked again when that is worth it, and typed when it fails."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulletproof.errors import (
    AIError,
    BadResponseError,
    CircuitOpenError,
    ExternalServiceError,
    RateLimitedError,
    ServiceAuthError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from bulletproof.models.manifest import Feature, InputSchema, Manifest, OutputSchema
from bulletproof.models.predictor import Outputs
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.remote import RemoteRunner
from bulletproof.models.runners import open_runner
from bulletproof.models.server import ModelServer
from bulletproof.monitor import AIErrorMonitor

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])
ANSWER = {
    "predictions": [
        {"prediction": 1, "confidence": 0.75, "label": "yes"},
        {"prediction": 0, "confidence": 0.5, "label": "no"},
    ],
    "model_version": "v1.0",
    "status": "success",
}
Make = Callable[..., RemoteRunner]


def manifest(url: str, **more: Any) -> Manifest:
    return Manifest(
        name="far", version="v1.0", type="remote", url=url,
        input=InputSchema(features=(Feature(name="a"), Feature(name="b"))), output=OutputSchema(classes=("no", "yes")),
        **more,
    )  # fmt: skip


def tensors(**outputs: Any) -> str:
    return json.dumps({
        "model_name": "far",
        "outputs": [
            {"name": name, "shape": list(np.shape(data)), "datatype": "FP32", "data": np.ravel(data).tolist()}
            for name, data in outputs.items()
        ],
    })  # fmt: skip


@pytest.fixture
async def make(wire: Any) -> AsyncIterator[Make]:
    made: list[RemoteRunner] = []

    def runner(path: str = "", **more: Any) -> RemoteRunner:
        made.append(RemoteRunner(manifest(f"http://{wire.host}{path}", **more), sleep=lambda _: None))
        return made[-1]

    yield runner
    for one in made:
        await one.aclose()


async def ask(runner: RemoteRunner, timeout: float = 10) -> Outputs:
    return await runner.run(ROWS, timeout=timeout)


@pytest.mark.parametrize("path", ["", "/", "/predict"])
async def test_a_server_like_this_one_is_asked_for_model_and_version(
    wire: Any, say: Any, make: Make, path: str
) -> None:
    wire.default = say.http(json.dumps(ANSWER))
    outputs = await ask(make(path))
    assert outputs.values.tolist() == [1, 0]
    assert outputs.confidences is not None
    assert outputs.confidences.tolist() == [0.75, 0.5]
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", "/predict")
    assert asked.body == {"input_data": ROWS.tolist(), "model": "far", "model_version": "v1.0"}


TABLE = [[0.25, 0.75], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("outputs", "values", "probabilities"),
    [
        ({"label": [1, 0], "probabilities": TABLE}, [1, 0], TABLE),
        ({"scores": TABLE, "predict": [[1], [0]]}, [1, 0], TABLE),
        ({"probabilities": TABLE}, [1, 0], TABLE),
        ({"predict": [1, 0]}, [1, 0], None),
    ],
)
async def test_a_server_of_the_open_inference_protocol_is_understood(
    wire: Any, say: Any, make: Make, outputs: Any, values: Any, probabilities: Any
) -> None:
    wire.default = say.http(tensors(**outputs))
    answer = await ask(make("/v2/models/far/versions/1"))
    assert answer.values.tolist() == values
    assert (None if answer.probabilities is None else answer.probabilities.tolist()) == probabilities
    [asked] = wire.asked
    assert asked.path == "/v2/models/far/versions/1/infer"
    assert asked.body["inputs"] == [
        {"name": "input", "shape": [2, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}
    ]


async def test_nested_data_is_understood_too(wire: Any, say: Any, make: Make) -> None:
    output = {"name": "p", "shape": [2, 2], "datatype": "FP32", "data": TABLE}
    wire.default = say.http(json.dumps({"outputs": [output]}))
    assert (await ask(make("/v2/models/far"))).values.tolist() == [1, 0]


async def test_what_passes_by_itself_is_asked_again(wire: Any, say: Any, make: Make) -> None:
    wire.script = [say.http("busy", status=503), say.reset, say.http(json.dumps(ANSWER))]
    assert (await ask(make())).values.tolist() == [1, 0]
    assert len(wire.asked) == 3


@pytest.mark.parametrize(
    ("status", "kind", "code", "tries"),
    [
        (400, ExternalServiceError, "request_rejected", 1),
        (401, ServiceAuthError, "auth_failed", 1),
        (404, ExternalServiceError, "request_rejected", 1),
        (422, ExternalServiceError, "request_rejected", 1),
        (429, RateLimitedError, "rate_limited", 3),
        (500, ServiceUnavailableError, "service_unavailable", 3),
        (503, ServiceUnavailableError, "service_unavailable", 3),
        (504, ServiceTimeoutError, "service_timeout", 3),
        (302, ExternalServiceError, None, 1),
    ],
)
async def test_each_status_is_an_error_of_the_other_server(
    wire: Any, say: Any, make: Make, status: int, kind: type[AIError], code: str | None, tries: int
) -> None:
    wire.default = say.http("{}", status=status, location="http://127.0.0.1:1/")
    with pytest.raises(kind) as caught:
        await ask(make())
    assert code in (None, caught.value.code)
    assert len(wire.asked) >= tries
    assert caught.value.spec.http_status >= 500


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": "Invalid input", "details": "a must be from 0 to 30, not 99 (row 0, index 2)"}, "from 0 to 30"),
        ({"error": "there is no version 'v9.0' of far: there is v1.0"}, "there is v1.0"),
        ({"detail": "input\x1b[31m is \n wrong"}, "input [31m is wrong"),
        ({"details": "x" * 5000}, "x" * 500),
        ({"details": 5}, ""), ([], ""), ("[" * 100_000, ""),
    ],
)  # fmt: skip
async def test_what_the_other_server_says_is_wrong_is_passed_on(
    wire: Any, say: Any, make: Make, body: Any, told: str
) -> None:
    wire.default = say.http(body if isinstance(body, str) else json.dumps(body), status=422)
    with pytest.raises(ExternalServiceError) as caught:
        await ask(make())
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    "body",
    [
        "not json", "[]", "{}", '{"predictions": 5}', '{"predictions": [{"prediction": "1", "confidence": 1}]}',
        '{"predictions": [{"prediction": true, "confidence": 1}]}', '{"predictions": [{"prediction": 1}]}',
        "[" * 100_000, '{"outputs": []}', "x" * 200_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["", "/v2/models/far"])
async def test_rubbish_is_a_bad_response(wire: Any, say: Any, make: Make, body: str, path: str) -> None:
    wire.default = say.http(body)
    with pytest.raises(BadResponseError) as caught:
        await ask(make(path))
    assert caught.value.spec.http_status == 502


@pytest.mark.parametrize("how", ["silence", "dripping"])
async def test_a_server_that_does_not_answer_in_time_is_a_504(wire: Any, say: Any, make: Make, how: str) -> None:
    wire.default = getattr(say, how)
    runner = make()
    with pytest.raises(ServiceTimeoutError) as caught:
        await ask(runner, timeout=0.2)
    assert caught.value.spec.http_status == 504
    assert runner.breaker.get_metrics()["failures"] == 1


async def test_a_server_that_is_gone_is_unavailable_and_then_left_alone(wire: Any, make: Make) -> None:
    runner = make()
    wire.stop()
    with pytest.raises(ServiceUnavailableError):
        await ask(runner)
    for _ in range(2):
        with pytest.raises((ServiceUnavailableError, CircuitOpenError)):
            await ask(runner)
    with pytest.raises(CircuitOpenError) as caught:
        await ask(runner)
    assert caught.value.retry_after


async def test_the_key_of_the_settings_is_sent(
    wire: Any, say: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BULLETPROOF_REMOTE_MODEL_KEY", "bp_secret")
    wire.default = say.http(json.dumps(ANSWER))
    runner = await open_runner(tmp_path, manifest(f"http://{wire.host}"))
    await runner.run(ROWS, timeout=5)
    assert wire.asked[0].headers["authorization"] == "Bearer bp_secret"
    await runner.aclose()


async def test_the_registry_serves_a_remote_model_like_any_other(wire: Any, say: Any, registry: ModelRegistry) -> None:
    known = manifest(f"http://{wire.host}")
    registry.add("far", "v1.0", known.url, type="remote", input=known.input, output=known.output)
    wire.default = say.http(json.dumps(ANSWER))
    server = ModelServer(registry, monitor=AIErrorMonitor())
    answer = await server.predict(ROWS.tolist(), model="far")
    assert answer.predictions == [(1, 0.75, "yes"), (0, 0.5, "no")]
    wire.default = say.http(json.dumps({"predictions": [{"prediction": 9, "confidence": 0.5}] * 2}))
    with pytest.raises(AIError, match="class index of 9"):
        await server.predict(ROWS.tolist(), model="far")
    await server.aclose()
