"""Batches over HTTP: taken at once, watched, steered, downloaded; each key sees its own."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bulletproof.service import create_app
from bulletproof.settings import Settings

Clients = Callable[..., httpx.AsyncClient]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"fetch_allow_hosts": ("127.0.0.1",), "batch_chunk_items": 5})


async def make(client: httpx.AsyncClient, urls: list[str], **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", {})
    response = await client.post("/batches", json={"urls": urls, **more}, headers=headers)
    assert response.status_code == 202, response.text
    report: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"/batches/{report['batch_id']}"
    return report


async def ended(client: httpx.AsyncClient, batch: str, **headers: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            report: dict[str, Any] = (await client.get(f"/batches/{batch}", headers=headers)).json()
            if report["status"] in ("complete", "cancelled"):
                return report
            await asyncio.sleep(0.05)


async def test_a_batch_is_taken_at_once_and_every_item_gets_its_outcome(client: httpx.AsyncClient, web: Any) -> None:
    good = [web.url(f"/page/{number}") for number in range(8)]
    report = await make(client, [*good, good[0], web.url("/status/404"), "no url"])
    assert (report["total"], report["given"], report["duplicates"]) == (10, 11, 1)
    report = await ended(client, report["batch_id"])
    assert (report["status"], report["success"], report["failed"]) == ("complete", 8, 2)
    assert report["by_code"]["not_found"] == 1
    place = f"/batches/{report['batch_id']}"
    page = (await client.get(f"{place}/items", params={"limit": 6})).json()
    rest = (await client.get(page["next"])).json()
    assert [item["url"] for item in page["items"] + rest["items"]][:8] == good
    assert rest["next"] is None
    assert page["items"][0]["result"]["sentiment"] == "positive"
    failed = (await client.get(f"{place}/items", params={"status": "failed"})).json()["items"]
    assert {item["url"] for item in failed} == {web.url("/status/404"), "no url"}
    assert all(item["hint"] for item in failed)


async def test_results_are_downloaded_as_json_lines_and_as_csv_without_formulas(
    client: httpx.AsyncClient, web: Any
) -> None:
    web.put("/formula", b"<html><head><title>=1+1</title></head><body><p>It is a very good thing.</p></body></html>")
    batch = (await make(client, [web.url("/formula")]))["batch_id"]
    await ended(client, batch)
    lines = (await client.get(f"/batches/{batch}/results")).text.splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["success"]
    response = await client.get(f"/batches/{batch}/results", params={"format": "csv"})
    assert response.headers["Content-Disposition"] == f'attachment; filename="{batch}.csv"'
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert row["title"].startswith("'=")


async def test_the_same_key_leads_to_the_same_batch_and_another_list_is_a_conflict(
    client: httpx.AsyncClient, web: Any
) -> None:
    headers = {"Idempotency-Key": "import 7"}
    first = await make(client, [web.url("/page/1")], headers=headers)
    again = await make(client, [web.url("/page/1")], headers=headers)
    assert again["batch_id"] == first["batch_id"]
    other = await client.post("/batches", json={"urls": [web.url("/page/2")]}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


async def test_progress_is_streamed_until_the_end(client: httpx.AsyncClient, web: Any) -> None:
    batch = (await make(client, [web.url(f"/page/{number}") for number in range(3)]))["batch_id"]
    text = (await client.get(f"/batches/{batch}/events")).text
    reports = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert reports[-1]["status"] == "complete"
    assert reports[-1]["success"] == 3


async def test_a_batch_is_paused_resumed_cancelled_retried_and_deleted(client: httpx.AsyncClient, web: Any) -> None:
    web.put("/broken", b"gone", status=404)
    batch = (await make(client, [web.url("/broken"), *(web.url(f"/drip?bytes=50&n={n}") for n in range(20))]))[
        "batch_id"
    ]
    place = f"/batches/{batch}"
    assert (await client.post(f"{place}/pause")).json()["status"] == "paused"
    assert (await client.post(f"{place}/resume")).json()["status"] in ("queued", "running")
    assert (await client.post(f"{place}/cancel")).json()["status"] == "cancelled"
    refused = await client.post(f"{place}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await client.delete(place)).json()["status"] == "deleted"
    assert (await client.get(place)).status_code == 404

    batch = (await make(client, [web.url("/broken")]))["batch_id"]
    assert (await ended(client, batch))["failed"] == 1
    web.put("/broken", b"<p>It is a very good thing, and all of us love it.</p>")
    assert (await client.post(f"/batches/{batch}/retry")).status_code == 200
    assert (await ended(client, batch))["success"] == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"urls": "http://x"}', "application/json", 422, "invalid_input"),
        (b'{"urls": [1]}', "application/json", 422, "invalid_input"),
        (b'{"urls": []}', "application/json", 422, "empty_file"),
        (b"{}", "application/json", 422, "missing_field"),
        (b"{", "application/json", 400, "invalid_request"),
        (b'{"urls": ["http://x"], "priority": 99}', "application/json", 422, "invalid_input"),
        (b'{"urls": ["http://x"], "odd": 1}', "application/json", 422, "invalid_input"),
        (b"\xff\xfe", "text/plain", 422, "empty_file"),
        (b"\xff\xfeh", "text/plain", 422, "invalid_encoding"),
        (b"# nothing\n\n", "text/plain", 422, "empty_file"),
        (b"http://x", "application/xml", 415, "unsupported_format"),
        (b"http://x", "", 415, "unsupported_format"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400, "invalid_request"),
    ],
)
async def test_a_bad_list_is_refused_with_what_is_wrong(
    client: httpx.AsyncClient, body: bytes, kind: str, status: int, code: str
) -> None:
    response = await client.post("/batches", content=body, headers={"Content-Type": kind} if kind else {})
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_a_list_comes_as_text_and_as_a_file(client: httpx.AsyncClient, web: Any) -> None:
    text = f"# pages\n{web.url('/page/1')}\n\n{web.url('/page/2')}\n".encode()
    plain = await client.post("/batches", content=text, headers={"Content-Type": "text/plain"})
    form = await client.post("/batches", files={"file": ("urls.txt", text)})
    assert (plain.json()["total"], form.json()["total"]) == (2, 2)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "utf-16-le"])
async def test_a_list_in_any_encoding_is_read_alike_by_the_service_and_by_the_command(
    client: httpx.AsyncClient, tmp_path: Path, encoding: str
) -> None:
    urls = [f"ftp://example.com/{page}" for page in ("café", "über-uns", "año", "plain")]
    path = tmp_path / "urls.txt"
    path.write_bytes("\r\n".join(["# pages: été", *urls]).encode(encoding))
    command = [sys.executable, "-m", "bulletproof", "batch", "run", str(path), "--json"]
    environment = os.environ | {"BULLETPROOF_DATA_DIR": str(tmp_path / "other")}
    run = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)
    plain = await client.post("/batches", content=path.read_bytes(), headers={"Content-Type": "text/plain"})
    form = await client.post("/batches", files={"file": ("urls.txt", path.read_bytes())})
    if encoding == "utf-16-le":  # nothing in it says so
        assert run.returncode == 2
        assert plain.json()["code"] == form.json()["code"] == "invalid_encoding"
        assert b"NUL byte" in run.stderr
        return
    assert [item["url"] for item in json.loads(run.stdout)["failed_items"]] == urls
    for made in (plain, form):
        items = (await client.get(f"{made.headers['Location']}/items")).json()["items"]
        assert [item["url"] for item in items] == urls
        assert all(warning in run.stderr.decode() for warning in made.json()["warnings"])
        assert bool(made.json()["warnings"]) == (encoding == "latin-1")


async def test_retries_are_set_by_stage_in_whatever_form_the_list_comes(client: httpx.AsyncClient, web: Any) -> None:
    url, by_stage = web.url("/page/1"), {"download": 5, "analyze": 2}
    wanted = {"priority": 2, "max_retries": by_stage}
    asked = {"priority": "2", "max_retries": "download=5,analyze=2"}
    text = {"content": url, "headers": {"Content-Type": "text/plain"}}
    made = [
        await client.post("/batches", json={"urls": [url], **wanted}),
        await client.post("/batches", json={"urls": [url], "max_retries": by_stage}, params={"priority": "2"}),
        await client.post("/batches", **text, params=asked),
        await client.post("/batches", files={"file": ("urls.txt", url)}, data=asked),
    ]
    for response in made:
        assert response.status_code == 202, response.text
        assert response.json()["options"] == wanted
    refused = [
        await client.post("/batches", json={"urls": [url], "max_retries": {"fetch": 1}}),
        await client.post("/batches", **text, params={"max_retries": "fetch=1"}),
        await client.post("/batches", files={"file": ("urls.txt", url)}, data={"max_retries": "many"}),
        await client.post("/batches", files={"file": ("urls.txt", url)}, data={"priority": "9" * 5000}),
        await client.post("/batches", files={"file": ("urls.txt", url)}, data={"retries": "1"}),
    ]
    for response in refused:
        assert response.status_code == 422, response.text
        assert response.json()["hint"]


async def test_the_report_says_what_the_stages_took_and_which_hosts_are_slow(
    client: httpx.AsyncClient, web: Any
) -> None:
    made = await make(client, [web.url(f"/page/{number}") for number in range(6)])
    report = await ended(client, made["batch_id"])
    assert report["stages"]["download"]["attempts"] == report["stages"]["store"]["succeeded"] == 6
    assert all(0 < report["stages"][stage]["p50"] <= report["stages"][stage]["p99"] for stage in report["stages"])
    (host,) = report["slowest_hosts"]
    assert host["downloads"] == 6


async def test_each_key_sees_its_own_batches(settings: Settings, client_of: Clients, web: Any) -> None:
    settings.api_keys = (SecretStr("alice"), SecretStr("bob"))
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        alice, bob = {"X-API-Key": "alice"}, {"X-API-Key": "bob"}
        batch = (await make(client, [web.url("/page/1")], headers=alice))["batch_id"]
        assert [row["batch_id"] for row in (await client.get("/batches", headers=alice)).json()["batches"]] == [batch]
        assert (await client.get("/batches", headers=bob)).json()["batches"] == []
        for method, path in (
            ("GET", ""),
            ("GET", "/items"),
            ("GET", "/events"),
            ("GET", "/results"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ):
            answer = await client.request(method, f"/batches/{batch}{path}", headers=bob)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_an_open_stream_does_not_keep_the_service_from_stopping(serve: Any, web: Any) -> None:
    address = serve(BULLETPROOF_FETCH_ALLOW_HOSTS="127.0.0.1")

    async def watch(batch: str) -> AsyncIterator[str]:
        async with client.stream("GET", f"/batches/{batch}/events") as response:
            async for line in response.aiter_lines():
                yield line

    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        batch = (await make(client, [web.url("/never")]))["batch_id"]
        lines = watch(batch)
        assert (await anext(lines)).startswith("event: progress")
        process = serve.processes[0]
        process.terminate()
        async with asyncio.timeout(15):
            rest = [line async for line in lines]
            assert not any(line.startswith("event: error") for line in rest)
            while process.poll() is None:
                await asyncio.sleep(0.05)
    assert process.returncode in (0, -15)
