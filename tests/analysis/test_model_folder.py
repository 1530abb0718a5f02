"""Labels from a text classifier of the caller's own: real pipelines, saved and loaded with skops."""

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from bulletproof.analysis import AnalyzerChain, LocalAnalyzer, ModelFolder
from bulletproof.processor import AIDataProcessor, ProcessOptions
from bulletproof.settings import Settings

TEXTS = ["good day", "nice and lovely", "it has a bug", "crash with an error"] * 3
LABELS = ["praise", "praise", "bug", "bug"] * 3


def save(path: Path, model: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pipeline = make_pipeline(TfidfVectorizer(), model if model is not None else LogisticRegression())
    skops.io.dump(pipeline.fit(TEXTS, LABELS), path)


async def test_a_classifier_in_the_folder_gives_the_labels(tmp_path: Path) -> None:
    save(tmp_path / "topics.skops")
    chain = AnalyzerChain(None, LocalAnalyzer(), classifiers=ModelFolder(tmp_path))
    batch = await chain.analyze(["a crash again", "a lovely day"], labels=["bug", "praise"])
    assert [result.label for result in batch.results] == ["bug", "praise"]
    assert all(0.5 < (result.label_confidence or 0) <= 1 for result in batch.results)
    assert batch.results[0].analyzer.endswith("+topics")


async def test_the_processor_finds_it_in_the_data_folder(tmp_path: Path) -> None:
    save(tmp_path / "models" / "topics.skops")
    async with AIDataProcessor(settings=Settings(data_dir=tmp_path)) as processor:
        options = ProcessOptions(labels=["bug", "praise"])
        answer = await processor.process_file(b'["a crash again", "a lovely day"]', options)
    assert [item["label"] for item in answer["results"]] == ["bug", "praise"]
    assert answer["summary"]["labels"] == {"bug": 1, "praise": 1}


def test_a_file_that_is_replaced_is_loaded_anew_and_one_that_is_gone_forgotten(tmp_path: Path) -> None:
    folder, path = ModelFolder(tmp_path), tmp_path / "topics.skops"
    assert list(folder) == []
    save(path)
    [first] = folder
    assert next(iter(folder)) is first
    save(path, LogisticRegression(C=2))
    os.utime(path, (1, 1))
    [second] = folder
    assert second is not first
    path.unlink()
    assert list(folder) == []


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /nowhere",)


@pytest.mark.parametrize("kind", ["rubbish", "pickle", "untrusted", "no classifier"])
def test_what_cannot_be_loaded_safely_is_left_out_and_said(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.skops"
    if kind == "rubbish":
        path.write_bytes(b"rubbish")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "untrusted":
        save(path, RandomForestClassifier(n_estimators=2))
    else:
        skops.io.dump(LinearRegression().fit([[1.0]], [1.0]), path)
    save(tmp_path / "b.skops")
    folder = ModelFolder(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [one.name for one in folder] == ["b"]
        assert [one.name for one in folder] == ["b"]
    assert [record.code for record in caplog.records] == ["model_load_failed"]  # type: ignore[attr-defined]
