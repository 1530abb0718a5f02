"""Recording: exact counts for the price of a dictionary lookup."""

import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from itertools import groupby, islice
from operator import itemgetter
from threading import RLock
from typing import Any

from bulletproof.monitor.fingerprint import fingerprint_of, template_of
from bulletproof.monitor.operations import Operations
from bulletproof.monitor.redaction import MESSAGE, Scrubber, clean, plain
from bulletproof.monitor.rows import ErrorKey, ErrorRow, Rows
from bulletproof.monitor.series import FINE, MINUTE
from bulletproof.monitor.tally import OTHER, Cell, Cells, Problem, Problems, Seen, name_of, severity_of, worse

BURST = 200_000.0
"""Characters of new texts that may be looked at on one occasion, 2,000 messages or so ..."""
PER_SECOND = 20_000.0
"""... and in the long run: less than one percent of a processor."""
_EACH = 60
_REMEMBERED = 4096
_NAMES = 1024
_SERVICES = 100
_SHORT = 300
_CLEAN_EVERY = 10 * MINUTE
_PENDING = 512
_MERGED = 200
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))
_UNREAD: dict[str, Any] = {}
"""Stands for a context that nobody looked at."""

_Event = tuple[Seen, float, float, dict[str, Any] | None]
_Key = tuple[object, object, object, object, object] | int


