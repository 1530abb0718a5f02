"""What a full door has no room for is refused by the server itself, just as the app would."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from bulletproof.service import create_app
from bulletproof.service.connections import Connections
from bulletproof.settings import Settings

REQUEST = b"POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n%s"
BODY = b'--x\r\nContent-Disposition: form-data; name="file"; filename="t.json"\r\n\r\n["good"]\r\n--x--\r\n'
WHOLE = REQUEST % (b"Content-Length: %d\r\n\r\n" % len(BODY)) + BODY


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connections, log_config=None, lifespan="on"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def fill(app: Any, caller: str = "local") -> None:
    door = app.state.services.doors.uploads
    while not door.refuses(caller):
        door.admit(caller)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requests that came as far as the gate."""
    from bulletproof.service.gate import Gate

    seen: list[str] = []
    before = Gate.__call__

    async def noting(self: Gate, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope.get("path", scope["type"]))
        await before(self, scope, receive, send)

    monkeypatch.setattr(Gate, "__call__", noting)
    return seen


async def test_the_answer_is_the_same_and_the_connection_goes_on(settings: Settings, calls: list[str]) -> None:
    app = create_app(settings)
    async with served(app) as port:
        fill(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        quick = await answer(reader)
        assert calls.count("/process") == 0
        writer.write(WHOLE.replace(b"Host: 127", b"Accept: application/problem+json\r\nHost: 127"))
        assert (await answer(reader))[1]["content-type"] == "application/problem+json"
        assert calls.count("/process") == 1  # whatever is asked for in another form goes the long way
        app.state.services.doors.uploads.leave("local")
        writer.write(WHOLE)
        fine = await answer(reader)
        assert fine[0] == 200, fine
        fill(app)
        writer.write(WHOLE.replace(b"Host:", b"X-Request-ID: mine\r\nHost:") + WHOLE)
        given, next_one = await answer(reader), await answer(reader)
        writer.close()
    assert (quick[0], quick[2]["code"], quick[2]["retryable"]) == (503, "overloaded", True)
    assert int(quick[1]["retry-after"]) >= 1
    assert quick[1].keys() - {"retry-after"} >= fine[1].keys() - {"transfer-encoding"}
    assert quick[1]["x-request-id"] == quick[2]["request_id"] != next_one[2]["request_id"]
    assert (given[1]["x-request-id"], given[2]["request_id"]) == ("mine", "mine")
    assert next_one[0] == 503
    measures = app.state.services.measures.families()
    counted = next(family for family in measures if family.name == "bulletproof_request_seconds")
    assert [sample.value for sample in counted.samples
            if sample.name.endswith("_count") and sample.labels["route"] == "/process"
            and sample.labels["status"] == "503"] == [3]  # fmt: skip


async def test_a_request_that_comes_again_is_refused_again_until_there_is_room(settings: Settings) -> None:
    app = create_app(settings)
    other = WHOLE.replace(b'["good"]', b'["nice"]')
    head, body = WHOLE[: -len(BODY)], BODY
    async with served(app) as port:
        fill(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ids = set()
        for piece in (WHOLE, WHOLE, other, head, body, WHOLE, head, body, head[:50], head[50:] + body):
            writer.write(piece)
            await asyncio.sleep(0.01)
        for _ in range(7):
            status, _, told = await answer(reader)
            assert (status, told["code"]) == (503, "overloaded")
            ids.add(told["request_id"])
        assert len(ids) == 7
        app.state.services.doors.uploads.leave("local")
        writer.write(WHOLE)
        assert (await answer(reader))[0] == 200
        fill(app)
        writer.write(WHOLE)
        assert (await answer(reader))[0] == 503
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_a_body_that_is_still_on_its_way_is_read_and_thrown_away(settings: Settings) -> None:
    app = create_app(settings)
    async with served(app) as port:
        fill(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST % b"Content-Length: 300000\r\n\r\n")
        assert (await answer(reader))[0] == 503  # before a byte of it is there
        writer.write(b"x" * 300_000 + b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.write(WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"], await reader.read()) == (503, "close", b"")
        writer.close()


@pytest.mark.parametrize("line", [b"HTTP/1.1\r\nConnection: close", b"HTTP/1.0"])
@pytest.mark.parametrize(("key", "expected"), [(b"one", 503), (b"wrong", 401)])
async def test_who_sends_a_last_request_hears_the_answer_before_the_connection_ends(
    settings: Settings, line: bytes, key: bytes, expected: int
) -> None:
    settings.api_keys = (SecretStr("one"),)
    app = create_app(settings)
    async with served(app) as port:
        fill(app, app.state.services.keys.find("one").owner)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        more = b"X-API-Key: %s\r\nContent-Length: 3000000\r\n\r\n" % key
        writer.write((REQUEST % more).replace(b"HTTP/1.1", line))
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (expected, "close")
        for _ in range(3):  # a reset would be an error here
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_an_empty_line_before_a_request_is_not_taken_for_one(settings: Settings) -> None:
    settings.api_keys = (SecretStr("one"),)
    app = create_app(settings)
    known, unknown = (WHOLE.replace(b"Host:", b"X-API-Key: %s\r\nHost:" % key) for key in (b"one", b"two"))
    async with served(app) as port:
        fill(app, app.state.services.keys.find("one").owner)
        for request, status in ((known, 503), (unknown, 401)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\r\n\r\n" + request.replace(BODY, b"x" * len(BODY)))
            assert (await answer(reader))[0] == status
            writer.close()
        refused = REQUEST % b"X-API-Key: one\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\r\n\r\n" + refused)
        assert (await answer(reader))[0] == 503
        writer.write(b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200  # and nothing came before it
        writer.close()


async def test_a_short_key_is_not_told_from_wrong_ones_to_who_has_guessed_often(settings: Settings) -> None:
    settings.api_keys = (SecretStr("one"),)
    app = create_app(settings)
    async with served(app) as port:
        fill(app, app.state.services.keys.find("one").owner)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        told = []
        for key in (b"wrong",) * 61 + (b"one",):
            writer.write(WHOLE.replace(b"Host:", b"X-API-Key: %s\r\nHost:" % key))
            told.append((await answer(reader))[0])
        writer.close()
    assert told == [401] * 60 + [429, 429]


async def test_one_who_has_nothing_more_to_say_hears_the_answer(settings: Settings) -> None:
    app = create_app(settings)
    async with served(app) as port:
        fill(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        assert (await answer(reader))[0] == 503
        writer.write(WHOLE)
        writer.write_eof()
        assert (await answer(reader))[0] == 503
        assert await reader.read() == b""
        writer.close()


async def test_a_post_that_asks_for_a_websocket_is_refused_in_the_form_of_every_error(settings: Settings) -> None:
    async with served(create_app(settings)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE.replace(b"Host:", b"Connection: Upgrade\r\nUpgrade: websocket\r\nHost:"))
        status, _, told = await answer(reader)
        assert (status, told["status"]) == (400, "error")
        writer.close()


async def test_who_may_not_come_in_is_told_so_also_when_it_is_full(settings: Settings) -> None:
    settings.api_keys = (SecretStr("one"), SecretStr("another"))
    app = create_app(settings)
    async with served(app) as port:
        owner = app.state.services.keys.find("one").owner
        fill(app, owner)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for key, status in ((b"one", 503), (b"wrong", 401), (b"another", 200)):
            writer.write(WHOLE.replace(b"Host:", b"X-API-Key: %s\r\nHost:" % key))
            assert (await answer(reader))[0] == status, key
        writer.close()


@pytest.mark.usefixtures("mid_minute")
async def test_limits_of_a_caller_count_what_is_refused(settings: Settings) -> None:
    settings.requests_per_minute = 3
    app = create_app(settings)
    async with served(app) as port:
        fill(app)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        seen = []
        for _ in range(5):
            writer.write(WHOLE)
            status, headers, _ = await answer(reader)
            seen.append((status, headers["ratelimit"].partition("r=")[2][0]))
        writer.close()
    assert seen == [(503, "2"), (503, "1"), (503, "0"), (429, "0"), (429, "0")]


async def test_headers_without_end_are_refused_and_take_no_memory(settings: Settings) -> None:
    async with served(create_app(settings)) as port:
        for line in (b"X-Much: %s\r\n" % (b"a" * 1000), b"a" * 1000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: ")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 2**22 and not reader.at_eof():
                    writer.write(line)
                    sent += len(line)
                    await writer.drain()
                    await asyncio.sleep(0)
            assert sent < 2**22
            with contextlib.suppress(ConnectionError):  # the answer may be lost to one who goes on sending
                status, _, body = await answer(reader)
                assert (status, body["code"]) == (431, "invalid_request")
            writer.close()


async def test_what_is_no_http_is_answered_in_the_form_of_every_error(settings: Settings) -> None:
    async with served(create_app(settings)) as port:
        for nonsense in (b"\x16\x03\x01\x02", b"GET / HTTP/1.1\nHost: x\n\n", b"A B C D\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            status, headers, body = await answer(reader)
            assert (status, headers["connection"], body["code"]) == (400, "close", "invalid_request")
            assert {"error", "error_type", "details", "status", "hint"} <= body.keys()
            writer.close()
