"""``bulletproof demo outage``, and that it would tell if something were lost."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bulletproof.cli.outage import Story


@pytest.mark.slow
def test_an_outage_loses_nothing_and_the_figures_are_counted() -> None:
    command = [sys.executable, "-m", "bulletproof", "demo", "outage", "--seconds", "6", "--workers", "2"]
    environment = {**os.environ, "COLUMNS": "200", "HTTP_PROXY": "http://127.0.0.1:9", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") == 4
    kept = re.search(r"Recovery: (\d+) of (\d+) kept calls run again, 0 left", done.stdout)
    made = re.search(r"Nothing lost: (\d+) calls made, (\d+) answered by the provider", done.stdout)
    assert kept is not None
    assert made is not None
    assert kept[1] == kept[2] != "0"
    assert made[1] == made[2] != "0"


def fine(folder: Path) -> Story:
    """Return what is told of an outage without loss."""
    story = Story(folder, seconds=6, workers=1)
    story.told = [{"made": 3, "answered": 1, "kept": 2, "circuit_open": 1}]
    story.counts = {"kept": 2, "done": 2, "expired": 0, "dropped": 0, "left": 0}
    story.provider.answered.update(["1-1", "1-2", "1-3"])
    story.provider.statuses.update([429, 503, 503, 200, 200, 200])
    story.provider.after_limit = [0.0, 0.2]
    return story


def test_what_was_shown_holds(tmp_path: Path) -> None:
    assert [true for true, _ in fine(tmp_path).verdict()] == [True] * 4


def test_a_request_in_spite_of_the_limit_is_told(tmp_path: Path) -> None:
    story = fine(tmp_path)
    story.provider.after_limit.append(1.5)
    assert [true for true, _ in story.verdict()] == [False, True, True, True]


def test_a_call_that_the_provider_never_answered_is_told(tmp_path: Path) -> None:
    story = fine(tmp_path)
    del story.provider.answered["1-2"]
    assert [true for true, _ in story.verdict()] == [True, True, True, False]


def test_a_call_that_is_left_or_gone_is_told(tmp_path: Path) -> None:
    for counts in ({"done": 1, "left": 1}, {"done": 1, "expired": 1}):
        story = fine(tmp_path)
        story.counts |= counts
        assert [true for true, _ in story.verdict()] == [True, True, False, True]


def test_an_outage_that_nobody_felt_shows_nothing(tmp_path: Path) -> None:
    story = fine(tmp_path)
    story.counts |= {"kept": 0, "done": 0}
    assert [true for true, _ in story.verdict()][1] is False
