"""The log: one line for a failure, with ids, stage and code; nothing secret and no file content."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bulletproof.errors import StoreError
from bulletproof.service import create_app
from bulletproof.service.logs import configure_logs
from bulletproof.settings import Settings

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Configure the log as the service does; returns the lines since the last call."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs(Settings(log_format="json", log_level="info"))
    written = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)

    def since() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in written.getvalue().splitlines()]
        written.seek(0)
        written.truncate()
        return found

    yield since
    root.handlers[:] = handlers
    root.setLevel(level)


def failures(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["level"] in ("warning", "error", "critical") or line.get("status", 0) >= 400]


async def send(client: httpx.AsyncClient, content: bytes, name: str = "t.json") -> httpx.Response:
    return await client.post("/process", files={"file": (name, content)})


async def test_a_bad_file_is_one_line_with_both_ids_stage_and_code(lines: Lines, client: httpx.AsyncClient) -> None:
    lines()
    body = (await send(client, b"[broken")).json()
    (line,) = failures(lines())
    assert line["request_id"] == body["request_id"]
    assert line["processing_id"] == body["processing_id"]
    assert (line["stage"], line["code"], line["error_type"]) == ("validate", "invalid_json", "validation_error")


async def test_a_refused_request_is_one_line_with_its_code(lines: Lines, client: httpx.AsyncClient) -> None:
    lines()
    body = (await client.get("/nothing")).json()
    (line,) = failures(lines())
    assert (line["code"], line["status"], line["request_id"]) == ("not_found", 404, body["request_id"])


async def test_a_bug_is_one_line_that_says_where_but_not_what_a_message_held(
    lines: Lines, app: Any, client: httpx.AsyncClient
) -> None:
    async def broken(*_: object, **__: object) -> None:
        try:
            raise KeyError("hunter2")
        except KeyError as error:
            raise ValueError("row: hunter2") from error

    app.state.services.processor.store.get_run = broken
    lines()
    body = (await client.get("/results/abc")).json()
    (line,) = failures(lines())
    assert (line["code"], line["request_id"]) == ("internal_error", body["request_id"])
    assert "in broken" in line["exception"]
    assert line["exception"].index("KeyError") < line["exception"].index("ValueError")
    assert "hunter2" not in json.dumps({key: value for key, value in line.items() if key != "exception"})
    assert "builtins.ValueError" in line["exception"]
    assert "builtins.ValueError: row" not in line["exception"]


async def test_a_store_that_is_down_is_one_line_although_the_file_is_answered(
    lines: Lines, app: Any, client: httpx.AsyncClient
) -> None:
    async def down(*_: object, **__: object) -> None:
        raise StoreError("the database does not answer")

    store = app.state.services.processor.store
    store.begin_run = down
    lines()
    body = (await send(client, b'["good"]')).json()
    assert body["stored"] is False
    (line,) = failures(lines())
    assert (line["stage"], line["code"]) == ("store", "database_unavailable")
    assert (line["request_id"], line["processing_id"]) == (body["request_id"], body["processing_id"])


async def test_an_llm_that_is_down_is_one_line_although_the_local_model_answers(
    lines: Lines, settings: Settings, client_of: Any
) -> None:
    settings.llm_base_url, settings.llm_max_attempts = "http://127.0.0.1:9/v1", 2
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        lines()
        body = (await send(client, b'["good", "bad"]')).json()
        assert body["degraded"] is True
        said = [line for line in lines() if line.get("request_id") == body["request_id"] and "status" not in line]
    (line,) = said
    assert (line["stage"], line["code"]) == ("analyze", "service_unavailable")
    assert line["processing_id"] == body["processing_id"]


async def test_whatever_is_logged_during_a_request_carries_its_id(
    lines: Lines, app: Any, client: httpx.AsyncClient
) -> None:
    processor = app.state.services.processor
    original = processor.store.begin_run

    async def talkative(*args: Any, **options: Any) -> None:
        logging.getLogger("somebody.else").info("beginning")
        await original(*args, **options)

    processor.store.begin_run = talkative
    body = (await send(client, b'["good"]')).json()
    line = next(line for line in lines() if line["event"] == "beginning")
    assert line["request_id"] == body["request_id"]
    assert line["processing_id"] == body["processing_id"]
    assert line["stage"] == "store"


async def test_an_answer_broken_off_is_logged_once(lines: Lines, settings: Settings, client_of: Any) -> None:
    from starlette.responses import StreamingResponse

    app = create_app(settings)

    async def half() -> Any:
        yield b"half"
        raise RuntimeError("broken off")

    app.add_api_route("/half", lambda: StreamingResponse(half()))
    async with app.router.lifespan_context(app), client_of(app) as client:
        lines()
        try:
            await client.get("/half")
        except Exception as error:
            logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    assert [line["code"] for line in failures(lines())] == ["internal_error"]
