"""``bulletproof process`` as users run it: a process of its own, real files."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "120",
            "PYTHONUTF8": "1", **environment,
        }  # fmt: skip
        command = [sys.executable, "-m", "bulletproof", *arguments]
        return subprocess.run(
            command, env=variables, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
        )

    return run


def test_json_holds_a_result_for_every_valid_row_in_order(run: Run, tmp_path: Path) -> None:
    texts = [f"Review number {number} is {'good' if number % 2 else 'bad'}" for number in range(2500)]
    texts[100] = ""
    (tmp_path / "reviews.json").write_text(json.dumps(texts))
    done = run("process", "reviews.json", "--format", "json")
    assert done.returncode == 0, done.stderr
    [answer] = json.loads(done.stdout)
    assert answer["status"] == "success"
    assert [item["row"] for item in answer["results"]] == [number for number in range(1, 2501) if number != 101]
    assert [item["row"] for item in answer["rejections"]] == [101]
    assert answer["stored"] is True


def test_several_files_give_a_list_and_one_that_fails_does_not_stop_the_rest(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("text\nlovely\n")
    (tmp_path / "bad.json").write_text('["lovely"')
    (tmp_path / "more.txt").write_text("awful\n\nfine")
    done = run("process", "good.csv", "bad.json", "missing.csv", "more.txt", "--format", "json")
    assert done.returncode == 1
    answers = json.loads(done.stdout)
    assert [answer["status"] for answer in answers] == ["success", "error", "error", "success"]
    assert [answer.get("code") for answer in answers] == [None, "invalid_json", "file_not_found", None]
    assert "2 of 4 files failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_csv_output_is_safe_to_open_in_a_spreadsheet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(["=HYPERLINK(1) good", 'say "hi", bad', "+1 great"]))
    done = run("process", "t.json", "--format", "csv", "--out", "out.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["text"] for row in rows] == ["'=HYPERLINK(1) good", 'say "hi", bad', "'+1 great"]
    assert {row["file"] for row in rows} == {"t.json"}


def test_the_table_says_what_came_what_was_rejected_and_why(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,review\n1,I love it\n2,\n3,It broke. Terrible quality.\n")
    done = run("process", "t.csv")
    assert done.returncode == 0, done.stderr
    assert "3 received, 2 analysed, 1 rejected" in done.stdout
    assert "positive 1 (50%)" in done.stdout
    assert "row 2" in done.stdout
    assert "empty_text" in done.stdout


def test_an_error_in_the_table_says_where_and_what_to_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('["good",\n "good" x]')
    done = run("process", "t.json")
    assert done.returncode == 1
    assert "Invalid JSON" in done.stdout
    assert "line 2" in done.stdout
    assert "What to do" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("process",), ("process", "t.json", "--format", "xml"), ("process", "t.json", "--out", "."), ("nonsense",)],
)
def test_wrong_use_exits_with_2(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "t.json").write_text('["good"]')
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('["good"]')
    done = run("process", "t.json", BULLETPROOF_LLM_TIMEOUT="soon")
    assert done.returncode == 2
    assert "BULLETPROOF_LLM_TIMEOUT" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_to_a_place_that_cannot_be_written_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('["good"]')
    done = run("process", "t.json", "--out", "no/such/folder/out.json")
    assert done.returncode == 2
    assert "cannot write" in done.stderr


def test_an_unfinished_output_never_stands_under_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n" + "a rather good text of some length\n" * 5 + "and another\n" * 400_000)
    variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "bulletproof", "process", "t.csv", "--format", "json", "--out", "out.json"]
    process = subprocess.Popen(command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE)
    for _ in range(200):
        if (tmp_path / ".out.json.part").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Stopped" in stderr
    assert b"Traceback" not in stderr
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / ".out.json.part").exists()


def test_help_shows_examples(run: Run) -> None:
    done = run("process", "--help")
    assert done.returncode == 0
    assert "bulletproof process reviews.csv" in done.stdout


def test_doctor_names_what_is_there_and_what_to_do(run: Run) -> None:
    done = run("doctor", "--json")
    findings = {item["subject"]: item for item in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings["database"]["status"] == "ok"
    assert findings["local model"]["status"] == "ok"
    assert findings["LLM"]["status"] == "note"
    assert "BULLETPROOF_LLM_BASE_URL" in findings["LLM"]["advice"]
    assert findings["API keys"]["status"] == "note"


def test_doctor_says_what_is_wrong_and_exits_with_1(run: Run) -> None:
    done = run("doctor", "--json", BULLETPROOF_DATABASE_URL="postgresql://user:secret@127.0.0.1:1/db")
    assert done.returncode == 1
    database = next(item for item in json.loads(done.stdout) if item["subject"] == "database")
    assert database["status"] == "problem"
    assert database["advice"]
    assert "secret" not in done.stdout + done.stderr


def test_serving_strangers_without_keys_is_refused_with_the_way_out(run: Run) -> None:
    done = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "BULLETPROOF_API_KEYS" in done.stderr


def test_classify_explains_a_traceback_on_standard_input(tmp_path: Path) -> None:
    text = 'Traceback (most recent call last):\n  File "a.py", line 1\nsqlite3.OperationalError: database is locked\n'
    command = [sys.executable, "-m", "bulletproof", "classify", "--json"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["error_type"], found["code"], found["retryable"]) == ("resource_error", "database_unavailable", True)
    assert found["rule"]


def test_classify_without_a_traceback_says_how_to_use_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bulletproof", "classify"]
    done = subprocess.run(command, input="  \n", capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "traceback" in done.stderr


def test_standard_input_is_read_to_its_end(run: Run, tmp_path: Path) -> None:
    lines = """seq 1 3000 | sed 's/.*/{"text": "number & is good"}/'"""
    command = f"{lines} | {sys.executable} -m bulletproof process - --format json"
    variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(["bash", "-c", command], env=variables, cwd=tmp_path, capture_output=True, check=True)
    [answer] = json.loads(done.stdout)
    assert len(answer["results"]) == 3000
    assert answer["filename"] == "-"
    assert "next" not in answer


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_full_disk_under_the_output_is_told_without_a_traceback(run: Run, tmp_path: Path, form: str) -> None:
    (tmp_path / "t.json").write_text(json.dumps([f"good {number}" for number in range(2000)]))
    with Path("/dev/full").open("w") as full:
        variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path / "data")}
        command = [sys.executable, "-m", "bulletproof", "process", "t.json", "--format", form]
        done = subprocess.run(command, env=variables, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"Disk full" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_terminal_that_cannot_show_a_character_stops_nothing(run: Run, tmp_path: Path, form: str) -> None:
    (tmp_path / "t.json").write_text(json.dumps(["これは良い", "gut 👍"]))
    done = run("process", "t.json", "--format", form, "--out", "out", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    shown = run("process", "t.json", "--format", form, PYTHONIOENCODING="latin-1:strict", PYTHONUTF8="0")
    assert (done.returncode, shown.returncode) == (0, 0), shown.stderr
    assert "Traceback" not in done.stderr + shown.stderr


def test_an_output_that_is_a_link_or_a_device_stays_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('["good"]')
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    assert run("process", "t.json", "--format", "json", "--out", "link.json").returncode == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())[0]["status"] == "success"
    (tmp_path / "null").symlink_to("/dev/null")
    assert run("process", "t.json", "--format", "json", "--out", "null").returncode == 0
    assert Path("/dev/null").is_char_device()


def test_bare_results_come_with_the_reasons_on_standard_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('["good"')
    (tmp_path / "t.csv").write_text("id,text\n1,good\n2,\n3,fine\n")
    done = run("process", "bad.json", "t.csv", "--format", "csv")
    assert done.returncode == 1
    assert "bad.json: invalid json" in done.stderr
    assert "1 rejected, first row 2" in done.stderr


def test_the_table_says_why_results_were_not_stored(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('["good"]')
    (tmp_path / "a-file").write_text("")
    done = run("process", "t.json", BULLETPROOF_DATA_DIR=str(tmp_path / "a-file"))
    assert done.returncode == 0
    assert "not stored" in done.stdout
    assert "What to do" in done.stdout


def test_being_terminated_leaves_no_half_stored_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n" + "".join(f"text number {number}\n" for number in range(400_000)))
    variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-m", "bulletproof", "process", "t.csv", "--format", "json", "--out", "out.json"]
    process = subprocess.Popen(command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE)
    for _ in range(400):
        if (tmp_path / "data" / "results.db").exists() and (tmp_path / ".out.json.part").exists():
            break
        time.sleep(0.05)
    time.sleep(0.5)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143, stderr
    assert b"Stopped" in stderr
    with closing(sqlite3.connect(tmp_path / "data" / "results.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)
