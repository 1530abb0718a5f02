"""What it costs to record an error, beside counters, logs and error trackers; and to ask about a million of them.

The bars: ``record_error`` at most 0.6 of prometheus-client's ``labels(...).inc()`` and a tenth of ``logging.error``;
the summary of 24 hours with a million errors in them at most 1 ms. sentry-sdk (null transport) and OpenTelemetry take
part when they are installed. All in interleaved rounds of thread CPU time.

    python -m benchmarks monitor
"""

import importlib.util
import io
import itertools
import logging
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import prometheus_client
import structlog

from benchmarks.harness import Row, measure, report
from bulletproof.monitor import AIErrorMonitor

RECORD, FULL = "count an error", "keep its text too"
PEER, OURS, LOG = "prometheus-client: labels(...).inc()", "bulletproof: record_error", "logging.error to memory"
BAR_COUNT, BAR_LOG, BAR_SUMMARY_MS = 0.6, 0.1, 1.0
MESSAGE = "CUDA out of memory. Tried to allocate 20.00 MiB"


class Sink(io.TextIOBase):
    """A stream that keeps nothing, so that only the library is measured."""

    def write(self, text: str) -> int:
        """Take a text."""
        return len(text)


def ours() -> list[Row]:
    """Return what bulletproof does, in the ways that it is used."""
    monitor = AIErrorMonitor()
    several = itertools.cycle([f"model {chr(97 + number)} cannot be loaded" for number in range(20)])
    number = itertools.count()
    fixed = {"model_path": "/models/a.onnx", "batch": 64}

    def new_number(_: int) -> None:
        monitor.record_error("model_error", "ml", "high", f"timed out after {next(number)} ms")

    return [
        Row(OURS, lambda _: monitor.record_error("model_error", "ml", "high", MESSAGE), RECORD),
        Row("bulletproof: record_success", lambda _: monitor.record_success("ml"), RECORD),
        Row("bulletproof: same", lambda _: monitor.record_error("model_error", "ml", "high", MESSAGE), FULL),
        Row(
            "bulletproof: 20 messages in turn",
            lambda _: monitor.record_error("model_error", "ml", "high", next(several)),
            FULL,
        ),
        Row(
            "bulletproof: with context",
            lambda _: monitor.record_error("model_error", "ml", "high", MESSAGE, **fixed),
            FULL,
        ),
        Row("bulletproof: storm, another number each time", new_number, FULL),
    ]


def peers() -> list[Row]:
    """Return what others do, as their manuals say."""
    counter = prometheus_client.Counter(
        "errors", "Errors.", ["type", "service", "severity"], registry=prometheus_client.CollectorRegistry()
    )
    log = logging.getLogger("peer")
    log.propagate = False
    log.addHandler(logging.StreamHandler(Sink()))
    log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    struct = structlog.wrap_logger(
        structlog.PrintLogger(Sink()),  # type: ignore[arg-type]
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
    )
    rows = [
        Row(PEER, lambda _: counter.labels("model_error", "ml", "high").inc(), RECORD, None, "prometheus-client"),
        Row(LOG, lambda _: log.error("%s failed: %s", "ml", MESSAGE), FULL),
        Row(
            "structlog: JSON to memory",
            lambda _: struct.error(MESSAGE, type="model_error", service="ml"),
            FULL,
            None,
            "structlog",
        ),
    ]
    if importlib.util.find_spec("opentelemetry.sdk") is not None:
        rows.append(Row("OpenTelemetry: counter.add", _opentelemetry(), RECORD, None, "opentelemetry-sdk"))
    if importlib.util.find_spec("sentry_sdk") is not None:
        rows.append(Row("sentry-sdk: capture_message, null transport", _sentry(), FULL, None, "sentry-sdk"))
    return rows


def _opentelemetry() -> Callable[[int], Any]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    counter = MeterProvider([InMemoryMetricReader()]).get_meter("peer").create_counter("errors")
    attributes = {"type": "model_error", "service": "ml", "severity": "high"}
    return lambda _: counter.add(1, attributes)


def _sentry() -> Callable[[int], Any]:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Null(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            pass

    sentry_sdk.init(dsn="http://key@localhost/1", transport=Null, default_integrations=False)
    return lambda _: sentry_sdk.capture_message(MESSAGE, level="error")


def summary_of_a_million() -> tuple[float, float, float]:
    """Record a million errors of 24 hours and ask; return median and worst milliseconds, and megabytes held."""
    seconds, start = [0.0], datetime(2025, 1, 1, tzinfo=UTC)
    rng = random.Random(1)
    tracemalloc.start()
    monitor = AIErrorMonitor(24, clock=lambda: seconds[0], now=lambda: start + timedelta(seconds=seconds[0]))
    types = ("model_error", "validation_error", "resource_error", "external_service_error")
    kinds = [
        (types[number % 4], f"service{number % 12}", ("low", "medium", "high")[number % 3], f"failure {number:x}")
        for number in range(60)
    ]
    total = 1_000_000
    for number in range(total):
        seconds[0] = number * 86_000 / total
        monitor.record_error(*kinds[min(int(rng.expovariate(0.1)), 59)])
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    spent = []
    for _ in range(50):
        began = time.thread_time()
        summary = monitor.get_error_summary(hours=24)
        spent.append((time.thread_time() - began) * 1000)
        monitor.record_error(*kinds[0])
    if summary["total_errors"] != total + 49:
        raise SystemExit(f"{summary['total_errors']} errors counted instead of {total + 49}")
    return statistics.median(spent), max(spent), held


def main() -> int:
    """Measure, report, and fail when a bar is missed."""
    rows = [Row("a bare call", lambda _: None, RECORD), Row("a bare call", lambda _: None, FULL), *ours(), *peers()]
    rows.sort(key=lambda row: row.group)
    raw = measure(rows)
    bare = dict.fromkeys((RECORD, FULL), "a bare call")
    report("monitor", rows, raw, bare=bare, unit={RECORD: PEER, FULL: LOG})
    cost = {key: statistics.median(values) for key, values in raw.items()}
    one, inc, log = cost[f"{RECORD}/{OURS}"], cost[f"{RECORD}/{PEER}"], cost[f"{FULL}/{LOG}"]
    median, worst, held = summary_of_a_million()
    print(f"\nsummary of 24 h with 1,000,000 errors: median {median:.2f} ms, worst {worst:.2f} ms; {held:.1f} MB held")
    bars = {
        f"record_error / labels(...).inc() = {one / inc:.2f}, at most {BAR_COUNT}": one / inc <= BAR_COUNT,
        f"record_error / logging.error = {one / log:.3f}, at most {BAR_LOG}": one / log <= BAR_LOG,
        f"summary {median:.2f} ms, at most {BAR_SUMMARY_MS} ms": median <= BAR_SUMMARY_MS,
    }
    for bar, met in bars.items():
        print(f"{'met   ' if met else 'MISSED'}  {bar}")
    return not all(bars.values())


if __name__ == "__main__":
    sys.exit(main())
