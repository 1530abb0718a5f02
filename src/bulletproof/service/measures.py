"""What the service counts about itself, for ``GET /metrics`` in both of its forms."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Measures:
    """Request latencies, uploads and records of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "bulletproof_request_seconds",
            "Time to answer a request.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._records = Counter(
            "bulletproof_records", "Records of uploaded files by outcome.", ("outcome",), registry=self.registry
        )
        self._files = Counter("bulletproof_files", "Uploaded files by outcome.", ("outcome",), registry=self.registry)
        self.under_way = Gauge("bulletproof_uploads_under_way", "Uploads being processed now.", registry=self.registry)
        self.waiting = Gauge("bulletproof_uploads_waiting", "Uploads waiting their turn.", registry=self.registry)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "OTHER"
        self._requests.labels(known, route, str(status)).observe(seconds)

    def observe_answer(self, answer: dict[str, Any]) -> None:
        """Count one answer of the processor."""
        self._files.labels(answer["code"] if answer["status"] == "error" else "success").inc()
        records = answer.get("records")
        if records:
            self._records.labels("analyzed").inc(records["analyzed"])
            self._records.labels("rejected").inc(records["rejected"])

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        requests: dict[tuple[str, str], dict[str, Any]] = {}
        counts: dict[str, dict[str, int]] = {"files": {}, "records": {}}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                if family.name == "bulletproof_request_seconds":
                    _add_request(requests, sample.name, sample.labels, sample.value)
                elif family.name in ("bulletproof_files", "bulletproof_records"):
                    counts[family.name.removeprefix("bulletproof_")][sample.labels["outcome"]] = int(sample.value)
        return {
            "requests": [_with_quantiles(entry) for entry in requests.values()],
            **counts,
            "uploads": {
                "under_way": int(_value(self.under_way)),
                "waiting": int(_value(self.waiting)),
            },
        }


def _value(gauge: Gauge) -> float:
    return next(iter(gauge.collect())).samples[0].value


def _add_request(
    requests: dict[tuple[str, str], dict[str, Any]], name: str, labels: dict[str, str], value: float
) -> None:
    key = (labels["method"], labels["route"])
    entry = requests.setdefault(
        key,
        {"method": key[0], "route": key[1], "count": 0, "total_s": 0.0, "statuses": {}, "buckets": {}},
    )
    if name.endswith("_bucket"):
        bound = float(labels["le"])
        entry["buckets"][bound] = entry["buckets"].get(bound, 0.0) + value
    elif name.endswith("_count"):
        entry["count"] += int(value)
        entry["statuses"][labels["status"]] = int(value)
    elif name.endswith("_sum"):
        entry["total_s"] += value


def _with_quantiles(entry: dict[str, Any]) -> dict[str, Any]:
    buckets = sorted(entry["buckets"].items())
    count = entry["count"]
    return {
        "method": entry["method"],
        "route": entry["route"],
        "count": count,
        "statuses": entry["statuses"],
        "average_ms": round(1000 * entry["total_s"] / count, 2) if count else None,
        **{
            name: _quantile(buckets, count, share)
            for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))
        },
    }


def _quantile(buckets: list[tuple[float, float]], count: int, share: float) -> float | None:
    """Estimate a quantile from cumulative buckets by straight lines within a bucket, as Prometheus does."""
    if not count:
        return None
    wanted, low, below = share * count, 0.0, 0.0
    for bound, cumulative in buckets:
        if cumulative >= wanted:
            if bound == float("inf"):
                return round(1000 * low, 2)
            within = (wanted - below) / (cumulative - below) if cumulative > below else 1.0
            return round(1000 * (low + (bound - low) * within), 2)
        low, below = bound, cumulative
    return None
