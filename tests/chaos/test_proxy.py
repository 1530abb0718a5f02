"""A proxy between real sockets: what it does to connections, and that it gives all back."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bulletproof.chaos import TcpProxy


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1", echo) as proxy:
        yield proxy


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes, seconds: float = 5.0) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), seconds)


@pytest.fixture
async def connect(proxy: TcpProxy) -> AsyncIterator[Any]:
    writers = []

    async def make() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return Client(reader, writer)

    yield make
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def test_a_healthy_proxy_changes_nothing(proxy: TcpProxy, connect: Any) -> None:
    client = await connect()
    data = bytes(range(256)) * 4096
    assert await client.ask(data) == data
    client.writer.write_eof()
    assert await client.reader.read() == b""
    for _ in range(200):
        if not proxy.open:
            break
        await asyncio.sleep(0.01)
    assert proxy.open == 0
    assert proxy.counts["bytes_up"] == proxy.counts["bytes_down"] == len(data)
    assert (proxy.counts["accepted"], proxy.counts["reset"]) == (1, 0)


async def test_a_delay_is_felt_by_open_connections(proxy: TcpProxy, connect: Any) -> None:
    client = await connect()
    await client.ask(b"quick")
    await proxy.switch(delay=0.1)
    started = time.monotonic()
    await client.ask(b"slow")
    assert time.monotonic() - started >= 0.2


async def test_throttling_bounds_the_rate(proxy: TcpProxy, connect: Any) -> None:
    await proxy.switch(rate=20_000)
    client, started = await connect(), time.monotonic()
    await client.ask(b"x" * 10_000)
    assert time.monotonic() - started >= 0.5


async def test_a_connection_is_cut_after_so_many_bytes_of_the_answer(proxy: TcpProxy, connect: Any) -> None:
    await proxy.switch(cut_after=1000)
    client = await connect()
    client.writer.write(b"x" * 5000)
    got = b""
    with pytest.raises(ConnectionResetError):
        while True:
            got += await client.reader.read(100)
    assert len(got) <= 1000
    assert (proxy.counts["bytes_down"], proxy.counts["reset"]) == (1000, 1)


async def test_reset_breaks_open_and_new_connections(proxy: TcpProxy, connect: Any) -> None:
    client = await connect()
    await client.ask(b"fine")
    await proxy.switch("reset")
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    other = await connect()
    with pytest.raises(ConnectionResetError):
        await other.reader.read()
    assert proxy.counts["reset"] == 2


async def test_a_black_hole_takes_everything_and_answers_nothing_until_it_is_healed(
    proxy: TcpProxy, connect: Any
) -> None:
    old = await connect()
    await old.ask(b"fine")
    await proxy.switch("blackhole")
    new = await connect()
    for client in (old, new):
        with pytest.raises(TimeoutError):
            await client.ask(b"hello?", seconds=0.1)
    await proxy.switch()
    assert await old.reader.readexactly(6) == await new.reader.readexactly(6) == b"hello?"


async def test_refusing_and_healing_keep_the_port(proxy: TcpProxy, connect: Any) -> None:
    client, port = await connect(), proxy.port
    await client.ask(b"fine")
    await proxy.switch("refuse")
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    with pytest.raises(ConnectionRefusedError):
        await connect()
    await proxy.switch()
    assert proxy.port == port
    assert await (await connect()).ask(b"again") == b"again"


async def test_a_server_that_is_down_is_counted(unused_port: int) -> None:
    async with TcpProxy("127.0.0.1", unused_port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert proxy.counts["unreached"] == 1
        writer.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("wrong", [{"mode": "wrong"}, {"delay": -1}, {"rate": 0}])
async def test_nonsense_is_refused(proxy: TcpProxy, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        await proxy.switch(**wrong)


async def test_leaving_it_resets_what_is_open(echo: int) -> None:
    async with TcpProxy("127.0.0.1", echo) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        await reader.readexactly(1)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
