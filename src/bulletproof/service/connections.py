"""The connections of ``bulletproof serve``: bounded in number and in time, and none cut off when the service stops."""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bulletproof.errors import OverloadedError, classify
from bulletproof.processor import error_answer
from bulletproof.settings import get_settings

_HEAD_SECONDS = 20.0  # from the first byte of a request, or from connecting, to the end of its headers
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
    _refused = False  # the request that is being read has its answer already

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or tell it that there are too many."""
        super().connection_made(transport)
        most = get_settings().max_connections
        if len(self.connections) > most:
            transport.write(_too_many(most))
            transport.close()
        else:
            self._close_in(_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless it was told to go."""
        if not self.transport.is_closing():
            super().data_received(data)
            # Nearly always all of it is there at once, and needs no timer.
            if self._timer is None and (self._in_head or self._refused):
                self._close_in(_HEAD_SECONDS if self._in_head else _REST_SECONDS)

    def on_message_begin(self) -> None:
        """Give the headers their time."""
        self._stop_timer()
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to the app, unless there is no room for it."""
        self._stop_timer()
        self._in_head = False
        self._refused = self._refuse()
        if self._refused:
            return
        super().on_headers_complete()
        if self._retiring and self.cycle is not None:
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
        if not self._refused:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self._refused = False
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def _refuse(self) -> bool:
        """Answer a request whose door is full, as ``refusals`` of the app's state says; tell whether it was one."""
        refusals = self.app_state.get("refusals")
        busy = self.cycle is not None and not self.cycle.response_complete
        if refusals is None or busy or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        try:
            self.scope["path"] = self.root_path + self.url.partition(b"?")[0].decode("ascii")
        except UnicodeDecodeError:
            return False
        self.scope["method"] = "POST"
        answer = refusals(self.scope)
        if answer is None:
            return False
        self.server_state.total_requests += 1
        ends = self._retiring or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        usual = b"".join(b"%s: %s\r\n" % line for line in self.server_state.default_headers)
        self.transport.write(_REFUSED + usual + (b"connection: close\r\n" if ends else b"") + answer)
        if ends:
            self.transport.close()
        return True

    def shutdown(self) -> None:
        """Stop: after the answer under way, or after the request that may just be coming."""
        self._retiring = True
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._close_in(_LAST_SECONDS)
        else:
            super().shutdown()

    def _close_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _too_many(most: int) -> bytes:
    error = OverloadedError(f"all {most:,} connections are taken", retry_after=1)
    body: dict[str, Any] = error_answer(classify(error))
    content = orjson.dumps(body)
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
        f"connection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
