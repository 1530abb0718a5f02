"""A small OpenAI-compatible server of the tests' own, for faults on the wire, and fixtures that give it."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Reply = bytes | Callable[[socket.socket, Asked], bytes | None]


def http(
    body: bytes | str, *, status: int = 200, kind: str = "application/json", length: int | None = None, **headers: str
) -> bytes:
    """An HTTP response; ``length`` may lie."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}"]
    lines += [f"content-length: {len(data) if length is None else length}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


def chat(
    text: Any,
    *,
    finish: str | None = "stop",
    refusal: str | None = None,
    usage: Any = (20, 10),
    model: str = "test-model",
) -> bytes:
    """A chat completion that says ``text`` (JSON if it is no string)."""
    content = text if isinstance(text, str) or text is None else json.dumps(text)
    counts = (
        None
        if usage is None
        else {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    )
    message = {"role": "assistant", "content": content, "refusal": refusal}
    answer = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "usage": counts,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
    }  # fmt: skip
    return http(json.dumps(answer))


def problem(status: int, message: str = "no", code: str | None = None, **headers: str) -> bytes:
    """An error in the shape of OpenAI's."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return http(json.dumps({"error": error}), status=status, **headers)


def chunk(text: str | None = None, finish: str | None = None) -> str:
    """A piece of a streamed chat completion."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def events(*data: str, length: int | None = None) -> bytes:
    """A stream of server-sent events."""
    return http("".join(f"data: {one}\n\n" for one in data), kind="text/event-stream", length=length)


def reset(connection: socket.socket, asked: Asked) -> None:
    """Cut the connection the hard way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: socket.socket, asked: Asked) -> None:
    """Say nothing until the other side goes away."""
    with suppress(OSError):
        connection.recv(1)


def dripping(connection: socket.socket, asked: Asked) -> None:
    """Send a byte now and then, without end: no single read ever times out."""
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{")
        while not WireServer.stopping.wait(0.02):
            connection.sendall(b" ")


@dataclass
class WireServer:
    """Answers each request with the next reply of ``script``, then with ``default``.

    It keeps its port over ``stop`` and ``start``.
    """

    script: list[Reply] = field(default_factory=list)
    default: Reply = field(default_factory=lambda: chat("hello"))
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    stopping = threading.Event()

    def start(self) -> "WireServer":
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Die: no farewell to whoever is connected."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as source:
            asked = self._read(source)
            if asked is None:
                return
            with self._lock:
                self.asked.append(asked)
                reply = self.script.pop(0) if self.script else self.default
            data = reply(connection, asked) if callable(reply) else reply
            if data is not None:
                connection.sendall(data)
        self._open.discard(connection)

    def _read(self, source: Any) -> Asked | None:
        first = source.readline().decode().split()
        if not first:
            return None
        headers = {}
        while line := source.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = source.read(int(headers.get("content-length", 0)))
        return Asked(first[0], first[1], headers, json.loads(body) if body else None)


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A server that answers as the test says."""
    WireServer.stopping.clear()
    server = WireServer().start()
    yield server
    WireServer.stopping.set()
    server.stop()


@pytest.fixture
def say() -> Any:
    """The replies that a ``wire`` server can be told to give."""
    import types

    names = (http, chat, problem, chunk, events, reset, silence, dripping)
    return types.SimpleNamespace(**{name.__name__: name for name in names})


@pytest.fixture
def judge() -> Callable[..., Any]:
    """Make a server that reads the texts it is asked about and judges them as told.

    ``judge(fn)`` is a reply for a ``wire`` server: ``fn`` gets the texts by id and returns the answer, an object or the
    text itself; or bytes, which are sent as they are.
    """

    def reply_of(fn: Callable[[dict[str, str]], Any]) -> Callable[..., bytes]:
        def reply(connection: Any, asked: Any) -> bytes:
            answer = fn(texts_of(asked))
            return answer if isinstance(answer, bytes) else chat(answer)

        return reply

    return reply_of


def texts_of(asked: Any) -> dict[str, str]:
    """The texts that a request asks about: those of the schema, which shrinks when an answer is mended."""
    texts = json.loads(asked.body["messages"][1]["content"])["texts"]
    schema = asked.body.get("response_format", {}).get("json_schema", {}).get("schema")
    return texts if schema is None else {name: texts[name] for name in schema["required"]}


@pytest.fixture
def fine() -> Callable[[str], dict[str, Any]]:
    """A judgement by a simple rule, so that tests can tell whose text it is."""

    def judgement(text: str) -> dict[str, Any]:
        sentiment = "positive" if "good" in text else "negative" if "bad" in text else "neutral"
        return {
            "sentiment": sentiment,
            "score": {"positive": 0.9, "neutral": 0.0, "negative": -0.8}[sentiment],
            "confidence": 0.7,
        }

    return judgement
