"""Versions of models as predictors: one answer whatever the library."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from bulletproof.errors import InvalidModelOutputError, ModelLoadError
from bulletproof.models import (
    Feature,
    InputSchema,
    Manifest,
    OutputSchema,
    load_ai_model,
    open_predictor,
    register_loader,
    sha256_of,
)  # fmt: skip
from bulletproof.models import loading as loading_module
from bulletproof.models.predictor import Outputs

ROWS, TARGET = load_iris(return_X_y=True)
NAMES = ("setosa", "versicolor", "virginica")


def manifest(path: Path, type_: str = "sklearn", *, features: int = 4, classes: tuple[str, ...] = NAMES) -> Manifest:
    return Manifest(
        name="iris", version="v1.0", type=type_, file=path.name, sha256=sha256_of(path),
        input=InputSchema(features=tuple(Feature(name=str(n)) for n in range(features))),
        output=OutputSchema(classes=classes) if classes else OutputSchema(kind="regression"),
    )  # fmt: skip


def onnx_file(path: Path, model: Any, rows: Any = ROWS, **options: Any) -> Path:
    path.write_bytes(to_onnx(model, rows[:1].astype(np.float32), options=options or None).SerializeToString())
    return path


def forest(labels: Any) -> RandomForestClassifier:
    return RandomForestClassifier(9, random_state=0).fit(ROWS.astype(np.float32), np.asarray(labels)[TARGET])


LABELS = {
    "indexes": ([0, 1, 2], NAMES),
    "from one": ([1, 2, 3], NAMES),
    "negative": ([-1, 0, 7], NAMES),
    "texts": (list(NAMES), NAMES),
    "texts the manifest names otherwise": (["a", "b", "c"], NAMES),
    "numbers in the manifest": ([10, 20, 30], ("10", "20", "30")),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["joblib", "onnx", "onnx with ZipMap"])
def test_classes_come_as_indexes_whatever_their_labels(tmp_path: Path, labels: str, kind: str) -> None:
    values, names = LABELS[labels]
    model = forest(values)
    path = tmp_path / "model"
    if kind == "joblib":
        joblib.dump(model, path)
    else:
        onnx_file(path, model, zipmap=kind != "onnx")
    answers = open_predictor(tmp_path, manifest(path, kind.split()[0].replace("joblib", "sklearn"), classes=names))
    outputs = answers.predict(ROWS)
    assert outputs.values.dtype == np.float64
    assert (outputs.values == TARGET).mean() > 0.95
    assert outputs.probabilities is not None
    assert outputs.probabilities.shape == (150, 3)
    assert np.allclose(outputs.probabilities, model.predict_proba(ROWS.astype(np.float32)), atol=1e-5)
    assert np.array_equal(outputs.probabilities.argmax(axis=1), outputs.values)


def test_a_classifier_without_probabilities_says_none(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LinearSVC().fit(ROWS, TARGET), path)
    outputs = open_predictor(tmp_path, manifest(path)).predict(ROWS[:3])
    assert outputs.probabilities is None
    assert outputs.values.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["sklearn", "onnx"])
def test_a_regression_gives_a_number_for_each_row(tmp_path: Path, kind: str) -> None:
    rows, target = load_diabetes(return_X_y=True)
    for shape in ((-1,), (-1, 1)):
        model = LinearRegression().fit(rows, target.reshape(shape))
        path = tmp_path / "model"
        if kind == "onnx":
            onnx_file(path, model, rows)
        else:
            joblib.dump(model, path)
        outputs = open_predictor(tmp_path, manifest(path, kind, features=10, classes=())).predict(rows)
        assert outputs.values.shape == (442,)
        assert outputs.probabilities is None
        assert np.allclose(outputs.values, model.predict(rows).ravel(), rtol=1e-3)


def test_skops_trees_open_since_their_checksum_vouches_for_them(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(forest(NAMES), path)
    assert open_predictor(tmp_path, manifest(path)).predict(ROWS[-1:]).values.tolist() == [2]


def test_a_model_fitted_on_a_table_gets_its_columns(tmp_path: Path) -> None:
    """Otherwise scikit-learn warns at each call, and models that choose columns by name fail."""
    table = pd.DataFrame(ROWS, columns=["a", "b", "c", "d"])
    path = tmp_path / "model.joblib"
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(table, TARGET), path)
    assert open_predictor(tmp_path, manifest(path)).predict(ROWS[:1]).values.tolist() == [0]


def test_an_onnx_model_with_an_input_for_each_column(tmp_path: Path) -> None:
    table = pd.DataFrame(ROWS.astype(np.float32), columns=["a", "b", "c", "d"])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, TARGET)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, table[:1]).SerializeToString())
    outputs = open_predictor(tmp_path, manifest(path, "onnx")).predict(ROWS)
    assert np.array_equal(outputs.values, model.predict(table))


def test_numbers_too_large_for_32_bits_do_not_break_it(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "model.onnx", forest(NAMES))
    assert open_predictor(tmp_path, manifest(path, "onnx")).predict(np.full((1, 4), 1e300)).values.shape == (1,)


@pytest.mark.parametrize("kind", ["sklearn", "onnx"])
def test_a_manifest_with_another_number_of_features_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model"
    onnx_file(path, forest(NAMES)) if kind == "onnx" else joblib.dump(forest(NAMES), path)
    with pytest.raises(ModelLoadError, match=r"iris v1\.0: the model has 4 features, its manifest lists 3"):
        open_predictor(tmp_path, manifest(path, kind, features=3))


def test_a_manifest_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(forest(NAMES), path)
    with pytest.raises(ModelLoadError, match="the model has 3 classes, its manifest lists 2"):
        open_predictor(tmp_path, manifest(path, classes=("yes", "no")))


def test_a_regression_model_is_no_classifier(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LinearRegression().fit(ROWS, TARGET), path)
    with pytest.raises(ModelLoadError, match="its manifest says classification"):
        open_predictor(tmp_path, manifest(path))


class Liar(LogisticRegression):
    """Answers a class that it does not have."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), 99)


