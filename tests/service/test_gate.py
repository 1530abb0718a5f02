"""Who is let in, how large a body may be, and that nothing leaves without an answer."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bulletproof.service import create_app
from bulletproof.settings import Settings


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[Any]:
    settings.api_keys = (SecretStr("first-key"), SecretStr("second-key"))
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "127.8.8.8", "::ffff:127.0.0.1"])
async def test_without_keys_this_machine_is_let_in(app: Any, client_of: Any, peer: str) -> None:
    async with client_of(app, peer=peer) as client:
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("peer", ["10.0.0.7", "203.0.113.9", "::ffff:10.0.0.1", "2001:db8::1", "unknown", ""])
@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs", "/health/live", "/process"])
async def test_without_keys_others_are_refused(app: Any, client_of: Any, peer: str, path: str) -> None:
    async with client_of(app, peer=peer) as client:
        response = await client.get(path)
    assert response.status_code == 403
    assert "BULLETPROOF_API_KEYS" in response.json()["hint"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_without_keys_a_request_through_a_proxy_is_refused(client: httpx.AsyncClient, header: str) -> None:
    assert (await client.get("/health", headers={header: "127.0.0.1"})).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer first-key"}, {"Authorization": "bearer second-key"}, {"X-API-Key": "first-key"}],
)
async def test_a_valid_key_is_let_in_from_anywhere(keyed: Any, client_of: Any, headers: dict[str, str]) -> None:
    async with client_of(keyed, peer="203.0.113.9") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Basic Zmlyc3Qta2V5"}])
async def test_a_missing_or_wrong_key_is_401_and_the_body_is_not_read(keyed: Any, headers: dict[str, str]) -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/process", "raw_path": b"/process", "query_string": b"",
        "headers": [(key.lower().encode(), value.encode()) for key, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("service", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    await keyed(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["code"] == "unauthorized"
    assert read == 0


async def test_probes_need_no_key_and_health_tells_strangers_its_status_only(keyed: Any, client_of: Any) -> None:
    async with client_of(keyed) as client:
        assert (await client.get("/health/live")).json() == {"status": "alive"}
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        assert set((await client.get("/health")).json()) == {"status"}
        known = await client.get("/health", headers={"X-API-Key": "first-key"})
        assert set(known.json()) >= {"status", "components", "breakers"}


async def test_results_are_for_the_key_that_made_them(keyed: Any, client_of: Any) -> None:
    async with client_of(keyed) as client:
        first, second = {"X-API-Key": "first-key"}, {"X-API-Key": "second-key"}
        made = await client.post("/process", files={"file": ("t.json", b'["good"]')}, headers=first)
        url = f"/results/{made.json()['processing_id']}"
        assert (await client.get(url, headers=first)).status_code == 200
        assert (await client.get(url, headers=second)).status_code == 404


async def test_a_body_over_the_limit_is_refused_before_it_is_read(app: Any, client_of: Any) -> None:
    app.state.services.settings.max_upload_bytes = 1
    async with client_of(app) as client:
        response = await client.post("/process", files={"file": ("t.json", b"x" * 13 * 2**20)})
    assert response.status_code == 413
    assert response.json()["code"] == "file_too_large"
    assert response.json()["details"]


async def test_a_body_over_the_limit_without_a_length_is_refused_on_the_way(client: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="t.json"\r\n\r\n'
        for _ in range(200):
            yield b"y" * 100_000

    response = await client.post(
        "/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code == 413
    assert response.json()["code"] == "file_too_large"


@pytest.mark.parametrize("headers", [{"Host": "evil.com"}, {"Origin": "http://evil.com"}])
async def test_without_keys_pages_of_other_hosts_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """A browser on this machine must not be used against it: neither across sites nor by DNS rebinding."""
    assert (await client.get("/health", headers=headers)).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "service"])
async def test_without_keys_names_of_this_machine_are_let_in(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/health", headers={"Host": host, "Origin": f"http://{host}"})).status_code == 200


def stalling_request(port: int) -> socket.socket:
    """Begin an upload and send no more."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(
        b"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b'Content-Length: 100000\r\n\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="t.json"\r\n'
    )
    return connection


def test_a_body_that_stops_arriving_is_given_up_with_a_typed_answer(serve: Any, free_port: int) -> None:
    serve(BULLETPROOF_UPLOAD_TIMEOUT="0.5")
    with stalling_request(free_port) as connection:
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer


