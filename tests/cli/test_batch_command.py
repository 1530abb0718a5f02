"""``bulletproof batch``: run, killed, run again; watched, steered, written out."""

import asyncio
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bulletproof.cli import batch as module
from bulletproof.cli.batch import _command, _log
from support.web import Answer, page


@pytest.fixture
def command(tmp_path: Path) -> Any:
    variables = {
        "PATH": os.environ["PATH"],
        "BULLETPROOF_DATA_DIR": str(tmp_path / "data"),
        "BULLETPROOF_FETCH_ALLOW_HOSTS": "127.0.0.1",
        "BULLETPROOF_BATCH_CHUNK_ITEMS": "10",
    }

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "bulletproof", "batch", *arguments],
            env=variables,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def done(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


@pytest.fixture
def urls(tmp_path: Path, web: Any) -> Path:
    path = tmp_path / "urls.txt"
    path.write_text("# pages\n" + "\n".join(web.url(f"/page/{number}") for number in range(60)) + "\n")
    return path


def test_a_list_is_processed_and_its_results_written(command: Any, urls: Path, tmp_path: Path, web: Any) -> None:
    with urls.open("a") as file:
        file.write(web.url("/status/404") + "\n")
    code, out, _ = done(command("run", str(urls), "--out", "r.csv", "--json"))
    report = json.loads(out)
    assert (code, report["status"], report["success"], report["failed"]) == (1, "complete", 60, 1)
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["success"] * 60 + ["failed"]
    listed = json.loads(done(command("list", "--json"))[1])
    assert [row["batch_id"] for row in listed] == [report["batch_id"]]
    assert report["attempts"] >= 60 * 4 + 1
    shown = done(command("status", report["batch_id"]))[1]
    assert "/status/404" in shown
    assert report["failed_items"][0]["code"] in shown
    written = done(command("results", report["batch_id"]))[1].splitlines()
    assert len(written) == 61


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_the_same_command_goes_on_where_it_was(
    command: Any, urls: Path, web: Any, how: signal.Signals
) -> None:
    over = threading.Event()

    async def last_page() -> AsyncIterator[bytes]:
        while not over.is_set():
            await asyncio.sleep(0.02)
        yield page(59)

    web.put("/page/59", lambda _: Answer(pieces=last_page()))
    first = command("run", str(urls), "--json", "--key", "mine", "--priority", "2")
    limit = time.monotonic() + 60
    while sum(web.hits[path] for path in web.hits if path.startswith("/page/")) < 15:
        assert time.monotonic() < limit
        time.sleep(0.02)
    first.send_signal(how)
    over.set()
    code, _, err = done(first)
    if how is not signal.SIGKILL:
        assert code == 130
        assert f"Go on with: bulletproof batch run {urls} --key mine --priority 2 --json\n" in err
        assert "Traceback" not in err
    code, out, _ = done(command("run", str(urls), "--json", "--key", "mine", "--priority", "2"))
    report = json.loads(out)
    assert (code, report["total"], report["success"]) == (0, 60, 60)
    assert len(json.loads(done(command("list", "--json"))[1])) == 1


def test_the_command_to_go_on_with_repeats_what_matters() -> None:
    options = {"--key": "a week's", "--priority": 2, "--max-retries": None, "--out": Path("r.csv"), "--json": False}
    assert _command("run", Path("my urls.txt"), options) == (
        """bulletproof batch run 'my urls.txt' --key 'a week'"'"'s' --priority 2 --out r.csv"""
    )
    assert _command("run", "-x", {"--key": "-y", "--json": True}) == "bulletproof batch run --key=-y --json -- -x"


def test_without_a_terminal_it_tells_how_it_goes_in_lines(command: Any, urls: Path, tmp_path: Path) -> None:
    code, out, err = done(command("run", str(urls)))
    assert code == 0
    first, *_, last = [line for line in err.splitlines() if " done (" in line]
    assert re.fullmatch(r"\d\d:\d\d:\d\dZ [0-9a-f]{32} (queued|running): [\d,]+ of 60 done \(.*", first)
    assert re.search(r"complete: 60 of 60 done \(60 success\); [\d.]+/s", last)
    assert "\x1b" not in err + out
    code, out, err = done(command("run", str(urls), "--json", "--key", "quiet"))
    assert (code, err) == (0, "")


async def test_the_lines_go_on_while_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LINE_SECONDS", 0.01)
    report = {"batch_id": "b", "status": "running", "done": 1, "total": 3, "items_per_second": 0.5, "seconds_left": 64}
    report |= {"success": 0, "failed": 1, "retrying": 2, "in_progress": 0, "pending": 0}
    report |= {"by_code": {"not_found": 1}, "breakers": {"host:a": {"state": "open"}}}

    async def reports() -> Any:
        yield report
        await asyncio.sleep(0.1)

    await _log(reports(), False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 4
    assert lines[-1][10:] == (
        "b running: 1 of 3 done (1 failed, 2 retrying); 0.5/s; 1:04 left; failed: not_found 1; breaker host:a open"
    )


def test_what_cannot_be_done_is_said(command: Any, urls: Path, tmp_path: Path) -> None:
    code, _, err = done(command("run", "nowhere.txt"))
    assert code == 2
    assert "nowhere.txt" in err
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    code, _, err = done(command("run", "empty.txt"))
    assert code == 2
    assert "there is no URL" in err
    assert json.loads(done(command("list", "--json"))[1]) == []
    code, _, err = done(command("run", str(urls), "--out", "results.xlsx"))
    assert code == 2
    assert ".jsonl" in err
    assert ".csv" in err
    code, _, err = done(command("status", "0" * 32))
    assert code == 2
    assert "there is no batch" in err


def test_a_changed_list_under_the_same_name_is_a_conflict_with_a_way_out(command: Any, urls: Path, web: Any) -> None:
    assert done(command("run", str(urls)))[0] == 0
    with urls.open("a") as file:
        file.write(web.url("/page/100") + "\n")
    code, _, err = done(command("run", str(urls)))
    assert code == 2
    assert "--key" in err
    assert done(command("run", str(urls), "--key", "again"))[0] == 0
