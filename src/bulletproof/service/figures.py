"""The figures of the service as JSON: counts, averages and quantiles."""

from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric

_SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


def figures_of(families: Iterable[Metric]) -> dict[str, Any]:
    """Return the figures of ``Measures`` as they stand in the JSON form of ``GET /metrics``."""
    by_name = {family.name.removeprefix("bulletproof_"): family for family in families}
    return {
        "requests": _spread(by_name.get("request_seconds"), "method", "route"),
        "stages": _spread(by_name.get("stage_seconds"), "stage"),
        "files": _counts(by_name.get("files"), "outcome"),
        "records": {"analyzed": 0, "rejected": 0} | _counts(by_name.get("records"), "outcome"),
        "models": _counts(by_name.get("model_calls"), "model"),
        "predictions": {
            "outcomes": _counts(by_name.get("predictions"), "outcome"),
            "seconds": _spread(by_name.get("prediction_seconds"), "model", "version"),
        },
        "llm": {
            "calls": _counts(by_name.get("llm_calls"), "outcome"),
            "seconds": _spread(by_name.get("llm_call_seconds"), "model"),
            "tokens": _counts(by_name.get("llm_tokens"), "kind"),
            "cost_dollars": round(sum(_values(by_name.get("llm_cost_dollars")).values()), 6),
        },
        "queues": {
            queue: {"running": running, "waiting": _counts(by_name.get("queue_waiting"), "queue").get(queue, 0)}
            for queue, running in _counts(by_name.get("queue_running"), "queue").items()
        },
    }


def _values(family: Metric | None, *labels: str) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for sample in family.samples if family is not None else ():
        if not sample.name.endswith("_created"):
            key = tuple(sample.labels[label] for label in labels)
            found[key] = found.get(key, 0.0) + sample.value
    return found


def _counts(family: Metric | None, label: str) -> dict[str, int]:
    return {key[0]: int(value) for key, value in _values(family, label).items()}


def _spread(family: Metric | None, *labels: str) -> list[dict[str, Any]]:
    """Return count, average and quantiles of a histogram for each value of the labels."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for sample in family.samples if family is not None else ():
        key = tuple(sample.labels[label] for label in labels)
        row = rows.setdefault(key, {"count": 0, "total": 0.0, "buckets": {}, "statuses": {}})
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            row["buckets"][bound] = row["buckets"].get(bound, 0.0) + sample.value
        elif sample.name.endswith("_sum"):
            row["total"] += sample.value
        elif sample.name.endswith("_count"):
            row["count"] += int(sample.value)
            if "status" in sample.labels:
                row["statuses"][sample.labels["status"]] = int(sample.value)
    return [dict(zip(labels, key, strict=True)) | _summary(row) for key, row in rows.items()]


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    count, buckets = row["count"], sorted(row["buckets"].items())
    return {
        "count": count,
        **({"statuses": row["statuses"]} if row["statuses"] else {}),
        "average_ms": round(1000 * row["total"] / count, 2) if count else None,
        **{name: _quantile(buckets, count, share) for name, share in _SHARES.items()},
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
