"""Refusals at the door, told by the server itself: to make a request ready for the app costs more than to refuse it."""

import time
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from bulletproof.errors import AIError, Diagnosis, classify
from bulletproof.service.callers import Caller, declared_size, headers_of, subject_of
from bulletproof.service.doors import Door
from bulletproof.service.gate import DEFAULT_HEADERS, Gate, request_id_of
from bulletproof.service.responses import PROBLEM, diagnosis_response

_FRESH_SECONDS = 0.2  # for which the same answer is given to the same request, but for its request id
_KNOWN = 512
_ID = "0" * 32


class Refusals:
    """Says which requests the gate would refuse because their door is full, and what it would answer.

    Args:
        gate: Lets all others in. Who may use the service, the limits of each and the fairness between them are its.
        clock: Monotonic seconds.
    """

    def __init__(self, gate: Gate, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gate = gate
        self._clock = clock
        self._until = 0.0  # how long what is remembered holds
        self._made: dict[str, tuple[Diagnosis, bytes, bytes, bytes]] = {}
        self._known: dict[Any, tuple[Caller | None, dict[str, str]]] = {}

    def __call__(self, scope: Scope) -> bytes | None:
        """Count, log and return a refusal.

        Args:
            scope: Of the request: ``method``, ``path``, ``headers`` and ``client``.

        Returns:
            The headers and the body of a 503; None for whatever is not refused so, which is for the gate.
        """
        began, gate = self._clock(), self._gate
        door = gate.door(scope["method"], scope["path"])
        if door is None or not door.crowded:
            return None
        if began >= self._until:
            self._until = began + _FRESH_SECONDS
            self._made.clear()
            self._known.clear()
        client = scope.get("client")
        same = (scope["path"], client[0] if client else None, *scope["headers"])
        known = self._known.get(same)
        try:
            if known is None:
                headers = headers_of(scope)
                caller = None if PROBLEM in headers.get("accept", "") else gate.callers.known_caller(scope, headers)
                if len(self._known) < _KNOWN:
                    self._known[same] = caller, headers
            else:
                caller, headers = known
            if caller is None or not door.refuses(caller.name):
                return None
            standing: list[tuple[bytes, bytes]] = []
            if gate.callers.bounds(scope):
                subject = subject_of(scope, caller)
                gate.callers.meter.admit(subject, size=declared_size(headers))
                standing = gate.callers.standing(subject)
        except AIError:
            return None
        request_id = request_id_of(headers)
        diagnosis, head, before, after = self._answer(door)
        told = door.tell(request_id)
        gate.report(diagnosis, request_id if told else "")
        gate.observe(scope["method"], scope["path"], 503, self._clock() - began)
        own = request_id.encode()
        more = b"".join(b"%s: %s\r\n" % line for line in standing)
        size = len(before) + len(own) + len(after)
        return b"%s%s\r\n%scontent-length: %d\r\n\r\n%s%s%s" % (head, own, more, size, before, own, after)

    def _answer(self, door: Door) -> tuple[Diagnosis, bytes, bytes, bytes]:
        """Return what is told at this door: its diagnosis, the headers, and the body around the request id."""
        made = self._made.get(door.name)
        if made is None:
            diagnosis = classify(door.full())
            response = diagnosis_response(diagnosis, request_id=_ID)
            lines = [*(line for line in response.raw_headers if line[0] != b"content-length"), *DEFAULT_HEADERS]
            head = b"".join(b"%s: %s\r\n" % line for line in lines) + b"x-request-id: "
            before, _, after = bytes(response.body).partition(_ID.encode())
            made = self._made[door.name] = diagnosis, head, before, after
        return made
