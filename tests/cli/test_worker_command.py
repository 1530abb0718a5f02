import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def start(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    variables = {"PATH": os.environ["PATH"], "BULLETPROOF_DATA_DIR": str(folder / "data"), **environment}
    command = [sys.executable, "-m", "bulletproof", "worker", "--drain", "5"]
    return subprocess.Popen(
        command, env=variables, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_takes_jobs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, BULLETPROOF_LOG_FORMAT="json")
    try:
        assert process.stderr is not None
        told: list[str] = []
        while "jobs are taken by executor-0" not in told:
            told.append(json.loads(process.stderr.readline())["event"])  # no line of anybody but the log
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert output == ""
    # Of the file's journal nothing is left, which shows that it was closed.
    assert (tmp_path / "data" / "jobs.db").exists()
    assert not (tmp_path / "data" / "jobs.db-wal").exists()


def test_a_worker_that_would_do_nothing_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, BULLETPROOF_BATCH_CONCURRENCY="0")
    try:
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "BULLETPROOF_BATCH_CONCURRENCY is 0" in " ".join(told.split())


def test_faults_on_purpose_are_refused_unless_allowed_and_told(tmp_path: Path) -> None:
    plan = json.dumps({"rules": [{"stage": "download", "error": "service_unavailable"}]})
    process = start(tmp_path, BULLETPROOF_CHAOS=plan)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "BULLETPROOF_CHAOS_ALLOW" in told
    process = start(tmp_path, BULLETPROOF_CHAOS=plan, BULLETPROOF_CHAOS_ALLOW="true", BULLETPROOF_LOG_FORMAT="json")
    try:
        assert process.stderr is not None
        assert "FAILS ON PURPOSE, by 1 rules about download" in json.loads(process.stderr.readline())["event"]
    finally:
        process.kill()
        process.communicate()
