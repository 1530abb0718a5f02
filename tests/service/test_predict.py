"""``POST /predict`` and ``GET /models``: every answer is the documented one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.models import OutputSchema
from bulletproof.service import create_app
from bulletproof.service.attending import while_connected
from bulletproof.settings import Settings
from support import hostile
from support.shelf import shelve

ROW = [5.1, 3.5, 1.4, 0.2]
HUGE = "9" * 400


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


async def predict(client: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    return await client.post("/predict", content=content, headers={"Content-Type": "application/json", **headers})


def typed(response: httpx.Response, status: int, code: str, error_type: str = "validation_error") -> dict[str, Any]:
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["code"], found["error_type"]) == (status, code, error_type), found
    assert found["status"] == "error"
    assert found["error"]
    assert found["details"]
    assert found["hint"]
    assert found["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return found


async def test_a_row_is_answered_as_the_exercise_has_it(client: httpx.AsyncClient) -> None:
    response = await predict(client, body(input_data=ROW, model_version="v1.0"))
    assert response.status_code == 200
    found = response.json()
    assert found["prediction"] == 0
    assert 0.5 < found["confidence"] <= 1
    assert (found["model_version"], found["status"], found["label"]) == ("v1.0", "success", "setosa")


async def test_rows_are_answered_in_order_and_other_versions_and_models_can_be_named(client: httpx.AsyncClient) -> None:
    rows = [ROW, [6.7, 3.0, 5.2, 2.3]]
    found = (await predict(client, body(input_data=rows, model_version="v1.1", model="iris"))).json()
    assert [row["label"] for row in found["predictions"]] == ["setosa", "virginica"]
    assert all(set(row) == {"prediction", "confidence", "label"} for row in found["predictions"])
    assert (found["model_version"], found["status"]) == ("v1.1", "success")


async def test_without_a_content_type_the_body_is_still_json(client: httpx.AsyncClient) -> None:
    assert (await client.post("/predict", content=body(input_data=ROW))).status_code == 200


BAD: dict[str, tuple[bytes, int, str, str]] = {
    "empty body": (b"", 400, "invalid_request", "empty"),
    "not JSON": (b'{"input_data": [1,', 400, "invalid_request", "line 1"),
    "not UTF-8": (b'{"input_data": "\xff"}', 400, "invalid_request", "UTF-8"),
    "more after the end": (body(input_data=ROW) + b"}", 400, "invalid_request", "after its end"),
    "a name twice": (b'{"input_data": [1], "input_data": [2]}', 400, "invalid_request", "twice"),
    "a name twice in disguise": (b'{"input_data": [1], "input_d\\u0061ta": [2]}', 400, "invalid_request", "twice"),
    "a lone surrogate": (b'{"input_data": [1], "model": "\\ud800"}', 400, "invalid_request", "surrogate"),
    "no object": (b"[5.1, 3.5, 1.4, 0.2]", 422, "invalid_input", "a list"),
    "no input": (body(model_version="v1.0"), 422, "missing_field", "input_data"),
    "unknown field": (body(input_data=ROW, modle="iris"), 422, "invalid_input", "modle"),
    "not a list": (body(input_data="5.1, 3.5"), 422, "not_numeric", "a string"),
    "null": (body(input_data=None), 422, "not_numeric", "null"),
    "empty list": (body(input_data=[]), 422, "shape_mismatch", "expected 4"),
    "too short": (body(input_data=ROW[:3]), 422, "shape_mismatch", "expected 4 numbers, got 3"),
    "too long": (body(input_data=[*ROW, 1]), 422, "shape_mismatch", "expected 4 numbers, got 5"),
    "a text": (body(input_data=[5.1, "many", 1.4, 0.2]), 422, "not_numeric", "index 1"),
    "digits in quotes": (body(input_data=[5.1, "3.5", 1.4, 0.2]), 422, "not_numeric", "index 1"),
    "a truth value": (body(input_data=[True, 3.5, 1.4, 0.2]), 422, "not_numeric", "index 0"),
    "null within": (body(input_data=[5.1, 3.5, None, 0.2]), 422, "not_numeric", "index 2"),
    "NaN": (b'{"input_data": [5.1, 3.5, 1.4, NaN]}', 422, "not_numeric", "index 3"),
    "Infinity": (b'{"input_data": [-Infinity, 3.5, 1.4, 0.2]}', 422, "not_numeric", "index 0"),
    "beyond a float": (b'{"input_data": [1e999, 3.5, 1.4, 0.2]}', 422, "not_numeric", "index 0"),
    "a huge whole number": (f'{{"input_data": [{HUGE}, 3.5, 1.4, 0.2]}}'.encode(), 422, "not_numeric", "index 0"),
    "a larger one": (f'{{"input_data": [{HUGE * 20}, 3.5, 1.4, 0.2]}}'.encode(), 400, "invalid_request", "digits"),
    "nested too deeply": (body(input_data=[[ROW]]), 422, "not_numeric", "nested too deeply"),
    "nested without end": (b'{"input_data": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "invalid_request", "nested"),
    "ragged": (body(input_data=[ROW, ROW[:2]]), 422, "shape_mismatch", "got 2"),
    "rows and numbers": (body(input_data=[ROW, 1.0]), 422, "not_numeric", "among the rows"),
    "out of range": (body(input_data=[5.1, 3.5, -1, 0.2]), 422, "invalid_input", "petal length"),
    "too many rows": (body(input_data=[ROW] * 1001), 422, "shape_mismatch", "1,001"),
    "unknown version": (body(input_data=ROW, model_version="v9.9"), 404, "unknown_model_version", "v1.0, v1.1"),
    "version that climbs": (body(input_data=ROW, model_version="../v1.0"), 404, "unknown_model_version", "v1.0"),
    "version of another type": (body(input_data=ROW, model_version=1.0), 422, "invalid_input", "model_version"),
    "version null": (body(input_data=ROW, model_version=None), 422, "invalid_input", "null"),
    "unknown model": (body(input_data=ROW, model="rose"), 404, "unknown_model", "iris"),
    "model of another type": (body(input_data=ROW, model=["iris"]), 422, "invalid_input", "model"),
    "too large": (b" " * (2 * 2**20 + 1), 413, "file_too_large", "bytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_request_has_its_documented_answer(client: httpx.AsyncClient, kind: str) -> None:
    content, status, code, said = BAD[kind]
    assert said in typed(await predict(client, content), status, code)["details"]


async def test_an_error_comes_as_problem_details_when_asked_for(client: httpx.AsyncClient) -> None:
    response = await predict(client, body(input_data=[]), Accept="application/problem+json")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 422


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "1e9", "1_0", "+5", "0x5", "5 s", ""])
async def test_a_time_that_is_none_is_refused(client: httpx.AsyncClient, given: str) -> None:
    response = await predict(client, body(input_data=ROW), **{"X-Request-Timeout": given})
    assert "X-Request-Timeout" in typed(response, 400, "invalid_request")["details"]


@pytest.mark.parametrize("given", ["0.5", ".5", "5", "86401", "999999999", "9" * 400])
async def test_a_time_beyond_what_the_model_allows_is_taken_for_that(client: httpx.AsyncClient, given: str) -> None:
    response = await predict(client, body(input_data=ROW), **{"X-Request-Timeout": given})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer"])
async def test_the_time_of_a_request_covers_the_reading_of_its_body(client: httpx.AsyncClient, path: str) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(20)

    began = time.monotonic()
    response = await client.post(path, content=slowly(), headers={"X-Request-Timeout": "0.3"})
    assert time.monotonic() - began < 5
    assert "0.3 s of X-Request-Timeout" in typed(response, 408, "request_timeout")["details"]


async def test_a_compressed_body_is_refused_and_named(client: httpx.AsyncClient) -> None:
    response = await predict(client, b"\x1f\x8b", **{"Content-Encoding": "gzip"})
    typed(response, 415, "unsupported_format")


async def test_the_models_and_their_schemas_are_listed(client: httpx.AsyncClient) -> None:
    await predict(client, body(input_data=ROW))
    models = (await client.get("/models")).json()
    assert models["default"] == "iris"
    versions = {one["version"]: one["state"]["state"] for one in models["models"][0]["versions"]}
    assert versions == {"v1.0": "loaded", "v1.1": "not loaded"}
    assert (await client.get("/models/iris")).json()["model"] == models["models"][0]
    found = (await client.get("/models/iris/v1.0")).json()
    assert found["input"]["features"][0]["name"] == "sepal length"
    assert found["limits"]["timeout_seconds"] == 10
    assert found["state"]["state"] == "loaded"
    typed(await client.get("/models/rose"), 404, "unknown_model")
    typed(await client.get("/models/iris/v7.0"), 404, "unknown_model_version")


# Models that are broken


@pytest.fixture
async def broken(settings: Settings, client_of: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    folder = settings.data_dir
    shelve(folder, hostile.Hostile(), timeout_seconds=0.3)
    gone = shelve(folder, hostile.Hostile(), "gone")
    (folder / "models/gone/v1.0" / gone.file).unlink()
    changed = shelve(folder, hostile.Hostile(), "changed")
    with (folder / "models/changed/v1.0" / changed.file).open("ab") as file:
        file.write(b"\0")
    shelve(folder, "a text is no model", "wordy")
    shelve(folder, hostile.Hostile(), "crowded", output=OutputSchema(classes=("a", "b", "c")))
    (folder / "junk.onnx").write_bytes(b"\x08\x07junk")
    shelve(folder, hostile.Hostile(), "mistyped", type="onnx")
    shelve(folder, hostile.Hostile(), "unknown-type", type="abacus")
    shelve(folder, hostile.Hostile(), "garbled")
    (folder / "models/garbled/v1.0/manifest.json").write_text("{")
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("gone", "model_load_failed"), ("changed", "model_tampered"), ("wordy", "model_load_failed"),
        ("crowded", "model_load_failed"), ("mistyped", "model_load_failed"), ("unknown-type", "model_load_failed"),
        ("garbled", "model_load_failed"),
    ],
)  # fmt: skip
async def test_a_model_that_cannot_be_loaded_is_a_503_and_hinders_no_other(
    broken: httpx.AsyncClient, model: str, code: str
) -> None:
    for _ in range(2):  # the second while its circuit is open
        typed(await predict(broken, body(input_data=[0, 1], model=model)), 503, code, "model_error")
    assert (await predict(broken, body(input_data=ROW))).status_code == 200
    state = next(
        one for one in (await broken.get("/models")).json()["models"] if one["name"] == model
    )["versions"][0]["state"]  # fmt: skip
    assert state["state"] == "failed"
    assert state["details"]
    health = (await broken.get("/health")).json()
    assert health["components"]["models"]["versions"][f"{model}:v1.0"]["state"] == "failed"
    assert health["status"] == "degraded"
    assert any(f"{model} v1.0" in reason for reason in health["reasons"])
    if model not in ("gone", "garbled"):  # what needs no load to be known needs no breaker
        assert health["breakers"][f"model:{model}:v1.0"]["state"] == "open"


@pytest.mark.parametrize(
    ("deed", "status", "code", "error_type"),
    [
        (hostile.RAISES, 500, "prediction_failed", "model_error"),
        (hostile.EXITS, 500, "prediction_failed", "model_error"),
        (hostile.INTERRUPTS, 500, "prediction_failed", "model_error"),
        (hostile.CANCELS, 500, "prediction_failed", "model_error"),
        (hostile.GENERATES, 500, "prediction_failed", "model_error"),
        (hostile.NAN, 500, "invalid_model_output", "model_error"),
        (hostile.SHAPE, 500, "invalid_model_output", "model_error"),
        (hostile.CLASS, 500, "invalid_model_output", "model_error"),
        (hostile.SLEEPS + 0.0, 504, "prediction_timeout", "model_error"),
    ],
)
async def test_a_prediction_that_fails_has_its_documented_answer_and_the_next_one_comes(
    broken: httpx.AsyncClient, deed: int, status: int, code: str, error_type: str
) -> None:
    timeout = {"X-Request-Timeout": "0.1"} if code == "prediction_timeout" else {}
    found = typed(
        await predict(broken, body(input_data=[deed, 1], model="hostile"), **timeout), status, code, error_type
    )
    assert "flux" not in str(found)
    fine = await predict(broken, body(input_data=[hostile.FINE, 1], model="hostile"))
    assert fine.json()["label"] == "positive"


async def test_predictions_are_counted_by_model_version_and_outcome_and_names_of_callers_are_not(
    broken: httpx.AsyncClient,
) -> None:
    await predict(broken, body(input_data=ROW))
    await predict(broken, body(input_data=[hostile.RAISES, 1], model="hostile"))
    for number in range(20):
        await predict(broken, body(input_data=ROW, model=f"rose{number}"))
    text = (await broken.get("/metrics", headers={"Accept": "text/plain"})).text
    counts = [line for line in text.splitlines() if line.startswith("bulletproof_predictions_total{")]
    assert sorted(counts) == [
        'bulletproof_predictions_total{model="hostile",outcome="prediction_failed",version="v1.0"} 1.0',
        'bulletproof_predictions_total{model="iris",outcome="success",version="v1.0"} 1.0',
        'bulletproof_predictions_total{model="unknown",outcome="unknown_model",version="unknown"} 20.0',
    ]
    assert 'bulletproof_queue_waiting{queue="model:iris:v1.0"} 0.0' in text
    figures = (await broken.get("/metrics")).json()["predictions"]
    assert figures["outcomes"] == {"success": 1, "prediction_failed": 1, "unknown_model": 20}


async def test_a_full_queue_is_refused_at_once_with_the_time_to_wait(
    settings: Settings, client_of: Callable[..., httpx.AsyncClient]
) -> None:
    shelve(settings.data_dir, hostile.Hostile(), max_concurrent=1, max_queued=1)
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        slow = body(input_data=[hostile.SLEEPS, 1], model="hostile")
        answers = await asyncio.gather(*(predict(client, slow) for _ in range(6)))
        assert [answer.status_code for answer in answers].count(200) == 2
        for answer in answers:
            if answer.status_code != 200:
                typed(answer, 503, "overloaded", "resource_error")


# The key, and the watch over the client


async def test_a_key_is_needed_before_a_byte_is_read(
    tmp_path: Path, client_of: Callable[..., httpx.AsyncClient]
) -> None:
    app = create_app(Settings(data_dir=tmp_path, api_keys=("a-secret-key-of-mine",)))
    async with app.router.lifespan_context(app), client_of(app, peer="203.0.113.9") as client:
        typed(await predict(client, b"{"), 401, "unauthorized")
        headers = {"Authorization": "Bearer a-secret-key-of-mine"}
        assert (await predict(client, body(input_data=ROW), **headers)).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200
        assert (await client.post("/v2/models/iris/infer", content=b"{}")).status_code == 401


async def test_work_is_cancelled_when_the_client_hangs_up_and_not_otherwise() -> None:
    from starlette.requests import ClientDisconnect

    gone, cancelled = asyncio.Event(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "done"

    async def quick() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await while_connected(quick(), receive) == "done"
    asyncio.get_running_loop().call_later(0.05, gone.set)
    with pytest.raises(ClientDisconnect):
        await while_connected(work(), receive)
    assert cancelled.is_set()
    gone.clear()
    task = asyncio.create_task(while_connected(work(), receive))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
