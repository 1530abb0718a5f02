"""Things are broken on purpose; the page has to say what, where, and what to do."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import expect

from bulletproof.models import ModelRegistry

TEXTS = json.dumps(["good thing", "bad thing"]).encode()


def open_sample(board: Any) -> Any:
    board.panel("Most frequent errors").get_by_role("button").first.click()
    return board.page.get_by_role("dialog").filter(has_text="fingerprint")


def answers(address: str, seconds: float = 30) -> None:
    """Wait until there is an answer: the dashboard beside several workers starts after them."""
    limit = time.monotonic() + seconds
    while True:
        try:
            httpx.get(address, follow_redirects=True)
        except httpx.TransportError:
            assert time.monotonic() < limit, f"{address} does not answer"
            time.sleep(0.1)
        else:
            return


def test_a_breaker_opens_while_one_watches_and_closes_when_the_llm_is_back(
    serve: Any, board: Any, wire: Any, judge: Any, fine: Any
) -> None:
    wire.default = judge(lambda texts: {name: fine(text) for name, text in texts.items()})
    address = serve(llm_base_url=wire.base_url, llm_model="test-model", llm_open_seconds="4").address
    board.open(f"{address}/dashboard/").live()
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "2 of 2 records analysed", "llm/test-model")
    breaker = board.panel("Circuit breakers").locator("li").filter(has_text="llm")
    expect(breaker).to_contain_text("Closed")

    wire.stop()
    for _ in range(3):
        httpx.post(f"{address}/process", files={"file": ("t.json", TEXTS)}, timeout=60)
    expect(breaker).to_contain_text("Open")
    expect(breaker).to_contain_text("Next try in")
    board.sees("Health", "Degraded", "the circuit llm is open")
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "The local model stood in", "2 of 2 records analysed")
    board.sees("Recent runs", "by the stand-in")
    board.sees("Most frequent errors", "External service", "llm", "service_unavailable")
    expect(open_sample(board)).to_contain_text("What to do:")
    board.page.keyboard.press("Escape")

    wire.start()
    limit = time.monotonic() + 60
    while httpx.get(f"{address}/breakers").json()["breakers"]["llm"]["state"] != "closed":
        assert time.monotonic() < limit
        httpx.post(f"{address}/process", files={"file": ("t.json", TEXTS)}, timeout=60)
        time.sleep(0.5)
    expect(breaker).to_contain_text("Closed")


def test_an_llm_that_refuses_our_key(serve: Any, board: Any, wire: Any, say: Any) -> None:
    wire.default = say.problem(401, "Incorrect API key provided: sk-abc123def456ghi789jkl012", "invalid_api_key")
    address = serve(llm_base_url=wire.base_url, llm_model="m", llm_api_key="sk-abc123def456ghi789jkl012").address
    board.open(f"{address}/dashboard/").live()
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "The local model stood in", "auth_failed")
    board.sees("Most frequent errors", "llm", "auth_failed")
    expect(open_sample(board)).to_contain_text("What to do: Check the API key")
    assert "sk-abc123" not in board.page.content()


def test_a_database_that_is_down(serve: Any, board: Any) -> None:
    address = serve(database_url="postgresql://nobody@127.0.0.1:9/none").address
    board.open(f"{address}/dashboard/").live()
    board.sees("Health", "Degraded", "store", "database_unavailable", "What to do:")
    board.sees("Recent runs", "database_unavailable", "What to do:")
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "2 of 2 records analysed", "Not stored")


def test_files_that_cannot_be_used(serve: Any, board: Any) -> None:
    board.open(f"{serve().address}/dashboard/").live()
    bad = {
        "broken.json": (b'{"text": "a"', "invalid_json"),
        "tool.exe": (b"MZ\x90\x00\x03", "unsupported_format"),
        "empty.csv": (b"", "empty_file"),
        "binary.txt": (b"\x00\x01\x02\x03" * 50, "unsupported_format"),
    }
    for name, (content, code) in bad.items():
        board.upload(name, content)
        problem = board.panel("Process a file").locator(".problem")
        expect(problem.locator(".code")).to_have_text(code)
        expect(problem).to_contain_text("What to do:")
    board.sees("Most frequent errors", "processor", *(code for _, code in bad.values()))


def test_a_file_that_is_too_large(serve: Any, board: Any) -> None:
    board.open(f"{serve(max_upload_bytes='100000').address}/dashboard/").live()
    board.upload("large.csv", b"text\n" + b"too much of a good thing\n" * 20_000)
    board.sees("Process a file", "file_too_large", "What to do:")
    board.expect_refusals()


def test_a_service_that_is_away_and_comes_back(run: Any, serve: Any, new_board: Callable[..., Any]) -> None:
    service = serve()
    dashboard = run("dashboard", "--api", service.address, probe="/login")
    board = new_board()
    board.open(dashboard.address).live()
    board.sees("Health", "Healthy")
    assert service.stop() < 10
    trouble = board.page.get_by_role("alert").filter(has_text="Cannot reach the service")
    expect(trouble).to_contain_text(service.address)
    expect(trouble).to_contain_text("Next try in")
    expect(trouble).to_contain_text("What you see is from")
    expect(board.page.locator(".live")).to_have_text("Offline")
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "service_unavailable", "What to do:")
    service.again()
    expect(trouble).to_be_hidden(timeout=45_000)
    board.live()


def test_a_service_that_was_away_from_the_start(run: Any, serve: Any, board: Any) -> None:
    service = serve()
    service.stop()
    dashboard = run("dashboard", "--api", service.address, probe="/", below=600)
    board.open(dashboard.address)
    expect(board.page.get_by_role("heading", name="Cannot reach the service")).to_be_visible()
    service.again()
    board.live()
    board.expect_refusals()


def test_a_service_with_several_workers_brings_its_dashboard_along(serve: Any, board: Any) -> None:
    service = serve("--workers", "2")
    answers(f"{service.address}/dashboard")
    board.open(f"{service.address}/dashboard").live()
    assert not board.page.url.startswith(service.address)
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "2 of 2 records analysed")
    assert service.stop() < 15
    board.expect_refusals()


def test_an_open_page_does_not_keep_the_service_from_stopping(serve: Any, board: Any) -> None:
    service = serve()
    board.open(f"{service.address}/dashboard/").live()
    assert service.stop() < 10
    expect(board.page.get_by_text("Connection lost")).to_be_visible()
    board.expect_refusals()


def test_where_websockets_are_blocked_the_page_lives_by_polling(serve: Any, board: Any) -> None:
    service = serve()
    board.page.add_init_script(
        """const Real = WebSocket;
        window.WebSocket = class extends Real { constructor(url) { super(url.replace('_nicegui_ws', 'blocked')); } };"""
    )
    board.open(f"{service.address}/dashboard/").live()
    board.upload("t.json", TEXTS)
    board.sees("Process a file", "2 of 2 records analysed")
    board.sees("Recent runs", "t.json")
    assert service.stop() < 15
    board.expect_refusals()


def test_a_model_file_that_was_replaced(serve: Any, board: Any, tmp_path: Any) -> None:
    folder = tmp_path / "data" / "models"
    registry = ModelRegistry(folder)
    bundled = registry.manifest("iris", "v1.0")
    source = registry.folder_of(bundled) / bundled.file
    registry.add("flowers", "v1.0", source, type="onnx", input=bundled.input, output=bundled.output)
    (folder / "flowers" / "v1.0" / bundled.file).write_bytes(source.read_bytes() + b"something else")
    address = serve().address  # a model that is loaded already goes on answering from memory
    good = {"model": "flowers", "input_data": [5.1, 3.5, 1.4, 0.2]}
    board.open(f"{address}/dashboard/").live()
    refused = httpx.post(f"{address}/predict", json=good, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "model_tampered")
    board.sees("Most frequent errors", "flowers", "model_tampered")
    expect(open_sample(board)).to_contain_text("What to do:")
    # The other models go on.
    assert httpx.post(f"{address}/predict", json={"input_data": good["input_data"]}).status_code == 200


def test_downloads_that_are_too_slow(serve: Any, board: Any, web: Any) -> None:
    address = serve(fetch_allow_hosts="127.0.0.1", fetch_timeout="1").address
    board.open(f"{address}/dashboard/").live()
    asked = {"urls": [web.url("/drip"), web.url("/page/1")], "max_retries": 0}
    place = httpx.post(f"{address}/batches", json=asked).headers["Location"]
    board.sees("Most frequent errors", "download", "service_timeout")
    expect(open_sample(board)).to_contain_text("What to do:")
    httpx.get(f"{address}{place}/events", timeout=60)  # ends with the batch
    report = httpx.get(f"{address}{place}").json()
    assert (report["success"], report["by_code"]) == (1, {"service_timeout": 1})
