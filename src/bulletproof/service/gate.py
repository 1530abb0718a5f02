"""The outermost layer of the app: request ids, access, body size, the last resort, the access log.

Pure ASGI, because all of this has to happen before a byte of a body is read.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from os import urandom
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from bulletproof.errors import (
    AIError,
    Diagnosis,
    FileTooLargeError,
    InputValidationError,
    OverloadedError,
    classify,
)
from bulletproof.service.attending import while_connected
from bulletproof.service.callers import Callers, declared_size, headers_of, subject_of
from bulletproof.service.doors import Door, Doors
from bulletproof.service.responses import diagnosis_response

logger = logging.getLogger("bulletproof.service")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MANY = frozenset({"/predict", "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"})
# Where a page of the dashboard sends the file that it hands on to /process.
_UPLOADS = "/dashboard/_nicegui/client/"
_SPLIT = "Split the file, use 'bulletproof process FILE' for large ones, or raise BULLETPROOF_MAX_UPLOAD_BYTES."
# What to do about a body that is too large; what has no setting is bounded for good.
_SMALLER = (
    ("/predict", "Send fewer rows in one request; the bound on it is fixed."),
    ("/v2/", "Send fewer rows in one request; the bound on it is fixed."),
    ("/batches", "Send the URLs in several batches, or raise BULLETPROOF_MAX_UPLOAD_BYTES."),
    (
        "/process",
        "Split the file, use 'bulletproof process FILE' for large ones, or raise BULLETPROOF_MAX_UPLOAD_BYTES.",
    ),
    (_UPLOADS, "Split the file, use 'bulletproof process FILE' for large ones, or raise BULLETPROOF_MAX_UPLOAD_BYTES."),
)
_DRAIN_BYTES = 64 * 2**20
_DRAIN_SECONDS = 2.0
_PAUSE_SECONDS = 30.0  # between two pieces of a body
_RESTART_SECONDS = 5.0
_OURS = (b"x-request-id", b"x-content-type-options")
DEFAULT_HEADERS = (  # of every answer that has none of its own
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_NAMES = frozenset((*_OURS, *(name for name, _ in DEFAULT_HEADERS)))
_END = 256  # last bytes of a body that are kept: a form's closing boundary has to be there


class AnswerBrokenOffError(Exception):
    """A failure in the middle of an answer, which was logged; tells the server to break the connection."""


class Gate:
    """Lets requests in, gives them an id, bounds their bodies and answers whatever escapes the app.

    Args:
        app: The app behind.
        callers: Who may use the service.
        doors: How many requests of each kind are let in; all when None.
        check_room: Called before an upload is read; raises when there is no room for it.
        max_body: Largest body in bytes, by path; ``""`` for all others.
        observe: Called with method, route, status and seconds after each request.
        report: Called with a diagnosis of a failure that no route handled.
        body_seconds: How long a body may take to arrive.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        callers: Callers,
        doors: Doors | None = None,
        check_room: Callable[[], None] = lambda: None,
        max_body: dict[str, int],
        body_seconds: float = 300.0,
        observe: Callable[[str, str, int, float], None],
        report: Callable[[Diagnosis, str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = app
        self.callers = callers
        self._doors = doors
        self.check_room = check_room
        self._max_body = max_body
        self.body_seconds = body_seconds
        self.observe = observe
        self.report = report
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket" and (error := self._socket_error(scope)) is not None:
            await _refuse_socket(error, scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()

    def _socket_error(self, scope: Scope) -> AIError | None:
        """Only the dashboard has websockets; it has a guard of its own, who asks for the session."""
        try:
            self.callers.caller(scope, headers_of(scope))
        except InputValidationError as error:
            return error
        if scope["path"].startswith("/dashboard/"):
            return None
        hint = "Send a plain HTTP request; GET /batches/{id}/events streams progress."
        return InputValidationError(f"there is no websocket at {scope['path']!r:.200}", code="not_found", hint=hint)

    def door(self, method: str, path: str) -> Door | None:
        """Return the door of a request; None for what is let in always."""
        return self._doors.of(method, path) if self._doors is not None else None

    def max_body(self, path: str) -> int:
        """Return the largest body that a path takes, in bytes."""
        # With a slash at the end nothing is there, which is to be said of large bodies too.
        way = "/process" if path.startswith(_UPLOADS) else path.rstrip("/")
        return self._max_body.get(way, self._max_body[""])


class _Exchange:
    """One request and its response."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate = gate
        self.scope = scope
        self.headers = headers_of(scope)
        self.request_id = request_id_of(self.headers)
        self.limit = gate.max_body(scope["path"])
        self.received = 0
        self.started = 0.0
        self.complete = False
        self.refusal: AIError | None = None
        self.subject = ""
        self.metered = False
        self.door: Door | None = None
        self.caller = ""
        self.size = 0.0
        self.place: float | None = None
        self.status = 0
        self._receive = receive
        self._send = send

    async def run(self) -> None:
        # Whatever is logged meanwhile carries the id, whoever logs it.
        tokens = bind_contextvars(request_id=self.request_id)
        try:
            await self._run()
        finally:
            reset_contextvars(**tokens)

    async def _run(self) -> None:
        self.started = started = self.gate.clock()
        self.scope.setdefault("state", {})["request_id"] = self.request_id
        try:
            caller = self.scope["state"]["caller"] = self.gate.callers.caller(self.scope, self.headers)
            size = self._check_length()
            self.subject = self.scope["state"]["subject"] = subject_of(self.scope, caller)
            self.metered = self.gate.callers.bounds(self.scope)
            if self.metered:
                self.gate.callers.meter.admit(self.subject, size=size)
            door = self.gate.door(self.scope["method"], self.scope["path"])
            if door is not None:
                await self._come_in(door, caller.name, size)
            if self.scope["method"] == "POST" and _is_upload(self.scope["path"]):
                self.gate.check_room()
            await self.gate.app(self.scope, self.receive, self._send_from_app)
            if self.refusal is not None and not self.status:
                raise self.refusal
        except asyncio.CancelledError:
            # The service stops and has waited long enough; whoever still listens is told so.
            if not self.status:
                await self._answer(OverloadedError("the service is stopping", retry_after=_RESTART_SECONDS))
            raise
        except Exception as error:  # noqa: BLE001 -- the last resort: nothing leaves without an answer
            await self._answer(error)
        finally:
            if self.door is not None:
                self._give_back()
                self.door.leave(self.caller)
            self._finish(self.gate.clock() - started)

    async def _come_in(self, door: Door, caller: str, size: int) -> None:
        """Be let in, before a byte of the body is read; what has no body takes its place at once."""
        try:
            door.admit(caller)
        except OverloadedError:
            self.scope["state"]["told_by"] = door
            raise
        self.door, self.caller = door, caller
        open_ended = "transfer-encoding" in self.headers
        self.size = math.inf if open_ended else float(size)
        if not size and not open_ended:
            await self._take_place()

    async def _take_place(self) -> None:
        if self.door is None or self.door.turns is None or self.status or self.place is not None:
            return
        taking = self.door.enter(self.caller, self.size)
        if self.complete:
            self.place = await while_connected(taking, self._receive)
        else:
            self.place = await taking

    def _give_back(self) -> None:
        if self.door is not None and self.place is not None:
            began, self.place = self.place, None
            self.door.give_back(self.caller, self.size, began, status=self.status)

    def _check_length(self) -> int:
        size = declared_size(self.headers)
        if size > self.limit:
            raise self._refuse(self._size_error())
        return size

    def _refuse(self, error: AIError) -> AIError:
        self.refusal = error
        return error

    def _size_error(self) -> AIError:
        path = self.scope["path"]
        hint = next((hint for way, hint in _SMALLER if path.startswith(way)), "Send less in one request.")
        return FileTooLargeError(f"the request body has more than the {self.limit:,} bytes allowed", hint=hint)

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()
        left = self.gate.body_seconds - (self.gate.clock() - self.started)
        task, expired = asyncio.current_task(), False
        assert task is not None

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        # What asyncio.timeout does, in a third of the time: nearly always the body is there already.
        timer = asyncio.get_running_loop().call_later(max(0.0, min(_PAUSE_SECONDS, left)), expire)
        try:
            message = await self._receive()
        except asyncio.CancelledError as error:
            if not expired or task.uncancel():
                raise
            raise self._refuse(
                InputValidationError(f"the body stopped arriving after {self.received:,} bytes", code="request_timeout")
            ) from error
        finally:
            timer.cancel()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self.received += len(body)
            if self.received > self.limit:
                raise self._refuse(self._size_error())
            self.complete = not message.get("more_body", False)
            self.scope["state"]["body_end"] = (self.scope["state"].get("body_end", b"") + body[-_END:])[-_END:]
            if self.complete:
                return await self._with_a_place(message)
        return message

    async def _with_a_place(self, message: Message) -> Message:
        """Hand the end of the body on once there is a place for the work: whoever sends slowly holds none."""
        try:
            await self._take_place()
        except OverloadedError as error:
            raise self._refuse(error) from error
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        return message

    async def _send_from_app(self, message: Message) -> None:
        # A parser that was cut off in the middle would call the body broken; it was too large, or too slow.
        if self.refusal is None or self.status:
            await self.send(message)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._give_back()
            headers, request_id = message.get("headers", ()), (b"x-request-id", self.request_id.encode())
            names = {name for name, _ in headers}
            if names.isdisjoint(_NAMES):
                message["headers"] = [*headers, request_id, *DEFAULT_HEADERS]
            else:
                message["headers"] = [
                    *((name, value) for name, value in headers if name not in _OURS),
                    request_id,
                    *(default for default in DEFAULT_HEADERS if default[0] in _OURS or default[0] not in names),
                ]
            if self.metered:
                refused = declared_size(self.headers) if self.status == 429 else 0
                message["headers"] += self.gate.callers.standing(self.subject, size=refused)
        await self._send(message)

    async def _answer(self, error: Exception) -> None:
        diagnosis = classify(error)
        if not isinstance(error, InputValidationError):
            self.gate.report(diagnosis, self.request_id)
            self._log(error, diagnosis)
            self.scope["state"]["failure_logged"] = True
        self.scope["state"]["code"] = diagnosis.code
        if self.status:
            # Too late for another answer: the connection breaks, which tells the client that it has not all.
            raise AnswerBrokenOffError(diagnosis.code) from error
        if self.refusal is not None and diagnosis.code == "file_too_large":
            await self._drain()
        response = diagnosis_response(diagnosis, request_id=self.request_id, accept=self.headers.get("accept", ""))
        if diagnosis.http_status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        await response(self.scope, self._receive, self.send)

    def _log(self, error: Exception, diagnosis: Diagnosis) -> None:
        door: Door | None = self.scope["state"].get("told_by")
        if door is not None:
            door.tell(self.request_id)
            return
        unexpected = diagnosis.code == "internal_error"
        logger.log(
            logging.ERROR if unexpected else logging.WARNING,
            "request failed: %s",
            diagnosis.code,
            exc_info=error if unexpected else None,
            extra={
                "request_id": self.request_id,
                "code": diagnosis.code,
                "error_type": str(diagnosis.error_type),
                "route": self._route(),
                "exception_chain": diagnosis.exception_chain,
            },
        )

    async def _drain(self) -> None:
        """Read on for a moment: a client that is still sending would not see the answer otherwise."""
        drained = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while drained < _DRAIN_BYTES:
                    message = await self._receive()
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return
                    drained += len(message.get("body", b""))
        except TimeoutError:
            return

    def _finish(self, seconds: float) -> None:
        method, route, state = self.scope["method"], self._route(), self.scope["state"]
        self.gate.observe(method, route, self.status, seconds)
        if self.metered:
            self.gate.callers.meter.add(self.subject, "bytes", self.received)
        # One line for a failure: the one that says what failed. Good predictions are many, and counted; what a
        # dashboard asks for every two seconds would drown the rest.
        told = self.status >= 400 and "failure_logged" in state
        page = self.scope["path"].startswith("/dashboard/_nicegui")
        quiet = self.status < 400 and (self.scope.get("bulletproof.quiet") or route in _MANY or page)
        level = logging.DEBUG if told or quiet else logging.INFO
        if logger.isEnabledFor(level):
            extra = {"request_id": self.request_id, "status": self.status, "duration_ms": round(seconds * 1000, 1)}
            if "code" in state:
                extra["code"] = state["code"]
            logger.log(level, "%s %s %s", method, route, self.status, extra=extra)

    def _route(self) -> str:
        route: Any = self.scope.get("route")
        # The dashboard is an app of its own, whose routes are not ours.
        return getattr(route, "path", None) or ("/dashboard" if _is_dashboard(self.scope["path"]) else "unmatched")


async def _refuse_socket(error: AIError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake as any request, where the server can (ASGI's extension "Websocket Denial Response")."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = headers_of(scope)
    request_id, accept = request_id_of(headers), headers.get("accept", "")
    response = diagnosis_response(classify(error), request_id=request_id, accept=accept)
    response.headers["X-Request-ID"] = request_id
    response.raw_headers.extend(DEFAULT_HEADERS)
    await response(scope, receive, send)


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the id of a request: the given one if it is harmless, or a new one."""
    given = headers.get("x-request-id", "")
    return given if given and _REQUEST_ID.fullmatch(given) else urandom(16).hex()


def _is_upload(path: str) -> bool:
    return path in ("/process", "/batches") or path.startswith(_UPLOADS)


def _is_dashboard(path: str) -> bool:
    return path == "/dashboard" or path.startswith("/dashboard/")
