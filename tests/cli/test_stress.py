"""``bulletproof stress`` finds what is wrong with a service, and nothing wrong with this one."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bulletproof.cli.main import app
from bulletproof.cli.stress import Outcome, _expected, _short, _show, run_case
from bulletproof.cli.stress_cases import StressCase, stress_cases

SEED = {
    "empty_file.json",
    "huge_file_10mb.csv",
    "corrupted_data.json",
    "unsupported_format.xyz",
    "malicious_input.txt",
    "unicode_nightmare.csv",
}


def test_this_service_has_no_surprises() -> None:
    done = CliRunner().invoke(app, ["stress", "--json"])
    outcomes = json.loads(done.stdout)
    assert [item for item in outcomes if item["surprise"]] == []
    assert done.exit_code == 0
    assert {item["name"] for item in outcomes} >= SEED


def test_the_six_everyday_files_and_forty_more_are_sent() -> None:
    cases = list(stress_cases())
    assert {case.name for case in cases} >= SEED
    assert sum(case.path == "/process" for case in cases) >= 46
    assert len(cases[1].make()) >= 10_000_000


def test_the_table_can_be_read_in_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    codes = [(case, f"{case.status[0]} {case.codes[0] if case.codes else ''}".strip()) for case in stress_cases()]
    _show([Outcome(_short(case.name), case.why, _expected(case), code, 1.0, "") for case, code in codes])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("ok")]
    assert len(rows) == len(codes)
    for row, (case, code) in zip(rows, codes, strict=True):
        assert code in row
        assert case.name in row or case.name not in SEED
    assert len(lines) < 2 * len(codes)


@pytest.fixture
def careless() -> Iterator[str]:
    """A service that answers everything with a bare 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def busy() -> Iterator[str]:
    """A service that is busy, not busy, and from then on busy."""
    statuses = [503, 422]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(statuses.pop(0) if statuses else 503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_service_that_answers_a_bare_500_is_all_surprises(careless: str) -> None:
    done = CliRunner().invoke(app, ["stress", "--url", careless])
    assert done.exit_code == 1
    assert "0 of " in done.stdout


async def test_a_service_that_is_busy_is_asked_once_more_when_it_says(busy: str) -> None:
    case = StressCase("t.json", "", lambda: b"[", (422,), ("invalid_json",))
    async with httpx.AsyncClient(base_url=busy) as client:
        assert [(await run_case(client, case)).got for _ in range(2)] == ["422", "503"]


def test_a_service_that_is_not_there_is_told_of() -> None:
    done = CliRunner().invoke(app, ["stress", "--url", "http://127.0.0.1:9", "--json"])
    assert done.exit_code == 1
    (only,) = json.loads(done.stdout)
    assert "no answer" in only["surprise"]
    assert "The other" in done.stderr


def test_a_wrong_key_is_told_of_once(careless: str) -> None:
    # Sixty wrong keys would lock the address out.
    from bulletproof.cli.stress import Outcome, _run

    async def refuses(_client: object, case: StressCase) -> Outcome:
        return Outcome(case.name, case.why, "200", "401 unauthorized", 0.0, "status 401: the API key is not valid")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bulletproof.cli.stress.run_case", refuses)
        outcomes, unsent = asyncio.run(_run(careless, "wrong", Console(stderr=True)))
    assert (len(outcomes), unsent > 60) == (1, True)
