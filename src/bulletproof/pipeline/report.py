"""How a batch stands: for programs, for notebooks and for people."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from bulletproof.errors.installing import not_installed
from bulletproof.pipeline.items import ProcessingItem, ProcessingStatus

_SHOWN = 20


class StatusReport(dict[str, Any]):
    """The figures of a batch, as a dict.

    Keys: ``total`` and the five statuses (counts), ``by_status``; ``by_stage`` (for each stage ``items`` that are at
    it now, ``attempts``, ``succeeded``, ``retried``, ``failed``, and ``p50``, ``p95``, ``p99`` in seconds);
    ``by_error_type`` and ``by_code`` of the items that failed, ``retried_by_code`` of what was tried again;
    ``attempts``, ``retries``, ``parked``; ``duplicates``, ``degraded``, ``truncated``; ``elapsed_seconds``,
    ``items_per_second``, ``seconds_left`` (None when it cannot be told); ``breakers`` that are not closed or have
    failed, by name; ``slowest_hosts``; ``waiting`` (items by what is parked); ``failed_items`` with ``url``, ``stage``,
    ``code``, ``error``, ``hint`` and ``retry_count``; ``failed_items_left_out``; ``batch_id``.

    Args:
        values: The figures.
        items: The items that are kept, for ``to_dataframe``.

    Example:
        >>> report = StatusReport({"total": 2, "success": 1, "failed": 1}, [ProcessingItem("https://example.com/")])
        >>> report["total"], report.to_json()
        (2, '{"total":2,"success":1,"failed":1}')
    """

    def __init__(self, values: dict[str, Any], items: Iterable[ProcessingItem] = ()) -> None:
        super().__init__(values)
        self._items: Sequence[ProcessingItem] = list(items)

    def to_json(self, *, indent: bool = False) -> str:
        """Return it as JSON."""
        option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
        return orjson.dumps(dict(self), option=option, default=str).decode()

    def to_dataframe(self) -> Any:
        """Return a pandas table with a row for each item that is kept, the fields of its result among the columns.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise not_installed("a table of the items needs pandas", "models") from error
        columns = ["url", "status", "stage", "code", "error_type", "error", "hint", "retry_count"]
        rows = []
        for item in self._items:
            values = item.as_dict()
            row = {name: values[name] for name in columns}
            row["seconds"] = sum(item.seconds.values())
            row |= {name: value for name, value in (item.result or {}).items() if name != "url"}
            rows.append(row)
        return pd.DataFrame(rows, columns=None if rows else columns)

    def __str__(self) -> str:
        lines = [self._headline(), "", f"{'stage':<10}{'now':>7}{'tries':>9}{'ok':>9}{'again':>8}{'failed':>8}"]
        lines[-1] += f"{'p50':>10}{'p95':>10}{'p99':>10}"
        for name, stage in self.get("by_stage", {}).items():
            counts = f"{stage['items']:>7,}{stage['attempts']:>9,}{stage['succeeded']:>9,}{stage['retried']:>8,}"
            times = "".join(f"{_duration(stage[share]):>10}" for share in ("p50", "p95", "p99"))
            lines.append(f"{name:<10}{counts}{stage['failed']:>8,}{times}")
        for title, key in (("failed by type", "by_error_type"), ("failed by code", "by_code"),
                           ("tried again by code", "retried_by_code"), ("waiting for", "waiting")):  # fmt: skip
            if self.get(key):
                counts = ", ".join(f"{name} {number:,}" for name, number in list(self[key].items())[:_SHOWN])
                lines += ["", f"{title}: {counts}"]
        for name, breaker in self.get("breakers", {}).items():
            if breaker["state"] != "closed":
                lines.append(f"breaker {name}: {breaker['state']}, {breaker['failures']:,} failures")
        failed = self.get("failed_items", [])
        if failed:
            lines += ["", "failed items:"]
            for item in failed[:_SHOWN]:
                lines += [f"  {item['url']}", f"      {item['stage']}: {item['code']}: {item['error']}"]
                lines += [f"      what to do: {item['hint']}"] if item["hint"] else []
            left = len(failed[_SHOWN:]) + self.get("failed_items_left_out", 0)
            lines += [f"  ... and {left:,} more"] if left else []
        return "\n".join(lines)

    def _headline(self) -> str:
        counts = ", ".join(f"{self.get(status.value, 0):,} {status.value}" for status in ProcessingStatus)
        line = f"{self.get('total', 0):,} items: {counts}"
        if self.get("duplicates"):
            line += f" ({self['duplicates']:,} duplicates)"
        if self.get("truncated"):
            line += f" ({self['truncated']:,} with only the beginning of their text)"
        line += f"; {self.get('items_per_second', 0):,.1f} items/s in {_duration(self.get('elapsed_seconds'))}"
        if self.get("seconds_left") is not None:
            line += f", {_duration(self['seconds_left'])} left"
        return line


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