async def test_a_request_that_is_cut_off_by_the_end_of_the_service_is_told_so(app: Any) -> None:
    async def endless(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app.state.services.processor.store.get_run = endless
    scope = {
        "type": "http", "method": "GET", "path": "/results/abc", "raw_path": b"/results/abc", "query_string": b"",
        "headers": [], "client": ("127.0.0.1", 1), "server": ("service", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    task = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["code"] == "overloaded"


async def test_a_request_id_of_safe_form_is_kept_and_any_other_replaced(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health", headers={"X-Request-ID": "abc-1.2_3"})).headers["X-Request-ID"] == "abc-1.2_3"
    for unsafe in ("a b", "x" * 65, "<script>", "a\tb"):
        given = await client.get("/health", headers={"X-Request-ID": unsafe})
        assert given.headers["X-Request-ID"] != unsafe


async def test_errors_come_as_problem_details_when_asked(client: httpx.AsyncClient) -> None:
    response = await client.get("/nothing", headers={"Accept": "application/problem+json"})
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == 404
    assert body["type"] == "urn:bulletproof:error:not_found"
    assert body["title"]
    assert body["detail"]
    assert body["error_type"] == "validation_error"


async def test_an_unknown_path_and_a_wrong_method_are_typed(client: httpx.AsyncClient) -> None:
    unknown = await client.get("/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await client.get("/process")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "POST"


# Starlette leaves the part that was cut off to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"no multipart at all", "multipart/form-data; boundary=x", 400, "invalid_request"),
        (b"", "multipart/form-data", 400, "invalid_request"),
        (b"{}", "application/json", 422, "missing_field"),
        (b"", "", 422, "missing_field"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--x--\r\n',
         "multipart/form-data; boundary=x", 422, "invalid_input"),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="t.json"\r\n\r\n["good"',
         "multipart/form-data; boundary=x", 400, "invalid_request"),
    ],
)  # fmt: skip
async def test_a_broken_form_is_a_typed_error(
    client: httpx.AsyncClient, content: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post("/process", content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_a_bug_is_a_typed_500_that_tells_strangers_nothing(
    app: Any, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret inner detail")

    app.state.services.processor.store.get_run = broken
    with caplog.at_level(logging.ERROR):
        response = await client.get("/results/abc")
    assert response.status_code == 500
    body = response.json()
    assert (body["error_type"], body["code"]) == ("resource_error", "internal_error")
    assert "secret" not in response.text
    assert [record.request_id for record in caplog.records if record.levelno == logging.ERROR] == [body["request_id"]]  # type: ignore[attr-defined]


async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/nothing", "/docs"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "hint"), [("/predict", "fewer rows"), ("/process", "BULLETPROOF_MAX_UPLOAD_BYTES"), ("/nowhere", "less")]
)
async def test_what_is_too_large_is_told_what_helps_at_its_door(
    client: httpx.AsyncClient, path: str, hint: str
) -> None:
    response = await client.post(path, content=b"x", headers={"Content-Length": str(2**40)})
    assert (response.status_code, response.json()["code"]) == (413, "file_too_large")
    assert hint in response.json()["hint"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/process/"), ("POST", "/batches/"), ("GET", "/health/"), ("GET", "/results/x/")]
)
async def test_a_slash_at_the_end_leads_nowhere_and_the_hint_names_the_path_without(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path, content=b"x" * 3 * 2**20 if method == "POST" else None)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json()["hint"].endswith(f": {path[:-1]}")


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/batches/x/items?stauts=failed", "status, code, after, limit"),
        ("GET", "/errors?limit=3&type=model_error", "limit, service, error_type"),
        ("POST", "/batches/x/retry?codes=timeout", "code"),
    ],
)
async def test_a_query_parameter_that_a_route_does_not_know_is_named_with_those_it_knows(
    client: httpx.AsyncClient, method: str, path: str, known: str
) -> None:
    response = await client.request(method, path)
    body = response.json()
    assert (response.status_code, body["code"], body["error_type"]) == (422, "invalid_input", "validation_error")
    assert repr(path.rpartition("=")[0].rpartition("&")[2].rpartition("?")[2]) in body["details"]
    assert body["hint"].endswith(f": {known}.")


async def test_what_probes_and_proxies_add_to_an_address_without_parameters_does_no_harm(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/health/live?_=1764015000", "/metrics?format=prometheus"):
        assert (await client.get(path)).status_code == 200
