"""The connections of ``bulletproof serve``: bounded in number and in time, and none cut off when the service stops."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bulletproof.errors import AIError, InputValidationError, OverloadedError, classify
from bulletproof.processor import error_answer
from bulletproof.settings import get_settings

if TYPE_CHECKING:
    from bulletproof.service.refusals import Refusals, Request

_HEAD_SECONDS = 20.0  # from the first byte of a request, or from connecting, to the end of its headers
_HEAD_BYTES = 2**16  # of the headers of a request, after the piece in which it begins
_REST_SECONDS = 5.0  # for a body that nobody reads, so that its sender sees the answer
_LAST_SECONDS = 1.0  # for a last request on a connection that stood idle when the service was told to stop
_REFUSED = b"HTTP/1.1 503 Service Unavailable\r\n"


class Connections(HttpToolsProtocol):
    """uvicorn's protocol, with what it leaves to a proxy: limits for those who connect and send nothing or little.

    When the service stops, a connection without a request lives on for a moment, for its client may just be sending
    one; its answer says ``Connection: close``. Closing at once would lose that request.
    """

    _timer: asyncio.TimerHandle | None = None
    _retiring = False
    _in_head = False  # a request has begun, and its headers are not all there
    _head_bytes = 0
    _refused = False  # the request that is being read has its answer already
    _between = True  # no request has begun that is not all there
    _begun: bytes | None = None  # what was received last, if it is the beginning of a request
    _held: bytes | None = None  # a request that waits for its refusal
    _ends = False  # the last answer is given, and the connection closed when the request is all there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or tell it that there are too many."""
        super().connection_made(transport)
        most = get_settings().max_connections
        if len(self.connections) > most:
            self._part("503 Service Unavailable", OverloadedError(f"all {most:,} connections are taken", retry_after=1))
        else:
            self._close_in(_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless it was told to go."""
        if self._held is not None:
            self._held += data
        elif not self._hold(data):
            self._receive(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay open for an answer that is held back, if the client has nothing more to say."""
        self._ends = self._held is not None
        return self._ends

    def _receive(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self._begun = data if self._between else None
            self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._head_bytes > _HEAD_BYTES:
                self._part(
                    "431 Request Header Fields Too Large",
                    _invalid(f"the headers of the request have more than {_HEAD_BYTES:,} bytes"),
                )
                return
            # Nearly always all of it is there at once, and needs no timer.
            if self._timer is None and (self._in_head or self._refused):
                self._close_in(_HEAD_SECONDS if self._in_head else _REST_SECONDS)

    def on_message_begin(self) -> None:
        """Give the headers their time."""
        self._stop_timer()
        self._in_head, self._between = True, False
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to the app, unless there is no room for it."""
        self._stop_timer()
        self._in_head = False
        self._refused = self._refuse()
        if self._refused:
            return
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = cast("asyncio.Transport", _Parting(self.transport, self._end))
            if self._retiring:
                self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Read what is left of a body that was not wanted, but not for long."""
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self._close_in(_REST_SECONDS)

    def on_message_complete(self) -> None:
        """End the time for a body that nobody read."""
        self._stop_timer()
        self._between, self._begun = True, None
        if self._ends:
            self.transport.close()
        if not self._refused:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._refused = False
            self._await_next()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def _refuse(self) -> bool:
        """Answer a request whose door is full, as ``refusals`` of the app's state says; tell whether it was one."""
        refusals = self.app_state.get("refusals")
        if refusals is None or self._busy or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        try:
            self.scope["path"] = self.root_path + self.url.partition(b"?")[0].decode("ascii")
        except UnicodeDecodeError:
            return False
        self.scope["method"] = "POST"
        ends = self._retiring or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        answer = refusals(self.scope, None if ends or self.expect_100_continue else self._begun)
        if answer is None:
            return False
        self._send_refusal(answer, b"connection: close\r\n" if ends else b"")
        self._ends = ends
        return True

    def _hold(self, data: bytes) -> bool:
        """Have what was refused a moment ago, and comes again, answered with others; tell whether it is that."""
        refusals = self.app_state.get("refusals")
        if refusals is None or not self._between or self._busy or self.transport.is_closing():
            return False
        request = refusals.seen(self.client, data)
        if request is None:
            return False
        self._stop_timer()
        self._unset_keepalive_if_required()
        self._held = data
        refusals.soon(partial(self._answer_held, refusals, request, len(data)))
        return True

    def _answer_held(self, refusals: "Refusals", request: "Request", size: int) -> None:
        data, self._held = self._held, None
        if data is None or self.transport.is_closing():
            return
        answer = refusals.refuse(request) if len(data) == size and not self._retiring else None
        if answer is None:
            self._receive(data)
        else:
            self._send_refusal(answer)
            self._await_next()
        if self._ends:
            self.transport.close()

    def _should_upgrade(self) -> bool:
        # Else the library of websockets answers what is none, in a form of its own.
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _send_refusal(self, answer: bytes, more: bytes = b"") -> None:
        self.server_state.total_requests += 1
        usual = b"".join(b"%s: %s\r\n" % line for line in self.server_state.default_headers)
        self.transport.write(_REFUSED + usual + more + answer)

    def _await_next(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def shutdown(self) -> None:
        """Stop: after the answer under way, or after the request that may just be coming."""
        self._retiring = True
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._close_in(_LAST_SECONDS)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error."""
        self._part("400 Bad Request", _invalid(msg))

    def _part(self, status: str, error: AIError) -> None:
        """Say why, and end the connection."""
        content = orjson.dumps(error_answer(classify(error)))
        after = "" if error.retry_after is None else f"retry-after: {error.retry_after:.0f}\r\n"
        head = f"content-type: application/json\r\n{after}connection: close\r\ncontent-length: {len(content)}\r\n\r\n"
        self.transport.write(f"HTTP/1.1 {status}\r\n{head}".encode() + content)
        self.transport.close()

    def _end(self) -> None:
        """Close the connection, but not on one who is still sending: that would take the answer from it."""
        if self._between:
            self.transport.close()
        else:
            self._ends = True
            self._close_in(_REST_SECONDS)

    def _close_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Parting:
    """What the cycle of a request needs of its transport, closed in another way."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


def _invalid(what: str) -> InputValidationError:
    return InputValidationError(what, code="invalid_request", hint="Send one valid HTTP/1.1 request after the other.")
