"""``bulletproof serve``: what is said before it starts, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bulletproof.cli.serve import _counting_together


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("variable", "value"), [("CHAOS", "{bad"), ("LLM_BASE_URL", "nonsense"), ("DATABASE_URL", "odd://x")]
)
def test_nothing_looks_like_a_start_before_a_setting_that_is_wrong(
    tmp_path: Path, workers: str, variable: str, value: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bulletproof", "serve", "--port", "0", "--workers", workers],
        env={"PATH": "/usr/bin:/bin", "BULLETPROOF_CHAOS_ALLOW": "true", f"BULLETPROOF_{variable}": value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Wrong configuration: ")
    assert "Bulletproof AI Processor on" not in done.stdout + done.stderr


HOLD = """
import time
from bulletproof.cli.serve import _counting_together
with _counting_together(2):
    print("held", flush=True)
    time.sleep(60)
"""


def test_figures_of_a_service_that_was_killed_are_swept_at_the_next_start_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (place / "bulletproof-figures-link").symlink_to(elsewhere)
    (place / "bulletproof-figures-file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that what is set below goes with the test
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    before = set(place.iterdir())
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        [held] = set(place.iterdir()) - before
        os.utime(held, (time.time() - 60, time.time() - 60))

        def left_after_a_start() -> set[Path]:
            monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
            with _counting_together(2):
                pass
            return set(place.iterdir())

        assert left_after_a_start() == before | {held}
        other.send_signal(signal.SIGKILL)
    assert left_after_a_start() == before
    assert (elsewhere / "precious").exists()
