"""Refusals at the door, told by the server itself: to make a request ready for the app costs more than to refuse it.

What is refused again and again is not read again and again, and is answered a few at a time: between other work, each
costs twice as much as right after another one.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import Scope

from bulletproof.errors import AIError, Diagnosis, classify
from bulletproof.service.callers import Caller, declared_size, headers_of, subject_of
from bulletproof.service.doors import Door
from bulletproof.service.gate import DEFAULT_HEADERS, Gate, request_id_of
from bulletproof.service.responses import PROBLEM, diagnosis_response

_FRESH_SECONDS = 0.2  # for which the same answer is given to the same request, but for its request id
_KNOWN = 512
_ID = "0" * 32
_TOGETHER_SECONDS = 0.004
_END_OF_HEAD = b"\r\n\r\n"


class Request(NamedTuple):
    """What was refused."""

    scope: Scope
    door: Door
    caller: Caller
    headers: dict[str, str]
    size: int


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
        self._known: dict[tuple[str | None, bytes], Request] = {}
        self._waiting: list[Callable[[], None]] = []

    def __call__(self, scope: Scope, begun: bytes | None = None) -> bytes | None:
        """Count, log and return a refusal.

        Args:
            scope: Of the request: ``method``, ``path``, ``headers`` and ``client``.
            begun: What was received of it at first, if ``seen`` may be asked about such a request.

        Returns:
            The headers and the body of a 503; None for whatever is not refused so, which is for the gate.
        """
        gate = self._gate
        door = gate.door(scope["method"], scope["path"])
        if door is None or not door.crowded:
            return None
        headers = headers_of(scope)
        try:
            caller = None if PROBLEM in headers.get("accept", "") else gate.callers.known_caller(scope, headers)
        except AIError:
            return None
        if caller is None:
            return None
        request = Request(scope, door, caller, headers, declared_size(headers))
        answer = self.refuse(request)
        if answer is not None and begun is not None and len(self._known) < _KNOWN:
            head, end, _ = begun.partition(_END_OF_HEAD)
            # An empty line before a request is no request, but the parser lets it pass.
            if end and head.startswith(b"POST ") and "transfer-encoding" not in headers:
                self._known[_host_of(scope["client"]), head] = request
        return answer

    def seen(self, client: tuple[str, int] | None, data: bytes) -> Request | None:
        """Return the request that was refused a moment ago and is the same as one now, byte for byte.

        Args:
            client: Who sends it.
            data: What was received, from the beginning of a request on.
        """
        if not self._known or self._clock() >= self._until:
            return None
        end = data.find(_END_OF_HEAD)
        request = self._known.get((_host_of(client), data[:end]))
        return request if request is not None and len(data) == end + len(_END_OF_HEAD) + request.size else None

    def soon(self, answer: Callable[[], None]) -> None:
        """Call something that answers one of those seen, together with others."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self._answer_all)
        self._waiting.append(answer)

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer()

    def refuse(self, request: Request) -> bytes | None:
        """Count, log and return the refusal of one of those seen; None if there is room for it now."""
        began, gate = self._clock(), self._gate
        scope, door, caller, headers, size = request
        if began >= self._until:
            self._until = began + _FRESH_SECONDS
            self._made.clear()
            self._known.clear()
        if not door.refuses(caller.name):
            return None
        standing: list[tuple[bytes, bytes]] = []
        if gate.callers.bounds(scope):
            subject = subject_of(scope, caller)
            try:
                gate.callers.meter.admit(subject, size=size)
            except AIError:
                return None
            standing = gate.callers.standing(subject)
        request_id = request_id_of(headers)
        diagnosis, head, before, after = self._answer(door)
        told = door.tell(request_id)
        gate.report(diagnosis, request_id if told else "")
        gate.observe(scope["method"], scope["path"], 503, self._clock() - began)
        own = request_id.encode()
        more = b"".join(b"%s: %s\r\n" % line for line in standing)
        length = len(before) + len(own) + len(after)
        return b"%s%s\r\n%scontent-length: %d\r\n\r\n%s%s%s" % (head, own, more, length, before, own, after)

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


def _host_of(client: tuple[str, int] | None) -> str | None:
    return client[0] if client else None
