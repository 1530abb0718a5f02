"""A real browser in front of a real service; run by ``make test-browser``."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from support.wire import fine, judge, say, wire  # noqa: F401 -- fixtures

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SAMPLES = Path(__file__).parents[2] / "samples"
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def _proxies_do_not_matter() -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ.pop(name, None)


@dataclass
class Running:
    """A command of ours that runs, and where it listens."""

    address: str
    process: subprocess.Popen[bytes]
    again: Callable[[], "Running"]

    def stop(self) -> float:
        """End it with SIGTERM; returns the seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(40)
        return time.monotonic() - began


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Run a subcommand of bulletproof until the test is over; returns when it answers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *arguments: str, port: int | None = None, probe: str = "/health/ready", below: int = 500, **settings: str
    ) -> Running:
        port = port or free_port()
        variables = {
            "PATH": "/usr/bin:/bin",
            "BULLETPROOF_DATA_DIR": str(tmp_path / "data"),
            "BULLETPROOF_ANALYSIS_WORKERS": "0",
            **{f"BULLETPROOF_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "bulletproof", *arguments, "--port", str(port)]
        with (tmp_path / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=log, stderr=log)
        started.append(process)
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                if httpx.get(f"{address}{probe}").status_code < below:
                    return Running(
                        address, process, lambda: start(*arguments, port=port, probe=probe, below=below, **settings)
                    )
            except httpx.TransportError:
                pass
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.05)
        raise AssertionError("it did not start in 30 seconds")

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(40)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(run: Callable[..., Running]) -> Callable[..., Running]:
    """Run the service with these settings."""
    return lambda *arguments, **settings: run("serve", *arguments, **settings)


@dataclass
class Board:
    """The dashboard as somebody sees it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    refusals_expected: bool = False

    def expect_refusals(self) -> None:
        """From now on the browser may note that something was refused or has gone, as the test wants it."""
        self.refusals_expected = True

    def open(self, address: str) -> "Board":
        self.page.goto(address)
        return self

    def live(self) -> "Board":
        expect(self.page.locator(".live")).to_contain_text("Live,")
        return self

    def panel(self, title: str) -> Locator:
        return self.page.get_by_role("region", name=title, exact=True)

    def upload(self, name: str, content: bytes, **fields: str) -> None:
        panel = self.panel("Process a file")
        for label, value in fields.items():
            panel.get_by_label(label.replace("_", " "), exact=False).fill(value)
        panel.locator("input[type=file]").set_input_files(
            files=[{"name": name, "mimeType": "application/octet-stream", "buffer": content}]
        )

    def sees(self, title: str, *texts: str) -> None:
        for text in texts:
            expect(self.panel(title)).to_contain_text(text)


@pytest.fixture
def new_board(browser: Browser) -> Iterator[Callable[..., Board]]:
    """Open a browser window; whatever the browser complains about fails the test."""
    boards: list[Board] = []

    def make(**options: Any) -> Board:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        board = Board(context.new_page())

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error" or "Content Security Policy" in message.text:
                board.complaints.append(message.text)

        board.page.on("console", heard)
        board.page.on("pageerror", lambda error: board.complaints.append(str(error)))
        board.page.on("dialog", lambda dialog: board.complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())
        boards.append(board)
        return board

    yield make
    for board in boards:
        board.page.context.close()
        noted = ("Failed to load resource", "WebSocket connection to") if board.refusals_expected else ()
        assert [text for text in board.complaints if not text.startswith(noted)] == []


@pytest.fixture
def board(new_board: Callable[..., Board]) -> Board:
    return new_board()


@pytest.fixture
def samples() -> Path:
    return SAMPLES
