"""Traces and metrics by OpenTelemetry; an extra, off unless ``BULLETPROOF_OTEL`` is true."""

import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from threading import Thread
from typing import Any

from prometheus_client import Counter, Gauge
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from bulletproof._version import __version__
from bulletproof.errors import ConfigurationError
from bulletproof.llm import LLMCall
from bulletproof.processor import FileReport

_NAME = "bulletproof"
_LAST_SECONDS = 3.0


def _missing(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"BULLETPROOF_OTEL is set and {what} is not installed",
        code="missing_dependency",
        hint="pip install 'bulletproof-ai[otel]', or unset BULLETPROOF_OTEL",
    )


try:
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
except ImportError as problem:
    raise _missing("OpenTelemetry") from problem


class Telemetry:
    """Makes spans of requests, files, stages and LLM calls, and hands on what the service counts.

    Neither texts nor keys, query strings or headers are in them.

    Args:
        tracers: Takes the spans; by default what the process has set.
        meters: Takes the figures; by default what the process has set.
    """

    def __init__(self, tracers: TracerProvider | None = None, meters: MeterProvider | None = None) -> None:
        self._providers = (tracers or trace.get_tracer_provider(), meters or metrics.get_meter_provider())
        self._tracer = trace.get_tracer(_NAME, __version__, self._providers[0])
        self._meter = metrics.get_meter(_NAME, __version__, self._providers[1])
        self._requests = self._seconds("http.server.request.duration", "Duration of HTTP server requests.")
        self._stages = self._seconds("bulletproof.stage.duration", "Time that a stage of a file was at work.")
        self._llm = self._seconds("gen_ai.client.operation.duration", "Duration of calls to the LLM.")

    @classmethod
    def from_environment(cls) -> "Telemetry":
        """Set the SDK up as the standard ``OTEL_*`` variables say; by default OTLP over HTTP to this machine.

        Raises:
            ConfigurationError: The SDK or an exporter is not installed.
        """
        try:
            from opentelemetry.sdk.metrics import MeterProvider as Meters
            from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider as Tracers
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise _missing("the OpenTelemetry SDK") from error
        os.environ.setdefault("OTEL_SERVICE_NAME", _NAME)
        resource = Resource.create({"service.version": __version__})
        tracers = Tracers(resource=resource, shutdown_on_exit=False)
        for exporter in _exporters("traces"):
            tracers.add_span_processor(BatchSpanProcessor(exporter))
        readers = [
            exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)
            for exporter in _exporters("metrics")
        ]
        return cls(tracers, Meters(readers, resource, shutdown_on_exit=False))

    def close(self) -> None:
        """Send what is left and stop, within seconds, even when nobody takes it."""

        def end() -> None:
            for provider in self._providers:
                shutdown = getattr(provider, "shutdown", None)
                if shutdown is not None:
                    shutdown()

        # The exporters try again for up to half a minute; nothing can interrupt that.
        thread = Thread(target=end, name="bulletproof-telemetry-end", daemon=True)
        thread.start()
        thread.join(_LAST_SECONDS)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Wrap an app: a span for each request, in the trace of the caller if there is one."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._request(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return traced

    async def _request(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started, method = time.perf_counter(), scope["method"]
        caller = propagate.extract(dict(Headers(scope=scope)))
        with self._tracer.start_as_current_span(
            method, caller, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            context = span.get_span_context()
            with bound_contextvars(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"):
                try:
                    await app(scope, receive, noting)
                finally:
                    route, state = getattr(scope.get("route"), "path", None), scope.get("state", {})
                    about: dict[str, Any] = {"http.request.method": method, "http.response.status_code": status}
                    about |= {"http.route": route} if route else {}
                    about |= {"error.type": state["code"]} if "code" in state else {}
                    span.update_name(f"{method} {route}" if route else method)
                    span.set_attributes(about | {"bulletproof.request_id": state.get("request_id", "")})
                    if status >= 500 or not status:
                        span.set_status(Status(StatusCode.ERROR))
                    self._requests.record(time.perf_counter() - started, about)

    def on_file(self, report: FileReport) -> None:
        """Take in what one file took: a span for it with one for each stage."""
        if not report.stages:
            return
        now = time.time_ns()

        def moment(at: float) -> int:
            return now - int((report.ended - at) * 1e9)

        about = {"bulletproof.processing_id": report.processing_id, "bulletproof.outcome": report.code}
        file = self._tracer.start_span(
            "process file", attributes=about, start_time=moment(min(stage.started for stage in report.stages))
        )
        for stage in report.stages:
            # Stages overlap: how long one was at work is less than from its beginning to its end.
            span = self._tracer.start_span(
                stage.stage,
                trace.set_span_in_context(file),
                attributes={"bulletproof.busy_seconds": stage.busy},
                start_time=moment(stage.started),
            )
            span.end(moment(stage.ended))
            self._stages.record(stage.busy, {"bulletproof.stage": stage.stage})
        if report.code != "success":
            file.set_status(Status(StatusCode.ERROR, report.code))
        file.end(now)

    def on_llm(self, call: LLMCall) -> None:
        """Take in one call to the LLM."""
        now = time.time_ns()
        about: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": call.model}
        about |= {"error.type": call.outcome} if call.outcome != "success" else {}
        spent = {
            "gen_ai.usage.input_tokens": call.spending.prompt_tokens,
            "gen_ai.usage.output_tokens": call.spending.completion_tokens,
        }
        span = self._tracer.start_span(
            f"chat {call.model}",
            kind=SpanKind.CLIENT,
            attributes=about | spent,
            start_time=now - int(call.seconds * 1e9),
        )
        if call.outcome != "success":
            span.set_status(Status(StatusCode.ERROR, call.outcome))
        span.end(now)
        self._llm.record(call.seconds, about)

    def follow(self, counted: list[Counter | Gauge], refresh: Callable[[], None]) -> None:
        """Hand on what the service counts for Prometheus, whenever it is asked for.

        Args:
            counted: Counters and gauges; the name ``bulletproof_llm_calls`` becomes ``bulletproof.llm_calls``.
            refresh: Brings them up to date.
        """
        for metric in counted:
            (family,) = metric.collect()
            make: Callable[..., object] = (
                self._meter.create_observable_counter
                if isinstance(metric, Counter)
                else self._meter.create_observable_gauge
            )
            name = family.name.replace("_", ".", 1)
            make(name, callbacks=[_observer(metric, refresh)], description=family.documentation)

    def _seconds(self, name: str, what: str) -> metrics.Histogram:
        return self._meter.create_histogram(name, unit="s", description=what)


def _exporters(signal: str) -> Iterator[Any]:
    """Make the exporters that ``OTEL_TRACES_EXPORTER`` or ``OTEL_METRICS_EXPORTER`` names."""
    for name in os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").split(","):
        wanted = name.strip()
        if wanted == "none":
            continue
        if wanted == "otlp":
            general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", general)
            wanted = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
        found = entry_points(group=f"opentelemetry_{signal}_exporter", name=wanted)
        if not found:
            raise _missing(f"an exporter {name.strip()!r} for {signal}")
        yield next(iter(found)).load()()


def _observer(
    metric: Counter | Gauge, refresh: Callable[[], None]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        refresh()
        for family in metric.collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    yield Observation(sample.value, dict(sample.labels))

    return observe