class Recorder:
    """The state of a monitor and everything that changes it.

    The hot path looks a message up by its very text and appends a small tuple to a queue: two steps that cannot be torn
    apart, so it needs no lock. When the queue is long, or somebody asks, one thread counts it up. The work on a text is
    done once for each distinct message, outside the lock, and rationed. The queue holds nothing that is not redacted.
    """

    def __init__(
        self, retention: float, clock: Callable[[], float], now: Callable[[], datetime] | None, samples: int
    ) -> None:
        self._retention = retention
        self._clock = clock
        self._wall: Callable[[], float] = time.time if now is None else lambda: now().timestamp()
        # Re-entrant: a signal handler or a finalizer may record an error while this thread is doing so.
        self._lock = RLock()
        self._cells = Cells()
        self._problems = Problems()
        self._operations: dict[str, Operations] = {}
        self._seen: dict[_Key, Seen] = {}
        self._pending: deque[_Event] = deque()
        self._append = self._pending.append
        self._ring: deque[_Event] = deque(maxlen=samples)
        self._scrubber = Scrubber()
        self._is_fit = self._scrubber.cheaply
        self._fit_names: set[str] = set()
        self._ration = BURST
        self._rationed = self._cleaned = self._born = clock()
        self._edge = float("-inf")
        self._dropped = 0
        self._failed = 0
        self._unshared: Rows | None = None

    def record_error(self, /, error_type: str, service: str, severity: str, message: str, **context: Any) -> None:
        """Record an error. Never raises, whatever it is given.

        Args:
            error_type: Which way of failing, such as ``model_error``.
            service: The part of the system that failed.
            severity: ``low``, ``medium``, ``high`` or ``critical``; anything else counts as ``medium``.
            message: What was wrong.
            **context: What else is known; ``code`` is the precise kind. Secrets are taken out here and now; what is
                deep, long or of an unknown class is shortened. The ``repr`` of an object is never asked for.

        Example:
            >>> from bulletproof.monitor import AIErrorMonitor
            >>> AIErrorMonitor().record_error("validation_error", "api", "medium", "not numeric", code="not_numeric")
        """
        try:
            seen = self._seen.get((error_type, service, severity, message, context.get("code") if context else None))
            if seen is None:
                seen = self._meet(error_type, service, severity, message, context.get("code"))
            sample = None
            if context:
                sample = context if self._is_fit(context) else self._scrub(context)
            self._append((seen, self._clock(), self._wall(), sample))
            if len(self._pending) >= _PENDING:
                self._drain()
        except Exception:  # noqa: BLE001 -- odd arguments; whoever records is already handling an error
            self._record_odd(error_type, service, severity, message, context)

    def record_success(self, service: str, duration: float | None = None) -> None:
        """Record an operation that went well, so that errors become a share; ``duration`` in seconds."""
        self.observe(service, True, duration)

    def observe(self, service: str, ok: bool, duration: float | None = None) -> None:
        """Record an operation, successful or not.

        An operation that failed need not be observed when its error is recorded: of both counts the larger one is
        taken for the failures of the service.

        Args:
            service: The part of the system, named as in ``record_error``.
            ok: Whether it went well.
            duration: How long it took, in seconds.
        """
        service = plain(service)
        with self._lock:
            at = self._clock()
            if at >= self._edge:
                self._drain()
            operations = self._operations.get(service)
            if operations is None:
                operations = self._operations_of(service)
            operations.count(at, ok, duration)

    def cleanup_old_errors(self) -> int:
        """Forget what is older than the retention; this also happens on the way.

        Returns:
            How many errors were forgotten since the last call.
        """
        with self._lock:
            self._turn(self._drain(), clean=True)
            dropped, self._dropped = self._dropped, 0
            return dropped

    # Sharing with other processes

    def start_sharing(self) -> None:
        """Keep what is counted from now on for ``take_unshared``."""
        with self._lock:
            self._drain()
            self._unshared = Rows()

    def take_unshared(self) -> Rows:
        """Return what was counted here since the last call."""
        with self._lock:
            self._drain()
            rows, self._unshared = self._unshared or Rows(), Rows()
            return rows

    def merge(self, rows: Rows) -> None:
        """Count what other processes counted."""
        left = iter(rows)
        while part := list(islice(left, _MERGED)):
            with self._lock:
                at, wall = self._drain(), self._wall()
                for moment, key, row in part:
                    # No later than now, whatever the clock of another machine says.
                    age = max(wall - moment, 0.0)
                    if age <= self._retention:
                        self._merge(at - age, moment, key, row)

    def _merge(self, at: float, wall: float, key: ErrorKey | tuple[int, str], row: ErrorRow | tuple[int, int]) -> None:
        self._born = min(self._born, at)
        if not isinstance(key, ErrorKey) or not isinstance(row, ErrorRow):
            self._operations_of(str(key[1])).add(at, int(row[0]), int(row[1]))
            return
        cell = self._cells.get(key.error_type, key.service, severity_of(key.severity), key.code)
        cell.series.add(at, row.number)
        if key.template == OTHER:
            return
        problem = self._problem(cell, key.template, row.message, at, wall)
        problem.series.add(at, row.number)
        problem.first, problem.born = min(problem.first, wall), min(problem.born, at)
        problem.severity = worse(problem.severity, cell.severity)
        if wall >= problem.last:
            problem.last, problem.message, problem.context = wall, row.message, row.context or problem.context
        self._ring.append((Seen(cell, problem, row.message), at, wall, row.context))

    # Meeting a message for the first time

    def _record_odd(
        self, error_type: object, service: object, severity: object, message: object, context: dict[str, Any]
    ) -> None:
        try:
            code = context.get("code")
            names = plain(error_type), plain(service), plain(severity)
            seen = self._meet(*names, plain(message), None if code is None else plain(code))
            self._append((seen, self._clock(), self._wall(), self._scrub(context)))
        except Exception:  # noqa: BLE001 -- out of memory or stack: the one thing left to do is to say so later
            self._failed += 1

    def _meet(self, error_type: object, service: object, severity: object, message: object, code: object) -> Seen:
        text = plain(message)
        names = (plain(error_type), plain(service), plain(severity), "" if code is None else plain(code))
        # A text with a secret in it must not stay in memory, not even as a key: its hash stands for it.
        hashed = hash((*names, text))
        seen = self._seen.get(hashed)
        if seen is not None:
            return seen
        shape = hash((*names, text.translate(_NO_DIGITS), "shape"))
        at, wall = self._clock(), self._wall()
        if not self._take(at, min(len(text), MESSAGE)):
            return self._seen.get(shape) or self._unread(names)
        fit_names = (self._fit(names[0]), self._fit(names[1]), severity_of(names[2]), names[3] and self._fit(names[3]))
        fit_text = clean(text)
        template = template_of(fit_text)
        plain_texts = type(message) is str and type(error_type) is type(service) is type(severity) is str
        harmless = plain_texts and fit_text == message and len(fit_text) <= _SHORT and fit_names == names
        harmless = harmless and (code is None or type(code) is str)
        with self._lock:
            if at >= self._edge:
                self._drain()
            cell = self._cells.get(*fit_names)
            problem = self._problem(cell, template, fit_text, at, wall)
            if len(self._seen) >= _REMEMBERED:
                self._trim()
            seen = Seen(cell, problem, fit_text)
            self._seen[(error_type, service, severity, message, code) if harmless else hashed] = seen
            self._seen[shape] = Seen(cell, problem, fit_text, shown=False)
            return seen

    def _unread(self, names: tuple[str, ...]) -> Seen:
        """Return what counts a message that nobody looked at, by those of its names that are known to be fit."""
        error_type, service, _, code = (name if name in self._fit_names else name and OTHER for name in names)
        with self._lock:
            return self._cells.get(error_type, service, severity_of(names[2]), code).unread

    def _fit(self, name: str) -> str:
        fit = name_of(name)
        if fit == name:
            if len(self._fit_names) >= _NAMES:
                self._fit_names.clear()
            self._fit_names.add(name)
        return fit

    def _take(self, at: float, characters: int) -> bool:
        """Take a ration of the work on texts."""
        self._ration = min(BURST, self._ration + max(at - self._rationed, 0.0) * PER_SECOND)
        self._rationed = at
        if self._ration <= 0:
            return False
        self._ration -= characters + _EACH
        return True

    def _scrub(self, context: dict[str, Any]) -> dict[str, Any] | None:
        if not self._take(self._clock(), 0):
            return _UNREAD
        fit, characters = self._scrubber.fully(context)
        self._ration -= characters
        return fit

    def _problem(self, cell: Cell, template: str, text: str, at: float, wall: float) -> Problem:
        fingerprint = fingerprint_of(cell.error_type, cell.service, cell.code, template)
        problem = self._problems.find(fingerprint)
        if problem is None:
            if self._problems.full:
                self._drain()
                self._problems.make_room()
                self._purge()
            names = (cell.error_type, cell.service, cell.code, cell.severity)
            problem = self._problems.add(Problem(fingerprint, template, *names, text, first=wall, last=wall, born=at))
        return problem

    def _placed(self, seen: Seen, at: float, wall: float) -> Seen:
        """Return the same, in rows that still exist: they may have been dropped since it was recorded."""
        cell, problem = seen.cell, seen.problem
        if cell in self._cells and (problem is None or problem in self._problems):
            return seen
        cell = self._cells.get(*cell.names)
        if problem is None:
            return cell.unread
        return Seen(cell, self._problem(cell, problem.template, seen.message, at, wall), seen.message, seen.shown)

    # Counting and forgetting

    def _drain(self) -> float:
        """Count everything recorded so far and return the present; afterwards the caller may look, under the lock."""
        with self._lock:
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            at = self._clock()
            if not batch or batch[-1][1] < self._edge:
                self._count(batch)
            else:
                for _, minute in groupby(batch, key=lambda event: event[1] // MINUTE):
                    events = list(minute)
                    if events[-1][1] >= self._edge:
                        self._turn(events[-1][1])
                    self._count(events)
            for service, operations in list(self._operations.items()):
                ok, failed = operations.fold()
                if self._unshared is not None and (ok or failed):
                    self._unshared.add_operations(int(self._wall() // MINUTE), service, ok, failed)
            if at >= self._edge:
                self._turn(at)
            return at

    def _count(self, batch: list[_Event]) -> None:
        latest = {event[0]: event for event in batch}
        if len(latest) == 1:
            self._settle(batch[-1], len(batch))
        else:
            numbers = Counter(map(itemgetter(0), batch))
            for seen, event in latest.items():
                self._settle(event, numbers[seen])
        self._ring.extend(event for event in batch if event[3] is not _UNREAD and event[0].shown)

    def _settle(self, event: _Event, number: int) -> None:
        seen, at, wall, sample = event
        seen = self._placed(seen, at, wall)
        seen.hits += number
        seen.cell.series.add(at, number)
        seen.cell.own += number
        problem = seen.problem
        if problem is not None:
            problem.series.add(at, number)
            problem.last = max(problem.last, wall)
            problem.severity = worse(problem.severity, seen.cell.severity)
            if seen.shown:
                problem.message = seen.message
                problem.context = sample or problem.context
        if self._unshared is not None:
            template, context = (problem.template, problem.context) if problem is not None else (OTHER, {})
            cell = seen.cell
            key = ErrorKey(int(wall // MINUTE), cell.error_type, cell.service, cell.severity, cell.code, template)
            self._unshared.add_error(key, ErrorRow(number, wall, seen.message, context))

    def _turn(self, at: float, *, clean: bool = False) -> None:
        """Begin a minute; clean up when it is time."""
        self._edge = (at // MINUTE + 1) * MINUTE
        if clean or at - self._cleaned >= _CLEAN_EVERY:
            self._cleaned = at
            start, fine = at - self._retention, at - FINE
            self._dropped += self._cells.forget(start, fine)
            self._problems.forget(start, fine)
            for service, operations in list(self._operations.items()):
                operations.forget(start, fine)
                if operations.empty:
                    del self._operations[service]
            self._purge()

    def _trim(self) -> None:
        """Forget messages that were seen once or not of late."""
        self._drain()
        often = [(key, seen) for key, seen in self._seen.items() if seen.hits > 1][-_REMEMBERED // 2 :]
        kept = dict(often)
        for seen in kept.values():
            seen.hits = 0
        self._seen = kept

    def _purge(self) -> None:
        """Forget messages whose rows are gone."""
        for key, seen in list(self._seen.items()):
            if seen.problem not in self._problems or seen.cell not in self._cells:
                del self._seen[key]

    def _operations_of(self, service: str) -> Operations:
        name = name_of(service)
        if name not in self._operations and len(self._operations) >= _SERVICES:
            name = OTHER
        return self._operations.setdefault(name, Operations())
