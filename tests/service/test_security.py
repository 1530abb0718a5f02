"""What every answer carries and none does: security headers, no CORS, ids of safe letters, hosts that are ours."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bulletproof.service import create_app
from bulletproof.service.hosts import TrustedHosts
from bulletproof.settings import Settings, load_settings

SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FILE = {"file": ("a.json", b'["It is good."]')}


async def every_kind(app: Any, client: httpx.AsyncClient) -> AsyncIterator[tuple[int, httpx.Response]]:
    """Yield answers of every kind, each with the status that it should have."""
    yield 200, await client.get("/health")
    yield 200, await client.get("/metrics", headers={"Accept": "text/plain"})
    yield 200, await client.post("/process", files=FILE)
    yield 200, await client.post("/predict", json={"input_data": [5.1, 3.5, 1.4, 0.2]})
    yield 200, await client.get("/docs")
    yield 200, await client.get("/openapi.json")
    made = await client.post("/batches", json={"urls": ["http://10.0.0.1/"]})
    yield 202, made
    yield 200, await client.get(f"/batches/{made.json()['batch_id']}/events")
    yield 200, await client.get(f"/batches/{made.json()['batch_id']}/results", params={"format": "csv"})
    yield 202, await client.post("/process", files=FILE, headers={"Prefer": "respond-async"})
    yield 400, await client.post("/predict", content=b"{")
    yield 404, await client.get("/nothing", headers={"Accept": "application/problem+json"})
    yield 405, await client.delete("/process")
    yield 405, await client.options("/process", headers={"Access-Control-Request-Method": "POST"})
    yield 413, await client.post("/predict", content=b"x" * (3 * 2**20))
    yield 415, await client.post("/process", files={"file": ("a.xyz", b"a")})
    yield 422, await client.post("/process", files={"file": ("a.json", b"[")})

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    app.state.services.processor.store.get_run = broken
    yield 500, await client.get("/results/abc")


async def test_every_kind_of_answer_has_the_security_headers_and_lets_no_other_origin_in(
    app: Any, client_of: Any
) -> None:
    async with client_of(app) as client:
        client.headers.update({"Origin": "http://localhost:3000", "X-Request-ID": "<script>alert(1)</script>"})
        seen = set()
        async for status, answer in every_kind(app, client):
            seen.add(status)
            assert answer.status_code == status, (answer.request.url, answer.text)
            headers = answer.headers
            assert headers["X-Content-Type-Options"] == "nosniff", answer.request.url
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert headers["Referrer-Policy"] == "no-referrer"
            assert "no-store" in headers["Cache-Control"] or "no-cache" in headers["Cache-Control"]
            assert SAFE_ID.fullmatch(headers["X-Request-ID"])
            assert len(headers.get_list("X-Request-ID")) == len(headers.get_list("X-Content-Type-Options")) == 1
            assert not [name for name in headers if name.startswith("access-control-")], answer.request.url
            assert not {"server", "x-powered-by"} & headers.keys()
        assert seen >= {200, 202, 400, 404, 405, 413, 415, 422, 500}


async def test_a_request_id_of_other_letters_is_replaced_everywhere(client: httpx.AsyncClient) -> None:
    for given in ("", " ", "a b", "x" * 65, "a\tb", "a/b", "é", "a;b", 'a"b', "%0d%0a", "ａ", "../x"):
        answer = await client.get("/nothing", headers={"X-Request-ID": given.encode()})
        made = answer.headers["X-Request-ID"]
        assert SAFE_ID.fullmatch(made)
        assert made == answer.json()["request_id"] != given


@pytest.fixture
async def named(settings: Settings, client_of: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings.trusted_hosts = ("ai.example.com", "*.example.org", "[::1]:8000", "Service")
    settings.api_keys = (SecretStr("key"),)
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        client.headers["X-API-Key"] = "key"
        yield client


OURS = ("ai.example.com", "AI.Example.com:8443", "ai.example.com.", "service", "a.b.example.org:80", "[::1]:8000")
FOREIGN = (
    "evil.example", "example.org", "evilexample.org", "ai.example.com.evil", "ai.example.com@evil", "ai.example.com#",
    "evil/ai.example.com", "ai.example.com:port", "[::1]:9", "[", "", "127.0.0.1",
)  # fmt: skip


async def test_only_hosts_that_are_named_are_answered_for(named: httpx.AsyncClient) -> None:
    for host in (*OURS, *FOREIGN):
        answer = await named.post("/predict", json={"input_data": [5.1, 3.5, 1.4, 0.2]}, headers={"Host": host})
        if host in OURS:
            assert answer.status_code == 200, (host, answer.text)
            continue
        body = answer.json()
        assert (answer.status_code, body["code"], body["error_type"]) == (400, "invalid_request", "validation_error")
        assert "BULLETPROOF_TRUSTED_HOSTS" in body["hint"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_foreign_host_is_refused_before_the_body_is_read_and_by_whoever_it_is(named: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    answer = await named.post("/process", content=endless(), headers={"Host": "evil.example", "X-API-Key": "wrong"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_probes_are_answered_by_any_name(named: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/health/ready"):
        assert (await named.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200
    assert (await named.get("/health", headers={"Host": "10.1.2.3:8000"})).status_code == 400


async def test_a_websocket_for_a_foreign_host_is_closed(settings: Settings) -> None:
    settings.trusted_hosts = ("ai.example.com",)
    settings.api_keys = (SecretStr("key"),)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"evil.example"), (b"x-api-key", b"key")]
    scope = {"type": "websocket", "path": "/dashboard/_nicegui_ws", "headers": headers, "client": ("10.0.0.1", 1)}
    await create_app(settings)(scope, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_websocket_where_there_is_none_gets_an_error_as_any_request_does(serve: Any, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        address = serve(stderr=log)
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        answer = httpx.get(f"{address}/process", headers=handshake | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        serve.stop()
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (404, "not_found", "error")
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert '"level":"error"' not in (tmp_path / "log").read_text()


def test_any_host_is_answered_for_by_default_and_names_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().trusted_hosts == ()
    TrustedHosts(()).check("/", {"host": "evil.example"})
    monkeypatch.setenv("BULLETPROOF_TRUSTED_HOSTS", "ai.example.com, *.example.org,")
    assert load_settings().trusted_hosts == ("ai.example.com", "*.example.org")
