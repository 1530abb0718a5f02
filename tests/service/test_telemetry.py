"""OpenTelemetry: spans and figures, with the SDK's own exporters in memory."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bulletproof.errors import StoreError
from bulletproof.llm import LLMCall, Spending
from bulletproof.service import create_app
from bulletproof.settings import Settings

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bulletproof.service.telemetry import Telemetry

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Taken:
    """What the service has sent."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.telemetry = Telemetry(tracers, MeterProvider([self._reader]))

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._spans.get_finished_spans()}

    def figures(self) -> dict[str, list[Any]]:
        data: Any = self._reader.get_metrics_data()
        found = [metric for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
async def traced(settings: Settings, taken: Taken, client_of: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, telemetry=taken.telemetry)
    async with app.router.lifespan_context(app), client_of(app) as client:
        client.app = app
        yield client


async def test_a_file_is_a_trace_of_request_file_and_stages(traced: httpx.AsyncClient, taken: Taken) -> None:
    answer = await traced.post(
        "/process?secret=hunter2",
        files={"file": ("t.json", b'["hunter2"]')},
        headers={"traceparent": CALLER, "X-API-Key": "hunter2"},
    )
    spans = taken.spans()
    request, file = spans["POST /process"], spans["process file"]
    assert request.kind == SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["bulletproof.request_id"] == answer.json()["request_id"]
    assert file.parent.span_id == request.context.span_id
    assert file.attributes["bulletproof.processing_id"] == answer.json()["processing_id"]
    for stage in ("validate", "clean", "analyze", "store"):
        assert spans[stage].parent.span_id == file.context.span_id
        assert file.start_time <= spans[stage].start_time <= spans[stage].end_time <= file.end_time
    assert "hunter2" not in "".join(span.to_json() for span in spans.values())


async def test_failures_are_marked_with_their_codes(traced: Any, taken: Taken) -> None:
    await traced.post("/process", files={"file": ("t.json", b"[broken")})
    spans = taken.spans()
    assert spans["process file"].status.status_code == StatusCode.ERROR
    assert spans["process file"].attributes["bulletproof.outcome"] == "invalid_json"
    # A caller's mistake is no failure of the server.
    assert spans["POST /process"].status.status_code == StatusCode.UNSET
    assert spans["POST /process"].attributes["error.type"] == "invalid_json"

    async def down(*_: object, **__: object) -> None:
        raise StoreError("the database does not answer")

    traced.app.state.services.processor.store.get_run = down
    await traced.get("/results/abc")
    lost = taken.spans()["GET /results/{processing_id}"]
    assert lost.status.status_code == StatusCode.ERROR
    assert (lost.attributes["error.type"], lost.attributes["http.response.status_code"]) == (
        "database_unavailable", 503,
    )  # fmt: skip


async def test_calls_to_the_llm_are_spans_with_tokens(taken: Taken) -> None:
    taken.telemetry.on_llm(LLMCall("gpt-4o-mini", "success", 0.5, Spending(100, 20, 0.01)))
    taken.telemetry.on_llm(LLMCall("llama", "rate_limited", 0.1))
    spans = taken.spans()
    good, bad = spans["chat gpt-4o-mini"], spans["chat llama"]
    assert good.kind == SpanKind.CLIENT
    assert good.attributes["gen_ai.usage.input_tokens"] == 100
    assert 0.49e9 < good.end_time - good.start_time < 0.51e9
    assert (bad.status.status_code, bad.attributes["error.type"]) == (StatusCode.ERROR, "rate_limited")


async def test_what_is_counted_for_prometheus_is_handed_on(traced: Any, taken: Taken) -> None:
    await traced.post("/process", files={"file": ("t.json", b"[broken")})
    figures = taken.figures()
    (error,) = figures["bulletproof.errors"]
    assert (error.value, error.attributes["code"]) == (1, "invalid_json")
    assert {point.attributes["state"]: point.value for point in figures["bulletproof.breaker_state"]}["closed"] == 1
    (request,) = figures["http.server.request.duration"]
    assert (request.count, request.attributes["http.route"]) == (1, "/process")
    assert [point.attributes["bulletproof.stage"] for point in figures["bulletproof.stage.duration"]] == ["validate"]
    (error,) = taken.figures()["bulletproof.errors"]
    assert error.value == 1


def run(code: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "BULLETPROOF_"))}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout + result.stderr


def test_it_is_off_by_default_and_not_even_imported(settings: Settings) -> None:
    code = "import sys; from bulletproof.service import app; print(*sys.modules)"
    modules = run(code, BULLETPROOF_DATA_DIR=str(settings.data_dir)).split()
    assert "bulletproof.service.wiring" in modules
    assert not [name for name in modules if name.startswith(("opentelemetry.sdk", "bulletproof.service.telemetry"))]


def test_the_standard_variables_say_where_to(settings: Settings) -> None:
    code = """
from bulletproof.service import app
from starlette.testclient import TestClient
with TestClient(app) as client:
    client.get("/health/live")
"""
    written = run(
        code,
        BULLETPROOF_DATA_DIR=str(settings.data_dir),
        BULLETPROOF_OTEL="true",
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_SERVICE_NAME="mine",
    )
    assert '"name": "GET /health/live"' in written
    assert '"service.name": "mine"' in written
