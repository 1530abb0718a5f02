"""Recording: exact counts for the price of a dictionary lookup."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from threading import RLock
from typing import Any

from bulletproof.monitor.fingerprint import fingerprint_of, template_of
from bulletproof.monitor.operations import Operations
from bulletproof.monitor.redaction import MESSAGE, Scrubber, clean, plain
from bulletproof.monitor.rows import ErrorKey, ErrorRow, Rows
from bulletproof.monitor.series import FINE, MINUTE
from bulletproof.monitor.tally import OTHER, Cells, Names, Problems, Seen, name_of, severity_of, worse

BURST = 200_000.0
"""Characters of new texts that may be looked at on one occasion, 2,000 messages or so ..."""
PER_SECOND = 20_000.0
"""... and in the long run: less than one percent of a processor."""
_EACH = 60
_REMEMBERED = 4096
_SERVICES = 100
_CLEAN_EVERY = 10 * MINUTE
_PENDING = 512
_MERGED = 200
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))

_Event = tuple[Seen, float, float, dict[str, Any] | None]


class Recorder:
    """The state of a monitor and everything that changes it.

    The hot path looks a message up by its hash and appends a small tuple to a queue: two steps that cannot be torn
    apart, so it needs no lock. When the queue is long, or somebody asks, one thread counts it up. The work on a text is
    done once for each distinct message, outside the lock, and rationed. Nothing is held that is not redacted.
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
        # By hash: a text with a secret in it must not stay in memory, not even as a key.
        self._seen: dict[int, Seen] = {}
        self._pending: deque[_Event] = deque()
        self._append = self._pending.append
        self._ring: deque[_Event] = deque(maxlen=samples)
        self._scrubber = Scrubber()
        self._is_fit = self._scrubber.cheaply
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
            code = context.get("code", "") if context else ""
            try:
                seen = self._seen.get(hash((error_type, service, severity, code, message)))
            except Exception:  # noqa: BLE001 -- an object that has no hash
                seen = None
            if seen is None:
                seen = self._meet(error_type, service, severity, "" if code is None else code, message)
            sample = None
            if context:
                sample = context if self._is_fit(context) else self._scrub(context)
            self._append((seen, self._clock(), self._wall(), sample))
            if len(self._pending) >= _PENDING:
                self._drain()
        except Exception:  # noqa: BLE001 -- out of memory or stack: the one thing left to do is to say so later
            self._failed += 1

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
            operations = self._operations.get(service) or self._operations_of(service)
            operations.observe(at, ok, duration)

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
        """Count what other processes counted, the oldest first."""
        todo: list[tuple[float, Callable[..., None], Any, Any]] = []
        todo += [(row.wall, self._merge_errors, key, row) for key, row in rows.errors.items()]
        todo += [(key[0] * MINUTE, self._merge_operations, key[1], row) for key, row in rows.operations.items()]
        todo.sort(key=itemgetter(0))
        for start in range(0, len(todo), _MERGED):
            with self._lock:
                at, wall = self._drain(), self._wall()
                for moment, merge, key, row in todo[start : start + _MERGED]:
                    # No later than now, whatever the clock of another machine says.
                    age = max(wall - moment, 0.0)
                    if age <= self._retention:
                        self._born = min(self._born, at - age)
                        merge(at - age, key, row)

    def _merge_operations(self, at: float, service: str, counts: tuple[int, int]) -> None:
        operations = self._operations_of(service)
        operations.ok.add(at, counts[0])
        operations.failed.add(at, counts[1])

    def _merge_errors(self, at: float, key: ErrorKey, row: ErrorRow) -> None:
        cell = self._cells.get(key.error_type, key.service, severity_of(key.severity), key.code)
        cell.series.add(at, row.number)
        if key.template == OTHER:
            return
        wall = row.wall
        seen = self._seen_of(cell.names, key.template, row.message, at, wall)
        problem = self._problems.of(seen)
        problem.series.add(at, row.number)
        problem.first, problem.born = min(problem.first, wall), min(problem.born, at)
        problem.severity = worse(problem.severity, cell.severity)
        if wall >= problem.last:
            problem.last, problem.message, problem.context = wall, row.message, row.context or problem.context
        self._ring.append((seen, at, wall, row.context))

    # Meeting a message for the first time

    def _meet(self, *given: object) -> Seen:
        error_type, service, severity, code, text = map(plain, given)
        key = hash((error_type, service, severity, code, text))
        seen = self._seen.get(key)
        if seen is not None:
            return seen
        like_it = hash((error_type, service, severity, code, text.translate(_NO_DIGITS), "like it"))
        at, wall = self._clock(), self._wall()
        if not self._take(at, min(len(text), MESSAGE)):
            with self._lock:
                return self._seen.get(like_it) or self._cells.unread(error_type, service, severity, code)
        fit = clean(text)
        template = template_of(fit)
        with self._lock:
            if at >= self._edge:
                self._drain()
            cell = self._cells.get(name_of(error_type), name_of(service), severity_of(severity), code and name_of(code))
            if len(self._seen) >= _REMEMBERED:
                self._trim()
            seen = self._seen[key] = self._seen_of(cell.names, template, fit, at, wall)
            self._seen[like_it] = replace(seen, shown=False)
            return seen

    def _seen_of(self, names: Names, template: str, message: str, at: float, wall: float) -> Seen:
        error_type, service, _, code = names
        return Seen(names, template, fingerprint_of(error_type, service, code, template), message, at, wall)

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
            return None
        fit, characters = self._scrubber.fully(context)
        self._ration -= characters
        return fit

    # Counting and forgetting

    def _drain(self) -> float:
        """Count everything recorded so far and return the present; afterwards the caller may look, under the lock."""
        with self._lock:
            for service, operations in list(self._operations.items()):
                ok, failed = operations.fold()
                if self._unshared is not None and (ok or failed):
                    self._unshared.add_operations(int(self._wall() // MINUTE), service, ok, failed)
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
        self._ring.extend(event for event in batch if event[0].shown)

    def _settle(self, event: _Event, number: int) -> None:
        seen, at, wall, sample = event
        seen.hits += number
        cell = self._cells.get(*seen.names)
        cell.series.add(at, number)
        cell.own += number
        context: dict[str, Any] = {}
        if at - seen.at > self._retention:
            # Whatever it was before is forgotten.
            seen.at, seen.wall = at, wall
        if seen.fingerprint:
            problem = self._problems.of(seen)
            problem.series.add(at, number)
            problem.last = max(problem.last, wall)
            problem.severity = worse(problem.severity, cell.severity)
            if seen.shown:
                problem.message = seen.message
                problem.context = sample or problem.context
            context = problem.context
        if self._unshared is not None:
            key = ErrorKey(int(wall // MINUTE), *cell.names, seen.template)
            self._unshared.add_error(key, ErrorRow(number, wall, seen.message, context))

    def _turn(self, at: float, *, clean: bool = False) -> None:
        """Begin a minute; clean up when it is time."""
        self._edge = (at // MINUTE + 1) * MINUTE
        if clean or at - self._cleaned >= _CLEAN_EVERY:
            self._cleaned = at
            start, fine = at - self._retention, at - FINE
            dropped = self._cells.forget(start, fine)
            self._dropped += dropped
            self._problems.forget(start, fine)
            for service, operations in list(self._operations.items()):
                operations.forget(start, fine)
                if not operations.kept:
                    del self._operations[service]
            if dropped:
                # What has lost its row is met anew.
                self._seen.clear()

    def _trim(self) -> None:
        """Forget messages that were seen once or not of late."""
        self._drain()
        often = [(key, seen) for key, seen in self._seen.items() if seen.hits > 1][-_REMEMBERED // 2 :]
        self._seen = dict(often)
        for seen in self._seen.values():
            seen.hits = 0

    def _operations_of(self, service: str) -> Operations:
        name = name_of(service)
        if name not in self._operations and len(self._operations) >= _SERVICES:
            name = OTHER
        return self._operations.setdefault(name, Operations())
