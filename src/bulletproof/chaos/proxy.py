"""A TCP proxy that does to connections what networks do to them."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, Self, get_args

Mode = Literal["pass", "blackhole", "reset", "refuse"]
"""``pass`` hands everything on; ``blackhole`` takes connections and bytes and never answers; ``reset`` breaks every
connection off with RST; ``refuse`` does not listen."""

_CHUNK = 64 * 1024
_RST_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: what is unsent is dropped and RST is sent (RFC 9293)


class TcpProxy:
    """Stands between a client and a server, real sockets on both sides, and spoils what passes through.

    Put the address of the proxy where that of the server was. It may be switched while connections are open: those feel
    it too.

    Args:
        host: Where the server is.
        port: Its port.
        listen_host: Where to listen.
        listen_port: The port to listen on; any free one by default. It stays the same for the life of the proxy.
        sleep: Waits so many seconds.

    Attributes:
        mode: What is done to connections; see ``switch``.
        delay: Seconds that each piece of data is late, in both directions.
        rate: Most bytes in a second, in each direction of each connection; None for no limit.
        cut_after: Bytes of answers after which a connection is reset; None for never.
        counts: ``accepted``, ``unreached`` (there was no server), ``reset``, ``bytes_up`` and ``bytes_down``.

    Example:
        >>> import asyncio
        >>> async def answer(reader, writer):
        ...     writer.write(await reader.read(100))
        ...     writer.close()
        >>> async def main():
        ...     server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ...     async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        ...         reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        ...         writer.write(b"hello")
        ...         print(await reader.read())
        ...         writer.close()
        ...         await proxy.switch("refuse")
        ...         await asyncio.open_connection("127.0.0.1", proxy.port)
        >>> asyncio.run(main())
        Traceback (most recent call last):
        ...
        ConnectionRefusedError: ...
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        listen_host: str = "127.0.0.1",
        listen_port: int = 0,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.host, self.port = listen_host, listen_port
        self._target = (host, port)
        self._sleep = sleep
        self.mode: Mode = "pass"
        self.delay = 0.0
        self.rate: float | None = None
        self.cut_after: int | None = None
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[Any]] = set()
        self._passing = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.switch(self.mode)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unlisten()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        await asyncio.sleep(0)  # in which the sockets are closed

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._links)

    async def switch(
        self, mode: Mode = "pass", *, delay: float = 0.0, rate: float | None = None, cut_after: int | None = None
    ) -> None:
        """Behave in another way from now on; whatever is not given is as in a healthy network.

        Args:
            mode: ``pass``, ``blackhole``, ``reset`` or ``refuse``; the last two break off open connections.
            delay: Seconds that each piece of data is late.
            rate: Most bytes in a second.
            cut_after: Bytes of answers after which a connection is reset.

        Raises:
            ValueError: There is no such mode, or a number is out of range.
        """
        if mode not in get_args(Mode) or delay < 0 or (rate is not None and rate <= 0):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, delay at least 0 and rate above 0")
        self.mode, self.delay, self.rate, self.cut_after = mode, delay, rate, cut_after
        if mode == "pass":
            self._passing.set()
        else:
            self._passing.clear()
        if mode == "refuse":
            self._unlisten()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accepted, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        if mode in ("reset", "refuse"):
            self.reset_all()

    def reset_all(self) -> None:
        """Break off every open connection with RST, on both sides; new ones are taken as before."""
        for link in list(self._links):
            link.cancel()

    def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["accepted"] += 1
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        ends = [writer]
        pumps: list[asyncio.Task[None]] = []
        finish: Callable[[asyncio.StreamWriter], None] = _reset
        try:
            if self.mode != "reset":
                await self._passing.wait()
                there, onward = await asyncio.open_connection(*self._target)
                ends.append(onward)
                pumps = [asyncio.create_task(self._pump(reader, onward, "bytes_up")),
                         asyncio.create_task(self._pump(there, writer, "bytes_down"))]  # fmt: skip
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
                for pump in done:
                    pump.result()
                finish = asyncio.StreamWriter.close
        except (OSError, asyncio.CancelledError):
            pass  # cancelled by us alone: this connection is all that the task is for
        finally:
            self._links.discard(link)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.counts["unreached"] += bool(self._passing.is_set() and len(ends) == 1)
            self.counts["reset"] += finish is _reset
            for end in ends:
                finish(end)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counter: str) -> None:
        passed = 0
        while True:
            piece = _CHUNK if self.rate is None else max(1, min(_CHUNK, int(self.rate / 10)))
            data = await source.read(piece)
            wait = self.delay + (len(data) / self.rate if self.rate is not None else 0)
            if wait:
                await self._sleep(wait)
            await self._passing.wait()
            if not data:
                sink.write_eof()
                return
            cut = counter == "bytes_down" and self.cut_after is not None and passed + len(data) > self.cut_after
            sent = data[: self.cut_after - passed] if cut and self.cut_after is not None else data
            sink.write(sent)
            await sink.drain()
            passed += len(sent)
            self.counts[counter] += len(sent)
            if cut:
                raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST at once."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):  # closed by the other side already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_AT_CLOSE)
    writer.transport.abort()
