"""The rows that are counted: bounded in number, whatever comes in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bulletproof.monitor.redaction import NAME, clean
from bulletproof.monitor.series import Series

OTHER = "_OTHER"
"""Where everything is counted that has no row of its own."""
SEVERITIES = ("low", "medium", "high", "critical")
_LIMITS = {"error_type": 32, "service": 200, "code": 200}
_CELLS = 1000

Names = tuple[str, str, str, str]
"""Error type, service, severity, code."""


@dataclass(slots=True, eq=False)
class Seen:
    """A message that was seen before: what counts it when it comes again.

    ``shown`` says whether it is this very message, and not only one like it; ``at`` (monotonic) and ``wall`` (seconds
    since the epoch), when it was first seen. A message that nobody has read has no fingerprint.
    """

    names: Names
    template: str
    fingerprint: str
    message: str
    at: float
    wall: float
    shown: bool = True
    hits: int = 0


class Cell:
    """How many errors of one type, service, severity and code there were."""

    __slots__ = ("code", "error_type", "names", "own", "series", "service", "severity", "unread")

    def __init__(self, names: Names) -> None:
        self.names = names
        self.error_type, self.service, self.severity, self.code = names
        self.series = Series()
        self.own = 0
        self.unread = Seen(names, OTHER, "", "", 0.0, 0.0, shown=False)


class Cells:
    """All cells: at most 32 error types, 200 services, 200 codes and 1,000 combinations, the rest under ``_OTHER``.

    Sums over cells are exact: an error without a row of its own is in a row of others, never lost.
    """

    def __init__(self) -> None:
        self._cells: dict[Names, Cell] = {}
        self._names: dict[str, set[str]] = {kind: set() for kind in _LIMITS}

    def __iter__(self) -> Iterator[Cell]:
        # A copy: a finalizer may record an error while somebody looks.
        return iter(list(self._cells.values()))

    def get(self, error_type: str, service: str, severity: str, code: str) -> Cell:
        """Return the cell of these names, which must be clean; it is made when it is new."""
        names = (error_type, service, severity, code)
        if names not in self._cells:
            error_type = self._admit("error_type", error_type)
            names = (error_type, self._admit("service", service), severity, self._admit("code", code))
            if len(self._cells) >= _CELLS and names not in self._cells:
                names = (error_type, OTHER, severity, OTHER if code else "")
            if names not in self._cells:
                self._cells[names] = Cell(names)
        return self._cells[names]

    def unread(self, error_type: str, service: str, severity: str, code: str) -> Seen:
        """Return what counts a message that nobody has read; names that are not known to be clean become others."""
        names = {"error_type": error_type, "service": service, "code": code}
        known = {kind: name if not name or name in self._names[kind] else OTHER for kind, name in names.items()}
        return self.get(severity=severity_of(severity), **known).unread

    def _admit(self, kind: str, name: str) -> str:
        known = self._names[kind]
        if name in known or name in ("", OTHER):
            return name
        if len(known) >= _LIMITS[kind]:
            return OTHER
        known.add(name)
        return name

    def forget(self, start: float, fine: float) -> int:
        """Drop what is older than ``start``, merge what is older than ``fine``; return how many errors were dropped."""
        dropped = 0
        for cell in self:
            dropped += cell.series.drop(start)
            cell.series.compact(fine)
            if not cell.series.kept:
                del self._cells[cell.names]
        for kind, names in self._names.items():
            names.intersection_update({getattr(cell, kind) for cell in self})
        return dropped


@dataclass(slots=True, eq=False)
class Problem:
    """All errors with one fingerprint: the worst severity, the latest message and context.

    ``first`` and ``last`` are seconds since the epoch; ``born`` (first seen) and ``alarmed`` (began to trend) are on
    the monotonic clock.
    """

    fingerprint: str
    template: str
    error_type: str
    service: str
    code: str
    severity: str
    message: str
    first: float
    last: float
    born: float
    inherited: int = 0
    context: dict[str, Any] = field(default_factory=dict)
    series: Series = field(default_factory=Series)
    alarmed: float = float("-inf")

    @property
    def weight(self) -> int:
        """How many there may have been, rows of others that it took over included."""
        return self.series.kept + self.inherited


class Problems:
    """The most frequent fingerprints: at most 512, found by the Space-Saving rule.

    A new fingerprint takes the place of the rarest ones and may have been as frequent as they were before
    (``inherited``), so one that makes up more than its share of all errors always has a row. The counts shown are those
    since it got its row, never more than the truth. See Metwally, Agrawal and El Abbadi, "Efficient computation of
    frequent and top-k elements in data streams", 2005; here the rarest quarter goes at once, which spares a heap.
    """

    SIZE = 512

    def __init__(self) -> None:
        self._rows: dict[str, Problem] = {}
        self._floor = 0

    def __iter__(self) -> Iterator[Problem]:
        return iter(list(self._rows.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, fingerprint: str) -> Problem | None:
        return self._rows.get(fingerprint)

    def of(self, seen: Seen) -> Problem:
        """Return the row of a message; it is made when there is none."""
        problem = self._rows.get(seen.fingerprint)
        if problem is None:
            if len(self._rows) >= self.SIZE:
                self._make_room()
            error_type, service, severity, code = seen.names
            problem = self._rows[seen.fingerprint] = Problem(
                seen.fingerprint, seen.template, error_type, service, code, severity, seen.message,
                first=seen.wall, last=seen.wall, born=seen.at, inherited=self._floor,
            )  # fmt: skip
        return problem

    def _make_room(self) -> None:
        rarest = sorted(self, key=lambda problem: problem.weight)[: self.SIZE // 4]
        self._floor = rarest[-1].weight
        for problem in rarest:
            del self._rows[problem.fingerprint]

    def forget(self, start: float, fine: float) -> None:
        """Drop what is older than ``start``, merge what is older than ``fine``."""
        for problem in self:
            problem.series.drop(start)
            problem.series.compact(fine)
            if not problem.series.kept:
                del self._rows[problem.fingerprint]
        if len(self._rows) <= self.SIZE // 2:
            self._floor = 0


def severity_of(name: str) -> str:
    """Return the severity of that name; an unknown one counts as ``medium``.

    Example:
        >>> severity_of("HIGH"), severity_of("catastrophic")
        ('high', 'medium')
    """
    lowered = name.strip().lower()
    return lowered if lowered in SEVERITIES else "medium"


def worse(one: str, other: str) -> str:
    return max(one, other, key=SEVERITIES.index)


def name_of(text: str) -> str:
    """Return a name fit to show: one line, short, without secrets; ``unknown`` when it is empty."""
    return " ".join(clean(text, NAME).split()) or "unknown"