def test_a_class_that_does_not_exist_is_an_invalid_output(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression(max_iter=1000).fit(ROWS, TARGET), path)
    predictor: Any = open_predictor(tmp_path, manifest(path))
    predictor._model.__class__ = Liar
    with pytest.raises(InvalidModelOutputError, match="none of its classes"):
        predictor.predict(ROWS[:1])


@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: b"\x80\x04N."])
def test_the_checksum_is_always_verified(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(forest(NAMES), path)
    described = manifest(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelLoadError) as caught:
        open_predictor(tmp_path, described)
    assert caught.value.code == "model_tampered"


def test_it_can_be_sent_to_a_worker_process(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(forest(NAMES), path)
    function, *args = pickle.loads(pickle.dumps((open_predictor, tmp_path, manifest(path))))
    assert function(*args).predict(ROWS[:1]).values.tolist() == [0]


def test_a_registered_type_with_a_predictor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "_LOADERS", dict(loading_module._LOADERS))

    class Constant:
        def __init__(self, value: float) -> None:
            self.value = value

        def predict(self, rows: Any, /) -> Outputs:
            return Outputs(np.full(len(rows), self.value))

    path = tmp_path / "number"
    path.write_text("2.5")
    register_loader("constant", lambda p: float(p.read_text()), predictor=lambda model, _: Constant(model))
    assert load_ai_model(path, "constant") == 2.5
    outputs = open_predictor(tmp_path, manifest(path, "constant", classes=())).predict(ROWS[:2])
    assert outputs.values.tolist() == [2.5, 2.5]


@pytest.mark.parametrize("labels", [["ham", "spam"], [3, 5], [1.5, 2.5]])
def test_labels_of_any_type_have_places(labels: list[Any]) -> None:
    from bulletproof.models.loaders.answers import class_indexes

    for asked in (np.array(labels[::-1]), np.array(labels[::-1], dtype=object), labels[::-1]):
        assert class_indexes(asked, labels).tolist() == [1, 0]


def test_scores_of_a_network_become_probabilities_of_each_class() -> None:
    from bulletproof.models.loaders.answers import from_scores

    two, number = OutputSchema(classes=("no", "yes")), OutputSchema(kind="regression")
    for scores in ([0.9, 0.2], [[0.9], [0.2]]):
        outputs = from_scores(np.array(scores, np.float32), two)
        assert outputs.values.tolist() == [1, 0]
        assert np.allclose(outputs.probabilities, [[0.1, 0.9], [0.8, 0.2]])
    assert from_scores(np.array([[3.5], [4.5]]), number).values.tolist() == [3.5, 4.5]
    with pytest.raises(InvalidModelOutputError, match="shape"):
        from_scores(np.zeros((2, 3, 4)), two)
