"""Answers that are none, written to the socket as they are."""

import asyncio
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.web import Request

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def _raw(*parts: bytes) -> Callable[..., Any]:
    async def send(_asked: "Request", writer: asyncio.StreamWriter, _reader: asyncio.StreamReader) -> None:
        writer.write(b"".join(parts))
        await writer.drain()

    return send


async def _reset(_asked: "Request", writer: asyncio.StreamWriter, _reader: asyncio.StreamReader) -> None:
    writer.write(_HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 1000)
    await writer.drain()
    await asyncio.sleep(0.02)
    # Closing with no time to linger sends RST instead of FIN.
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _silent(asked: "Request", writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
    writer.write(_HEAD + b"Content-Length: 100\r\n\r\n" if asked.path == "/stall" else b"")
    await reader.read()  # until the client goes away


async def _strange_headers(asked: "Request", writer: asyncio.StreamWriter, _reader: asyncio.StreamReader) -> None:
    many = b"".join(b"X-Many-%d: yes\r\n" % number for number in range(int(asked.query.get("count", 1000))))
    huge = b"X-Huge: " + b"x" * (1024 * int(asked.query.get("kib", 64))) + b"\r\n"
    writer.write(_HEAD + (huge if asked.path == "/huge-header" else many) + b"Content-Length: 0\r\n\r\n")
    await writer.drain()


RAW: dict[str, Callable[..., Any]] = {
    "reset": _reset,
    "short": _raw(_HEAD, b"Content-Length: 5000\r\n\r\n", b"x" * 500),
    "long": _raw(_HEAD, b"Content-Length: 500\r\n\r\n", b"x" * 5000),
    "cut-chunks": _raw(_HEAD, b"Transfer-Encoding: chunked\r\n\r\n400\r\n", b"x" * 100),
    "close": _raw(),
    "never": _silent,
    "stall": _silent,
    "huge-header": _strange_headers,
    "many-headers": _strange_headers,
    "garbage": _raw(b"220 mail.example ESMTP ready\r\n"),
}
