"""Types of the caller's own, and drives that fail for a moment."""

import dataclasses
import errno
import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest

from bulletproof.models import load_ai_model, register_loader, sha256_of
from bulletproof.models import loading as loading_module
from support.model_files import failure, save


@pytest.fixture(autouse=True)
def _no_types_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "_LOADERS", dict(loading_module._LOADERS))


def test_a_registered_loader_gets_the_path_and_has_its_failures_typed(tmp_path: Path) -> None:
    path = tmp_path / "number.txt"
    path.write_text("7")
    register_loader("number", lambda path: int(path.read_text()))
    assert load_ai_model(path, "number") == 7
    path.write_text("seven")
    assert failure(path, "number").message.startswith("Failed to load number model: ValueError: invalid literal for")
    assert failure(tmp_path / "no", "number").message.startswith("Model file not found")


@pytest.mark.parametrize(("number", "tries"), [(errno.ESTALE, 3), (errno.EIO, 3), (errno.EACCES, 1)])
def test_a_drive_that_fails_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    waits: list[float] = []
    patient = dataclasses.replace(loading_module._RETRY, sleep=waits.append)
    monkeypatch.setattr(loading_module, "_RETRY", patient)
    path = save(tmp_path / "model.pkl", 1)
    answers: list[Any] = [OSError(number, "the drive"), OSError(number, "the drive"), "model"]

    def read(path: Path) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    register_loader("drive", read)
    if tries == 3:
        assert load_ai_model(path, "drive") == "model"
    else:
        assert "the drive" in str(failure(path, "drive"))
    assert len(waits) == tries - 1


def test_errors_cross_process_borders(tmp_path: Path) -> None:
    error = failure(tmp_path / "no")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_bomb_is_not_unpacked_to_find_its_version(tmp_path: Path) -> None:
    path = tmp_path / "bomb.joblib"
    path.write_bytes(gzip.compress(b"\x80\x04X\xff\xff\xff\x01" + bytes(32 << 20), 1))
    assert failure(path).code == "model_load_failed"


def test_a_file_that_changes_while_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("one")
    register_loader("changing", lambda path: path.write_text("another"))
    assert "changed while it was loaded" in str(failure(path, "changing", sha256=sha256_of(path)))


def test_interruption_passes_through(tmp_path: Path) -> None:
    register_loader("stopped", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        load_ai_model(save(tmp_path / "x", 1), "stopped")
