"""Requests: bodies of predictions and forms; and what operators put in files, manifests and keys."""

import asyncio
import atexit
import json
import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request

from bulletproof.errors import AIError, ConfigurationError, InputValidationError, ModelLoadError
from bulletproof.models.files import read_version
from bulletproof.models.manifest import Feature, InputSchema, Manifest
from bulletproof.models.schema import RowReader
from bulletproof.service.json_body import json_object
from bulletproof.service.keys import KeyRing

_read_rows = RowReader(
    InputSchema(
        features=(Feature(name="length", minimum=0, maximum=10), Feature(name="count", type="int"), Feature(name="x")),
        max_rows=5,
    )
)


def prediction(data: bytes) -> None:
    """A body that is taken is JSON, and the numbers read from it are those in it."""

    async def receive() -> Any:
        return {"type": "http.request", "body": data[:60_000], "more_body": False}

    body = json_object(Request({"type": "http", "headers": []}, receive), ("input_data", "model", "model_version"))
    try:
        body.send(None)
        raise AssertionError("it waits for something")
    except StopIteration as done:
        found = done.value
    theirs = json.loads(data[:60_000].decode("utf-8-sig"))
    assert found == theirs or found.keys() == theirs.keys()  # NaN is not equal to itself
    rows, single = _read_rows(found.get("input_data"))
    given = [theirs["input_data"]] if single else theirs["input_data"]
    assert rows.tolist() == [list(map(float, row)) for row in given]  # a number is a double (RFC 8259, section 6)
    assert rows.shape[1] == 3
    assert all(map(math.isfinite, rows.ravel()))
    assert ((rows[:, 0] >= 0) & (rows[:, 0] <= 10) & (rows[:, 1] == np.floor(rows[:, 1]))).all()


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="bulletproof-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def manifest(data: bytes) -> None:
    """A manifest that is taken fits its folder, leads nowhere else and can be written and read again."""
    place = _folder() / "iris" / "v1.0"
    place.mkdir(parents=True, exist_ok=True)
    (place / "manifest.json").write_bytes(data)
    (place / "model.onnx").touch()
    try:
        found = read_version(_folder(), "iris", "v1.0")
    except AIError as error:
        assert isinstance(error, ModelLoadError)
        assert str(error).encode()
        raise
    assert "/" not in found.file
    assert Manifest.model_validate_json(found.model_dump_json(), strict=True) == found


def keys(data: bytes) -> None:
    """A key file is read whole, or is said to be broken; nobody gets in by it who has no key."""
    path = _folder() / "keys.json"
    path.write_bytes(data)
    try:
        ring = KeyRing((), path)
    except AIError as error:
        assert isinstance(error, ConfigurationError)
        raise
    assert ring.find("a key that nobody has") is None


@cache
def _app() -> tuple[asyncio.AbstractEventLoop, Any]:
    from bulletproof.processor import AIDataProcessor
    from bulletproof.service import create_app
    from bulletproof.settings import Settings

    settings = Settings(data_dir=_folder() / "data", analysis_workers=0, max_upload_bytes=64 * 1024)
    app = create_app(settings, AIDataProcessor(settings=settings))
    loop = asyncio.new_event_loop()
    return loop, app


def form(data: bytes) -> None:
    """Every form gets a typed answer, none of them a 500. The first line is the type, where it says so."""
    kind, body = b"multipart/form-data; boundary=x", data
    if data.startswith(b"multipart/"):
        kind, _, body = data.partition(b"\n")
    parts = [body[:10], body[10:]] if len(body) % 2 else [body]
    sent: list[Any] = []

    async def receive() -> Any:
        if not parts:
            await asyncio.Event().wait()  # the client stays and listens
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/process",
        "raw_path": b"/process", "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(b"content-type", kind)], "extensions": {},
    }  # fmt: skip
    loop, app = _app()
    loop.run_until_complete(app(scope, receive, send))
    status, headers = sent[0]["status"], dict(sent[0]["headers"])
    answer = json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
    assert status in (200, 400, 413, 415, 422), f"{status} {answer}"
    assert headers[b"x-content-type-options"] == b"nosniff"
    if status == 200:
        counts = answer["records"]
        assert len(answer["results"]) == counts["analyzed"] <= counts["received"]
        assert all(-1 <= result["score"] <= 1 for result in answer["results"])
        return
    assert (answer["status"], answer["error_type"]) == ("error", "validation_error")
    raise InputValidationError(answer["details"], code=answer["code"])  # whose code has to be one of ours
