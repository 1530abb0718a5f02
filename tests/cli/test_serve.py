"""``bulletproof serve``: what is said before it starts, and what it leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest


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
