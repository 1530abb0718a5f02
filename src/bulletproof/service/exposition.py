"""The Prometheus and OpenMetrics forms of the figures."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from bulletproof._version import __version__
from bulletproof.monitor import AIErrorMonitor
from bulletproof.service.parts import all_breakers, queues_of

if TYPE_CHECKING:
    from bulletproof.service.wiring import Services

_EVERY = 2.0


class HealthCollector(Collector):
    """What the monitor says of all processes together, and what this build is; asked at each scrape."""

    def __init__(self, monitor: AIErrorMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield InfoMetricFamily(
            "bulletproof_build", "This build.", {"version": __version__, "python": platform.python_version()}
        )
        now = self._monitor.get_health_status()
        health = GaugeMetricFamily("bulletproof_health", "1 for the health that the errors show.", labels=["status"])
        for status in ("healthy", "degraded", "critical"):
            health.add_metric([status], float(status == now))
        yield health
        summary = self._monitor.get_error_summary(hours=1)
        yield GaugeMetricFamily(
            "bulletproof_error_rate", "Errors a minute in the last hour, of all processes.", summary["error_rate"]
        )
        ratio = summary["failure_ratio"]
        yield GaugeMetricFamily(
            "bulletproof_failure_ratio",
            "Failed share of operations in the last hour, of all processes; NaN without any.",
            ratio if ratio is not None else float("nan"),
        )
        yield GaugeMetricFamily(
            "bulletproof_trending_errors", "Kinds of errors that become more.", len(summary["trending_errors"])
        )


def refresh(services: "Services") -> None:
    """Take over what other rooms count."""
    processor, measures = services.processor, services.measures
    measures.follow_errors(processor.monitor.own_counts())
    measures.follow_breakers(all_breakers(services))
    measures.follow_queues(queues_of(services))


async def expose(services: "Services", accept: str) -> tuple[bytes, str] | None:
    """Return the exposition that an Accept header asks for and its content type; None when it asks for none."""
    generate: Callable[[Any], bytes]
    if "application/openmetrics-text" in accept:
        generate, content_type = generate_openmetrics, OPENMETRICS
    elif "text/plain" in accept:
        generate, content_type = generate_latest, CONTENT_TYPE_LATEST
    else:
        return None
    refresh(services)
    registry = services.measures.with_others(HealthCollector(services.processor.monitor))
    return await asyncio.to_thread(generate, registry), content_type


@asynccontextmanager
async def published(services: "Services") -> AsyncIterator[None]:
    """Let the other worker processes, if there are any, see the figures of this one."""
    if not services.measures.several_processes:
        yield
        return

    async def publish() -> None:
        while True:
            refresh(services)
            services.measures.forget_dead_processes()
            await asyncio.sleep(_EVERY)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        refresh(services)
        services.measures.forget_process(os.getpid())
