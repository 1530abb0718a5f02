"""The shared state over Redis: the real client against a server that speaks the protocol."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulletproof.errors import ConfigurationError
from bulletproof.resilience import AIServiceCircuitBreaker, Notice, SharedState
from bulletproof.resilience.integrations.redis import RedisStateStore


class RedisServer:
    """The few commands that are needed, over a real socket, in RESP2."""

    def __init__(self) -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                words = [await self._word(reader) for _ in range(int(line[1:]))]
                writer.write(self.answer(words[0].upper(), words[1:]))
                await writer.drain()
        finally:
            writer.close()

    @staticmethod
    async def _word(reader: asyncio.StreamReader) -> bytes:
        size = int((await reader.readline())[1:])
        return (await reader.readexactly(size + 2))[:-2]

    def answer(self, command: bytes, words: list[bytes]) -> bytes:
        if command == b"HSET":
            fields = self.hashes.setdefault(words[0], {})
            fields.update(zip(words[1::2], words[2::2], strict=True))
            return b":%d\r\n" % (len(words) // 2)
        if command == b"HGETALL":
            parts = [part for pair in self.hashes.get(words[0], {}).items() for part in pair]
            return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        if command == b"HDEL":
            return b":%d\r\n" % sum(self.hashes[words[0]].pop(word, None) is not None for word in words[1:])
        if command == b"CLIENT":
            return b"+OK\r\n"
        return b"-ERR unknown command '%s'\r\n" % command


@pytest.fixture
async def server() -> AsyncIterator[tuple[RedisServer, str]]:
    redis_server = RedisServer()
    listener = await asyncio.start_server(redis_server.serve, "127.0.0.1", 0)
    async with listener:
        yield redis_server, f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}?protocol=2"


def notice(**values: Any) -> Notice:
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "topic": "breaker", "name": "llm", "state": "open", "by_operator": False, "at": now,
        "until": now + timedelta(seconds=60), "expires": now + timedelta(seconds=60), "source": "one",
    }  # fmt: skip
    return Notice(**defaults | values)


async def test_notices_come_back_as_they_were(server: Any) -> None:
    pytest.importorskip("redis")
    store = RedisStateStore.from_url(server[1])
    one, other = notice(), notice(name="weiß:☃", until=None, expires=None, by_operator=True, state="shadow")
    await store.publish([one, other])
    assert set(await store.fetch()) == {one, other}
    await store.aclose()


async def test_calls_do_not_replace_what_an_operator_holds(server: Any) -> None:
    pytest.importorskip("redis")
    store = RedisStateStore.from_url(server[1])
    held = notice(state="forced_open", by_operator=True, until=None, expires=None)
    await store.publish([held])
    await store.publish([notice(at=held.at + timedelta(seconds=1))])
    assert await store.fetch() == [held]
    released = notice(state="closed", by_operator=True, at=held.at + timedelta(seconds=2))
    await store.publish([released])
    assert await store.fetch() == [released]
    opened = notice(at=held.at + timedelta(seconds=3))
    await store.publish([opened])
    assert await store.fetch() == [opened]
    await store.aclose()


async def test_what_expired_is_not_seen_and_long_after_removed(server: Any) -> None:
    pytest.importorskip("redis")
    store = RedisStateStore.from_url(server[1])
    now = datetime.now(UTC)
    await store.publish([notice(expires=now), notice(name="old", expires=now - timedelta(hours=2))])
    assert await store.fetch() == []
    assert set(server[0].hashes[b"bulletproof:state:calls"]) == {b"breaker:llm"}
    await store.aclose()


async def test_processes_meet_over_a_server_and_one_cannot_reach_it(server: Any) -> None:
    pytest.importorskip("redis")
    stores = [RedisStateStore.from_url(url) for url in (server[1], server[1], "redis://127.0.0.1:1")]
    states = [SharedState(store, source=name) for store, name in zip(stores, ("one", "two", "three"), strict=True)]
    one, other = (state.add(AIServiceCircuitBreaker("llm")) for state in states[:2])
    one.force_open()
    for state in states:
        await state.exchange()
    assert other.state == "forced_open"
    assert [state.status()["reachable"] for state in states] == [True, True, False]
    for store in stores:
        await store.aclose()


async def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match="pip install redis"):
        RedisStateStore.from_url("redis://localhost")
