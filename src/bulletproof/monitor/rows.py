"""Counts on their way from one process to the others."""

import json
from typing import Any, NamedTuple

from bulletproof.monitor.redaction import plain
from bulletproof.monitor.series import HOUR, MINUTE
from bulletproof.monitor.tally import OTHER

_FINE = 5000
"""Rows beyond which counts are shared by the hour and without a text: the store must have been away for long."""
_WITH_CONTEXT = 100
"""Rows beyond which none gets a context: a batch is written every few seconds."""
_VERSION = 1


class ErrorKey(NamedTuple):
    """What a row counts: errors of a minute of the calendar that are alike."""

    minute: int
    error_type: str
    service: str
    severity: str
    code: str
    template: str


class ErrorRow(NamedTuple):
    """How many there were, when the last one was (seconds since the epoch) and what it looked like, redacted."""

    number: int
    wall: float
    message: str
    context: dict[str, Any]


class Rows:
    """Counts by minute, which can be added up, compared and written as JSON."""

    def __init__(self) -> None:
        self.errors: dict[ErrorKey, ErrorRow] = {}
        self.operations: dict[tuple[int, str], tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self.errors or self.operations)

    def add_error(self, key: ErrorKey, row: ErrorRow) -> None:
        known = self.errors.get(key)
        if known is None and len(self.errors) >= _FINE:
            key = key._replace(minute=_hour_of(key.minute), template=OTHER)
            known = self.errors.get(key)
        if len(self.errors) >= _WITH_CONTEXT:
            row = row._replace(context={})
        if known is not None:
            last = max(known, row, key=lambda one: one.wall)
            row = last._replace(number=known.number + row.number)
        self.errors[key] = row

    def add_operations(self, minute: int, service: str, ok: int, failed: int) -> None:
        if len(self.operations) >= _FINE and (minute, service) not in self.operations:
            minute = _hour_of(minute)
        known = self.operations.get((minute, service), (0, 0))
        self.operations[minute, service] = (known[0] + ok, known[1] + failed)

    def add(self, other: "Rows") -> None:
        """Count what the other counts, too."""
        for key, row in other.errors.items():
            self.add_error(key, row)
        for (minute, service), counts in other.operations.items():
            self.add_operations(minute, service, *counts)

    def beyond(self, known: "Rows") -> "Rows":
        """Return what is counted here and not yet there."""
        more = Rows()
        for key, row in self.errors.items():
            number = row.number - (known.errors[key].number if key in known.errors else 0)
            if number > 0:
                more.errors[key] = row._replace(number=number)
        for name, (ok, failed) in self.operations.items():
            before = known.operations.get(name, (0, 0))
            if (ok, failed) != before:
                more.operations[name] = (max(ok - before[0], 0), max(failed - before[1], 0))
        return more

    def to_json(self) -> str:
        errors = [[*key, *row] for key, row in self.errors.items()]
        operations = [[*key, *row] for key, row in self.operations.items()]
        return json.dumps({"version": _VERSION, "errors": errors, "operations": operations}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Rows":
        """Return what ``to_json`` wrote; a ``ValueError`` says that it did not write this."""
        rows = cls()
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']!r} of shared error counts is not known, only {_VERSION}")
            for minute, *names, number, wall, message, context in data["errors"]:
                key = ErrorKey(int(minute), *(plain(name) for name in names))
                rows.errors[key] = ErrorRow(int(number), float(wall), plain(message), dict(context))
            for minute, service, ok, failed in data["operations"]:
                rows.operations[int(minute), plain(service)] = (int(ok), int(failed))
        except (KeyError, TypeError) as error:
            raise ValueError(f"shared error counts are damaged: {error}") from error
        return rows


def _hour_of(minute: int) -> int:
    return minute - minute % round(HOUR / MINUTE)
