"""A service that fails in many ways, with secrets planted wherever there can be one: nothing shows them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

CONTENT = ("plum-content", "plum-cell", "plum-key-in-text", "plum.person@example.com", "plum-number-4111111111111111")
CREDENTIALS = (
    "plum-api-key", "plum-other-key", "plum-llm-key", "plum-llm-password", "plum-model-key", "plum-wrong-key",
    "plum-basic", "plum-cookie", "plum-header", "plum-agent", "plum-url-password", "plum-url-token",
    "plum-idempotency", "plum-request",
)  # fmt: skip
ASKED = ("plum-path", "plum-query")  # what the caller asked for may stand in the answer to that caller alone
SECRETS = (*CONTENT, *CREDENTIALS, *ASKED)
TRACE = re.compile(r"Traceback|File \"|\.py\b|line \d+, in |site-packages|sqlalchemy|pydantic")
KEY = {"Authorization": "Bearer plum-api-key"}
TEXT = " ".join(CONTENT)
BOUNDARY = "multipart/form-data; boundary=x"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.fixture
def service(serve: Any, log: Path) -> Iterator[httpx.Client]:
    """A service that says all it has to say to a log, and a client of it that has a key."""
    with log.open("wb") as output:
        address = serve(
            stderr=output,
            BULLETPROOF_API_KEYS="plum-api-key,plum-other-key",
            BULLETPROOF_LLM_BASE_URL="http://user:plum-llm-password@127.0.0.1:9/v1?token=plum-url-token",
            BULLETPROOF_LLM_API_KEY="plum-llm-key",
            BULLETPROOF_LLM_MAX_ATTEMPTS="1",
            BULLETPROOF_REMOTE_MODEL_KEY="plum-model-key",
            BULLETPROOF_LOG_LEVEL="debug",
            BULLETPROOF_LOG_FORMAT="json",
        )
        with httpx.Client(base_url=address, headers={**KEY, "Connection": "close"}, timeout=60) as client:
            yield client


def failing(client: httpx.Client, folder: Path) -> Iterator[httpx.Response]:
    """Send all that can fail; yield the answers that are errors of ours."""
    files = {
        "a.json": f'["{TEXT}", broken'.encode(),
        "b.json": f'[{{"text": "{TEXT}", "{TEXT}": \\ud800}}]'.encode(),
        "c.json": f'["{TEXT} \\ud800"]'.encode(),
        "d.json": b'{"' + TEXT.encode() + b'": 5}',
        "e.csv": f'text,n\n"{TEXT}\n'.encode(),
        "f.csv": f"id,text\n1,2,3\n{TEXT},1,{TEXT}\n".encode(),
        "g.xyz": TEXT.encode(),
        "h.txt": TEXT.encode() + b"\xff\x00",
        "i.txt.gz": b"\x1f\x8b" + TEXT.encode(),
        "j.jsonl": (TEXT + "\n").encode() * 5,
        "k.pdf": b"%PDF-" + TEXT.encode(),
    }
    for name, content in files.items():
        yield client.post("/process", files={"file": (name, content)})
    plain = {"file": ("a.csv", b"a,b\nc,d\n")}
    yield client.post("/process", files=plain, data={"labels": "a,b", "fallback": "false"})
    yield client.post("/process", content=TEXT.encode(), headers={"Content-Type": BOUNDARY})
    yield client.post("/process", content=b'--x\r\nplum-header: "', headers={"Content-Type": BOUNDARY})
    for body in (
        f'{{"input_data": ["{TEXT}"]}}', '{"input_data": [1], "model": "none"}', f'{{"{TEXT}": 1}}',
        f'{{"input_data": [1, 2, 3, 4], "model_version": "{TEXT[:5]}"}}', f'{{"input_data": [1], "{TEXT}', TEXT,
    ):  # fmt: skip
        yield client.post("/predict", content=body.encode())
        yield client.post("/batches", content=body.encode(), headers={"Content-Type": "application/json"})
    for path in ("/results/plum-path", "/plum-path?key=plum-query", "/batches/plum-path", "/models/plum-path"):
        yield client.get(path)
    yield client.get("/results/abc", params={"after": "plum-query"})
    for wrong in ({"X-API-Key": "plum-wrong-key"}, {"Authorization": "Basic plum-basic"}, {"Authorization": ""}):
        yield client.get("/metrics", headers={"Authorization": "", **wrong})
    yield client.post(
        "/batches", json={"urls": ["http://a"]}, headers={"Idempotency-Key": "plum-idempotency\u00e9".encode()}
    )
    marked = {"Cookie": "plum-cookie", "X-Anything": "plum-header", "User-Agent": "plum-agent", "Referer": "plum-query"}
    yield client.get("/nothing", headers={**marked, "X-Request-ID": "plum-request <b>"})
    with closing(sqlite3.connect(folder / "data" / "results.db")) as database:
        for table in ("results", "rejections", "runs"):  # the library's errors tell the statement, with the texts in it
            database.execute(f"ALTER TABLE {table} RENAME TO gone_{table}")
        database.commit()
    yield client.get("/results/plum-path")


def test_neither_the_log_nor_what_operators_see_holds_a_secret_or_a_text(
    service: httpx.Client, tmp_path: Path, log: Path
) -> None:
    urls = [
        "http://user:plum-url-password@127.0.0.1/",
        "http://127.0.0.1:9/?token=plum-url-token&api_key=plum-url-token",
    ]
    batch = service.post("/batches", json={"urls": urls})
    assert batch.status_code == 202, batch.text
    good = service.post("/process", files={"file": ("good.json", f'["{TEXT}"]'.encode())}).json()
    assert good["degraded"] is True  # the LLM is not there, which is logged
    for response in failing(service, tmp_path):
        assert response.status_code >= 400, response.text
        assert response.json()["code"]
        assert not TRACE.search(response.text), response.text
        for secret in CREDENTIALS:
            assert secret not in response.text, (response.request.url, response.text)
    unstored = service.post("/process", files={"file": ("good.json", f'["{TEXT}"]'.encode())})
    assert unstored.json()["stored"] is False
    shown = {
        path: service.get(path).text for path in ("/errors", "/metrics", "/health", "/breakers", "/runs", "/models")
    }
    shown["exposition"] = service.get("/metrics", headers={"Accept": "text/plain"}).text
    shown["log"] = log.read_text()
    assert shown["log"].count('"code"') > 20
    for place, text in shown.items():
        for secret in SECRETS:
            assert secret not in text, (place, secret, re.findall(f".{{160}}{re.escape(secret)}.{{40}}", text)[:3])
