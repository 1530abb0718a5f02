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


class Cell:
    """How many errors of one type, service, severity and code there were."""

    __slots__ = ("code", "error_type", "names", "own", "series", "service", "severity", "unread")

    def __init__(self, error_type: str, service: str, severity: str, code: str) -> None:
        self.names = (error_type, service, severity, code)
        self.error_type, self.service, self.severity, self.code = self.names
        self.series = Series()
        self.own = 0
        self.unread = Seen(self, None, "", shown=False)


class Cells:
    """All cells: at most 32 error types, 200 services, 200 codes and 1,000 combinations, the rest under ``_OTHER``.

    Sums over cells are exact: an error without a row of its own is in a row of others, never lost.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str, str], Cell] = {}
        self._names: dict[str, set[str]] = {kind: set() for kind in _LIMITS}

    def __iter__(self) -> Iterator[Cell]:
        # A copy: a finalizer may record an error while somebody looks.
        return iter(list(self._cells.values()))

    def __contains__(self, cell: object) -> bool:
        return isinstance(cell, Cell) and self._cells.get(cell.names) is cell

    def get(self, error_type: str, service: str, severity: str, code: str) -> Cell:
        """Return the cell of these names, which must be clean; it is made when it is new."""
        names = (error_type, service, severity, code)
        cell = self._cells.get(names)
        if cell is None:
            error_type = self._admit("error_type", error_type)
            names = (error_type, self._admit("service", service), severity, self._admit("code", code))
            if len(self._cells) >= _CELLS and names not in self._cells:
                names = (error_type, OTHER, severity, OTHER if code else "")
            cell = self._cells.get(names)
            if cell is None:
                cell = self._cells[names] = Cell(*names)
        return cell

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
        for cell in self._cells.values():
            dropped += cell.series.drop(start)
            cell.series.compact(fine)
        empty = [cell for cell in self._cells.values() if not cell.series.kept]
        for cell in empty:
            del self._cells[cell.names]
        if empty:
            for kind, names in self._names.items():
                names.intersection_update({getattr(cell, kind) for cell in self._cells.values()})
        return dropped


@dataclass(slots=True, eq=False)
class Problem:
    """All errors with one fingerprint.

    Args:
        fingerprint: Twelve hexadecimal digits.
        template: The message without its varying parts.
        error_type: Which way of failing.
        service: The part of the system.
        code: The precise kind, when it was given.
        severity: The worst seen.
        message: The latest message, redacted.
        first: When it was first seen, seconds since the epoch.
        last: When it was last seen, seconds since the epoch.
        born: When it was first seen on the monotonic clock.
        context: The latest context, redacted.
        inherited: How many there may have been before it got its row.
        series: How many, and when.
        alarmed: When it began to trend, on the monotonic clock.
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


class Seen:
    """A message that was seen before: which rows count it when it comes again."""

    __slots__ = ("cell", "hits", "message", "problem", "shown")

    def __init__(self, cell: Cell, problem: Problem | None, message: str, shown: bool = True) -> None:
        self.cell = cell
        self.problem = problem
        self.message = message
        self.shown = shown
        self.hits = 0


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

    def __contains__(self, problem: object) -> bool:
        return isinstance(problem, Problem) and self._rows.get(problem.fingerprint) is problem

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, fingerprint: str) -> Problem | None:
        """Return the row of a fingerprint, if it has one."""
        return self._rows.get(fingerprint)

    def add(self, problem: Problem) -> Problem:
        """Give a new problem its row; the caller makes room first."""
        problem.inherited = self._floor
        self._rows[problem.fingerprint] = problem
        return problem

    @property
    def full(self) -> bool:
        """Whether a new row needs room."""
        return len(self._rows) >= self.SIZE

    def make_room(self) -> None:
        """Drop the rarest quarter."""
        rows = sorted(self._rows.values(), key=_weight)
        dropped = rows[: self.SIZE // 4]
        self._floor = _weight(dropped[-1])
        for problem in dropped:
            del self._rows[problem.fingerprint]

    def forget(self, start: float, fine: float) -> None:
        """Drop what is older than ``start``, merge what is older than ``fine``."""
        for problem in list(self._rows.values()):
            problem.series.drop(start)
            problem.series.compact(fine)
            if not problem.series.kept:
                del self._rows[problem.fingerprint]
        if len(self._rows) <= self.SIZE // 2:
            self._floor = 0


def _weight(problem: Problem) -> int:
    return problem.series.kept + problem.inherited


def severity_of(name: str) -> str:
    """Return the severity of that name; an unknown one counts as ``medium``.

    Example:
        >>> severity_of("HIGH"), severity_of("catastrophic")
        ('high', 'medium')
    """
    lowered = name.strip().lower()
    return lowered if lowered in SEVERITIES else "medium"


def worse(one: str, other: str) -> str:
    """Return the worse of two severities."""
    return max(one, other, key=SEVERITIES.index)


def name_of(text: str) -> str:
    """Return a name fit to show: one line, short, without secrets; ``unknown`` when it is empty."""
    return " ".join(clean(text, NAME).split()) or "unknown"
