"""What the service counts about itself, for ``GET /metrics`` in all of its forms."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bulletproof.llm import LLMCall
from bulletproof.processor import FileReport
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitState
from bulletproof.service.parts import Queue

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FINE_BUCKETS = (0.0005, 0.001, 0.0025, *_BUCKETS)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_OUTCOMES = {"success": "successes", "failure": "failures", "neutral": "neutral", "rejected": "rejected"}
_SERIES = 1000
_LABEL = 200
_OTHER = "_OTHER"
# Set where several worker processes stand behind one address; a scrape reaches any one of them and has to tell of all.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Measures:
    """Counts of one app, in a registry of its own; with several worker processes those of all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counted: list[Counter | Gauge] = []
        self._following = Lock()
        self._known: dict[Counter, dict[tuple[str, ...], float]] = {}
        # Looking a series up by its labels takes longer than counting.
        self._known_requests: dict[tuple[str, str, int], Histogram] = {}
        self._known_predictions: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._series: dict[Counter, set[tuple[str, ...]]] = {}
        self._requests = self._histogram("request", "Time to answer a request", "method", "route", "status")
        self._stages = self._histogram("stage", "Time that a stage of a file was at work", "stage")
        self._llm_seconds = self._histogram("llm_call", "Time of a call to the LLM, each try by itself", "model")
        self._predictions = self._counter(
            "predictions", "Predictions asked for, by outcome: success or the code of the error",
            "model", "version", "outcome",
        )  # fmt: skip
        self._prediction_seconds = self._histogram(
            "prediction", "Time of a prediction", "model", "version", buckets=_FINE_BUCKETS
        )
        self._files = self._counter("files", "Uploaded files by outcome", "outcome")
        self._records = self._counter("records", "Records of uploaded files by outcome", "outcome")
        self._models = self._counter("model_calls", "Batches that an analyzer gave results for", "model")
        self._llm_calls = self._counter("llm_calls", "Calls to the LLM, each try by itself", "model", "outcome")
        self._tokens = self._counter("llm_tokens", "Tokens sent (prompt) and received (completion)", "model", "kind")
        self._cost = self._counter("llm_cost_dollars", "Cost of calls to models whose price is known", "model")
        self._errors = self._counter("errors", "Errors recorded", "error_type", "service", "severity", "code")
        self._calls = self._counter("breaker_calls", "Calls that came to a breaker", "breaker", "outcome")
        self._slow = self._counter("breaker_slow_calls", "Calls that a breaker found slow", "breaker")
        self._transitions = self._counter("breaker_transitions", "Changes of a breaker's state", "breaker")
        self._state = self._gauge("breaker_state", "Processes whose breaker is in the state", "breaker", "state")
        self._running = self._gauge("queue_running", "Work under way", "queue")
        self._waiting = self._gauge("queue_waiting", "Work waiting its turn", "queue")

    # What happens

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = self._known_requests.get((method, route, status))
        if known is None:
            labels = (method if method in _METHODS else "OTHER", _label(route), str(status))
            known = self._known_requests[method, route, status] = self._requests.labels(*labels)
            if len(self._known_requests) > _SERIES:
                self._known_requests.clear()
        known.observe(seconds)

    def observe_answer(self, answer: dict[str, Any]) -> None:
        """Count one answer of the processor."""
        records = answer.get("records")
        if records:
            self._records.labels("analyzed").inc(records["analyzed"])
            self._records.labels("rejected").inc(records["rejected"])

    def observe_file(self, report: FileReport) -> None:
        """Count what one file took."""
        self._files.labels(_label(report.code)).inc()
        for time in report.stages:
            self._stages.labels(time.stage).observe(time.busy)
        for model, calls in report.model_calls.items():
            self._models.labels(_label(model)).inc(calls)

    def observe_llm(self, call: LLMCall) -> None:
        """Count one call to the LLM."""
        model, spent = _label(call.model), call.spending
        self._llm_calls.labels(model, _label(call.outcome)).inc()
        self._llm_seconds.labels(model).observe(call.seconds)
        self._tokens.labels(model, "prompt").inc(spent.prompt_tokens)
        self._tokens.labels(model, "completion").inc(spent.completion_tokens)
        if spent.cost is not None:
            self._cost.labels(model).inc(spent.cost)

    def observe_prediction(self, model: str, version: str, seconds: float, *, outcome: str = "success") -> None:
        """Count one prediction; model and version are of the registry, the outcome is success or a code."""
        known = self._known_predictions.get((model, version, outcome))
        if known is None:
            times = self._prediction_seconds.labels(model, version)
            known = self._known_predictions[model, version, outcome] = (
                self._predictions.labels(model, version, outcome), times
            )  # fmt: skip
            if len(self._known_predictions) > _SERIES:
                self._known_predictions.clear()
        known[0].inc()
        known[1].observe(seconds)

    # What others count already

    def follow_errors(self, totals: Mapping[tuple[str, str, str, str], int]) -> None:
        """Take over the monitor's counts, by type, service, severity and code."""
        self._follow(self._errors, totals)

    def follow_breakers(self, breakers: Mapping[str, AIServiceCircuitBreaker]) -> None:
        """Take over states and counts of the breakers."""
        figures = {_label(name): breaker.get_metrics() for name, breaker in breakers.items()}
        rows = figures.items()
        self._follow(self._calls, {(name, out): row[key] for name, row in rows for out, key in _OUTCOMES.items()})
        self._follow(self._slow, {(name,): row["slow"] for name, row in rows})
        self._follow(self._transitions, {(name,): row["transitions"] for name, row in rows})
        for name, row in rows:
            for state in CircuitState:
                self._state.labels(name, state.value).set(row["state"] == state.value)

    def follow_queues(self, queues: Mapping[str, Queue]) -> None:
        """Take over how much is under way and waiting."""
        for name, queue in queues.items():
            self._running.labels(name).set(queue.in_use)
            self._waiting.labels(name).set(queue.queued)

    # Showing

    def families(self) -> list[Metric]:
        """Return everything counted, over all worker processes."""
        return list(self._source().collect())

    def with_others(self, *collectors: Collector) -> CollectorRegistry:
        """Return a registry for one exposition: everything counted, and what the collectors add."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in (self._source(), *collectors):
            registry.register(collector)
        return registry

    def forget_process(self, pid: int) -> None:
        """Count a worker process that has ended among the states and queues no more; its totals stay."""
        if _FOLDER in os.environ:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def forget_dead_processes(self) -> None:
        """Do so for worker processes that were killed."""
        for file in Path(os.environ.get(_FOLDER, "/nonexistent")).glob("gauge_live*.db"):
            pid = int(file.stem.rpartition("_")[2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                self.forget_process(pid)
            except PermissionError:
                continue

    @property
    def several_processes(self) -> bool:
        """Whether other processes have to see what is counted here."""
        return _FOLDER in os.environ

    def _source(self) -> Collector:
        if not self.several_processes:
            return self.registry
        return multiprocess.MultiProcessCollector(None)  # type: ignore[no-untyped-call]

    def _follow(self, counter: Counter, totals: Mapping[Any, float]) -> None:
        with self._following:
            known, series = self._known.get(counter, {}), self._series.setdefault(counter, set())
            for names, total in totals.items():
                labels = tuple(_label(name) for name in names)
                if labels not in series:
                    if len(series) >= _SERIES:
                        labels = (_OTHER,) * len(labels)
                    series.add(labels)
                before = known.get(names, 0)
                # One that is smaller than before was forgotten in the meantime and has begun anew.
                counter.labels(*labels).inc(total - before if total >= before else total)
            self._known[counter] = dict(totals)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        counter = Counter(f"bulletproof_{name}", f"{what}.", labels, registry=self.registry)
        self.counted.append(counter)
        return counter

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        gauge = Gauge(f"bulletproof_{name}", f"{what}.", labels, registry=self.registry, multiprocess_mode="livesum")
        self.counted.append(gauge)
        return gauge

    def _histogram(self, name: str, what: str, *labels: str, buckets: Sequence[float] = _BUCKETS) -> Histogram:
        return Histogram(f"bulletproof_{name}_seconds", f"{what}.", labels, registry=self.registry, buckets=buckets)


def _label(text: str) -> str:
    # Half a surrogate pair cannot be sent.
    return text[:_LABEL].encode("utf-8", "replace").decode()
