"""Loading models: real files by the real libraries, and each way in which they fail."""

import contextlib
import hashlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
import sklearn.base
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import bulletproof
from bulletproof.errors import classify
from bulletproof.models import load_ai_model, sha256_of
from support.model_files import failure, save

ROWS, TARGET = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def fitted() -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(ROWS, TARGET)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, fitted: LogisticRegression) -> Path:
    """A folder with the same model in every format."""
    folder = tmp_path_factory.mktemp("models")
    joblib.dump(fitted, folder / "model.joblib")
    for name in ("zlib", "gzip", "bz2", "xz", "lzma"):
        joblib.dump(fitted, folder / f"{name}.joblib", compress=(name, 3))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (folder / f"protocol{protocol}.pkl").write_bytes(pickle.dumps(fitted, protocol=protocol))
    skops.io.dump(fitted, folder / "model.skops")
    (folder / "model.onnx").write_bytes(to_onnx(fitted, ROWS[:1].astype(np.float32)).SerializeToString())
    return folder


class Evil:
    """Pickles to a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


# What loads.


@pytest.mark.parametrize(
    "name",
    ["model.joblib", "zlib.joblib", "gzip.joblib", "bz2.joblib", "xz.joblib", "lzma.joblib", "model.skops"]
    + [f"protocol{n}.pkl" for n in range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_every_scikit_learn_file_loads_as_the_estimator_that_was_saved(files: Path, name: str, fitted: Any) -> None:
    for path in (files / name, str(files / name)):
        model = load_ai_model(path)
        assert type(model) is LogisticRegression
        assert np.array_equal(model.predict(ROWS), fitted.predict(ROWS))


def test_the_content_counts_and_not_the_name(files: Path, tmp_path: Path) -> None:
    path = shutil.copy(files / "model.skops", tmp_path / "model.joblib")
    assert type(load_ai_model(path)) is LogisticRegression


def test_an_onnx_file_loads_as_a_session_of_onnx_runtime(files: Path, fitted: Any) -> None:
    session = load_ai_model(files / "model.onnx", "onnx")
    assert isinstance(session, onnxruntime.InferenceSession)
    labels = session.run(None, {session.get_inputs()[0].name: ROWS.astype(np.float32)})[0]
    assert np.array_equal(labels, fitted.predict(ROWS))


@pytest.mark.parametrize("name", ["model.joblib", "model.skops", "protocol4.pkl"])
def test_a_file_with_the_right_checksum_loads(files: Path, name: str) -> None:
    digest = sha256_of(files / name)
    assert load_ai_model(files / name, sha256=digest.upper()) is not None


def test_the_public_face_has_it() -> None:
    assert bulletproof.load_ai_model is load_ai_model


# What does not, one by one.


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.joblib", tmp_path / "no" / "no.joblib"):
        error = failure(path)
        assert str(error) == f"Model file not found: {path}"
        assert error.code == "model_load_failed"
        assert isinstance(error.__cause__, FileNotFoundError)
    assert failure("/no/such/model", "onnx").message == "Model file not found: /no/such/model"


def test_a_path_through_a_file_is_a_missing_file(files: Path) -> None:
    assert "Model file not found" in str(failure(files / "model.joblib" / "x"))


@pytest.mark.parametrize("path", [None, 0, "\0"])
def test_what_is_no_path(path: Any) -> None:
    assert str(failure(path)).startswith("Failed to load sklearn model: ")


@pytest.mark.parametrize("model_type", ["sklearn", "onnx", "keras", "torch"])
def test_a_folder_instead_of_a_file(tmp_path: Path, model_type: str) -> None:
    error = failure(tmp_path, model_type)
    assert error.message == f"Failed to load {model_type} model: this is a folder"
    assert error.hint == "Name the model file inside it."


def test_a_device_instead_of_a_file() -> None:
    assert "a device or a pipe" in str(failure("/dev/zero"))


@pytest.mark.parametrize("model_type", ["sklearn", "onnx", "keras", "torch"])
def test_an_empty_file(tmp_path: Path, model_type: str) -> None:
    path = tmp_path / "empty"
    path.touch()
    error = failure(path, model_type)
    assert "the file is empty" in str(error)
    assert str(path) in str(error)


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("model.joblib", "sklearn"), ("protocol4.pkl", "sklearn"), ("zlib.joblib", "sklearn"),
        ("gzip.joblib", "sklearn"), ("bz2.joblib", "sklearn"), ("xz.joblib", "sklearn"), ("lzma.joblib", "sklearn"),
        ("model.skops", "sklearn"), ("model.onnx", "onnx"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_file(files: Path, tmp_path: Path, name: str, model_type: str, part: float) -> None:
    data = (files / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * part)])
    error = failure(path, model_type)
    assert error.code == "model_load_failed"
    assert error.message.startswith(f"Failed to load {model_type} model: ")
    assert error.__cause__ is not None
    assert "again" in error.hint


@pytest.mark.parametrize(
    ("name", "model_type", "found", "hint"),
    [
        ("model.onnx", "sklearn", "this is an ONNX file", "Pass model_type='onnx'."),
        ("model.joblib", "onnx", "this is a pickle", "Pass model_type='sklearn'."),
        ("gzip.joblib", "onnx", "this is a compressed file", "Pass model_type='sklearn'."),
        ("model.skops", "onnx", "this is a skops file", "Pass model_type='sklearn'."),
        ("model.skops", "keras", "this is a skops file", "Pass model_type='sklearn'."),
        ("model.joblib", "torch", "this is a pickle", "Pass model_type='sklearn'."),
        ("model.onnx", "tensorflow", "this is an ONNX file", "Pass model_type='onnx'."),
    ],
)
def test_a_file_of_another_format(files: Path, name: str, model_type: str, found: str, hint: str) -> None:
    error = failure(files / name, model_type)
    assert error.message == f"Failed to load {model_type} model: {found}"
    assert error.hint == hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><title>Sign in</title>", "Download the file again"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "Pass model_type='keras'"),
        (b"GGUF" + bytes(64), "language models"),
    ],
)
def test_what_often_lies_where_a_model_should(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    assert says in failure(path).hint


@pytest.mark.parametrize(
    "content", [b"hello", b"\x00" * 100, b'{"a": 1}', b"\xff\xfe" * 50, b"\x80\x04.", b"PK\x03\x04"]
)
@pytest.mark.parametrize("model_type", ["sklearn", "onnx"])
def test_rubbish(tmp_path: Path, content: bytes, model_type: str) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    assert failure(path, model_type).code == "model_load_failed"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x05junk\xff\xfe", "this is no pickle, joblib or skops file"),
        (bytes(100), "this is no pickle, joblib or skops file"),
        (b'{"coef": [1, 2]}', "this is a text file, no pickle, joblib or skops file"),
        (b"import numpy as np\nprint(1)\n", "this is a text file, no pickle, joblib or skops file"),
        (b"\x80", "this is the beginning of a file that is cut off"),
        (pickle.dumps([1, 2, 3])[:-1], "the file is cut off or damaged (EOFError"),
        (b"\x80\x04\xff", "the file is cut off or damaged (KeyError: 255)"),
    ],
)
def test_it_says_what_a_file_is_that_is_no_model(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    error = failure(path)
    assert str(error).startswith(f"Failed to load sklearn model: {says}")
    assert error.hint


def test_what_is_no_pickle_by_our_own_reading_is_not_given_to_an_unpickler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblib, "load", lambda _: pytest.fail("it was"))
    path = tmp_path / "model"
    for content in (b"\x05junk", b"hello", bytes(9), b'{"a": 1}', b"C\x10" + bytes(6) + b'{"a": "aaa0cos\nsystem\n.'):
        path.write_bytes(content)
        failure(path)


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ((None,), "the path must be a text or a Path, not None", "the path of the model file"),
        (("",), "the path is empty", "where the value came from"),
        ((__file__, "mxnet"), "Unsupported model type: mxnet", "one of them as model_type"),
        ((os.devnull,), "a device or a pipe", "into a file"),
    ],
)
def test_wrong_arguments_are_named_with_what_to_do(arguments: tuple[Any, ...], says: str, hint: str) -> None:
    error = failure(*arguments)
    assert says in str(error)
    assert hint in error.hint


def test_a_checksum_that_is_none_is_named(files: Path) -> None:
    error = failure(files / "model.joblib", sha256=5)
    assert "sha256 must be a text, not of the type int" in str(error)
    error = failure(files / "model.joblib", sha256="abc")
    assert (error.code, "64 hexadecimal digits" in error.hint) == ("model_tampered", True)


def test_another_version_that_cannot_be_read_any_more(tmp_path: Path, fitted: Any) -> None:
    """scikit-learn moved its modules in 0.22: older pickles name what is no longer there."""
    data = pickle.dumps(fitted, protocol=0).replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model.logistic")
    path = tmp_path / "old.pkl"
    path.write_bytes(data.replace(sklearn.__version__.encode(), b"0.21.3"))
    error = failure(path)
    assert error.code == "model_load_failed"
    assert f"it was saved with scikit-learn 0.21.3, and {sklearn.__version__} is installed" in str(error)
    assert "Install the version of the library that wrote it" in error.hint


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize("kind", ["pickle", "joblib", "skops"])
def test_another_version_that_still_loads_is_logged(
    tmp_path: Path, fitted: Any, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.0.2")
        {"pickle": lambda: save(path, fitted), "joblib": lambda: joblib.dump(fitted, path, compress=3),
         "skops": lambda: skops.io.dump(fitted, path)}[kind]()  # fmt: skip
    with caplog.at_level(logging.WARNING, "bulletproof.models"):
        assert load_ai_model(path) is not None
    assert "it was saved with scikit-learn 1.0.2" in caplog.text


def test_another_version_is_an_error_for_those_who_make_its_warning_one(
    tmp_path: Path, fitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.0.2")
        path = save(tmp_path / "old.pkl", fitted)
    assert "saved with scikit-learn 1.0.2" in str(failure(path))


def test_an_onnx_file_of_a_time_to_come(files: Path, tmp_path: Path) -> None:
    for change in ("ir_version", "opset"):
        model = onnx.load(files / "model.onnx")
        if change == "opset":
            model.opset_import[0].version = 999
        else:
            model.ir_version = 99
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        assert "Upgrade onnxruntime" in failure(path, "onnx").hint


def test_a_part_of_a_library_that_moved_with_its_versions(tmp_path: Path) -> None:
    for data in (b"cnumpy._no_such_core\nthing\n.", b"cnumpy\nno_such_thing\n."):
        path = tmp_path / "model.pkl"
        path.write_bytes(data)
        error = failure(path)
        assert (error.code, error.hint.split(",")[0]) == (
            "model_load_failed", "Install the version of the library that wrote it",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "content", "library"),
    [
        ("keras", b"\x89HDF\r\n\x1a\n" + bytes(64), "keras"),
        ("tensorflow", b"\x89HDF\r\n\x1a\n" + bytes(64), "keras"),
        ("torch", b"\x10\0\0\0\0\0\0\0{}" + bytes(20), "torch"),
    ],
)
def test_a_missing_library(
    tmp_path: Path, model_type: str, content: bytes, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(library, monkeypatch)
    without("safetensors", monkeypatch)
    path = tmp_path / "model"
    path.write_bytes(content)
    error = failure(path, model_type)
    assert error.code == "missing_dependency"
    assert "is not installed" in str(error)
    assert error.hint.startswith("pip install ")
    assert isinstance(error.__cause__, ImportError)
    assert classify(error).error_type == "resource_error"


@pytest.mark.parametrize(
    ("library", "name", "model_type"),
    [
        ("sklearn", "model.joblib", "sklearn"),
        ("joblib", "model.joblib", "sklearn"),
        ("skops", "model.skops", "sklearn"),
        ("onnxruntime", "model.onnx", "onnx"),
    ],
)
def test_our_own_extra_missing(
    files: Path, library: str, name: str, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(library, monkeypatch)
    error = failure(files / name, model_type)
    assert (error.code, error.hint) == ("missing_dependency", "pip install 'bulletproof-ai[models]'")


def without(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)

    class Hidden:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])


def test_a_model_of_a_library_that_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cno_such_boosting\nModel\n.")
    error = failure(path)
    assert error.code == "missing_dependency"
    assert "the module no_such_boosting is not installed" in str(error)
    assert "pip install" not in error.hint  # anybody may register such a name
    assert "the package that defines no_such_boosting" in error.hint
    path.write_bytes(b"clightgbm\nModel\n.")
    assert failure(path).hint == "pip install lightgbm"


def test_a_class_that_its_author_defined_in_a_script(tmp_path: Path) -> None:
    script = (
        "import pickle, sys\nclass Model:\n    def predict(self, x): return x\n"
        "pickle.dump(Model(), open(sys.argv[1], 'wb'))"
    )
    path = tmp_path / "model.pkl"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert "Move the class into a module" in failure(path).hint


def test_what_was_loaded_is_none(tmp_path: Path) -> None:
    error = failure(save(tmp_path / "none.pkl", None))
    assert error.message.endswith("Model loaded but is None")
    assert "save the fitted model again" in error.hint


@pytest.mark.parametrize("value", [{"weights": [1, 2]}, [1], "model", np.ones(3), StandardScaler().fit(ROWS)])
def test_what_was_loaded_cannot_predict(tmp_path: Path, value: Any) -> None:
    error = failure(save(tmp_path / "value.pkl", value))
    assert f"what was loaded is a {type(value).__name__}, which cannot predict" in str(error)
    assert "Save the fitted model itself" in error.hint


def test_an_estimator_that_was_never_fitted(tmp_path: Path) -> None:
    path = tmp_path / "unfitted.joblib"
    joblib.dump(LogisticRegression(), path)
    error = failure(path)
    assert "it was saved before it was fitted" in str(error)
    assert error.hint == "Call its fit with the training data, and save it again."


@pytest.mark.parametrize("call", [Evil(bytearray, 1 << 62), Evil(np.ones, (1 << 40, 1 << 10))])
def test_a_model_larger_than_the_memory(tmp_path: Path, call: Evil) -> None:
    error = failure(save(tmp_path / "huge.pkl", call))
    assert error.code == "out_of_memory"
    assert isinstance(error.__cause__, MemoryError)
    assert "more memory" in error.hint
    assert classify(error).error_type == "resource_error"


def test_a_pickle_that_ends_the_process_ends_only_its_loading(tmp_path: Path) -> None:
    error = failure(save(tmp_path / "exit.pkl", Evil(sys.exit, 3)))
    assert isinstance(error.__cause__, SystemExit)
    assert error.message.endswith("SystemExit: 3")
    assert "ends the process" in error.hint


def test_a_file_missing_for_the_model_is_not_the_model_missing(tmp_path: Path) -> None:
    error = failure(save(tmp_path / "opens.pkl", Evil(open, "/no/such/vocabulary.txt")))
    assert "Model file not found" not in str(error)
    assert "/no/such/vocabulary.txt" in str(error)


@pytest.mark.parametrize("name", ["model.joblib", "model.skops", "model.onnx"])
def test_a_wrong_checksum_is_found_before_anything_is_loaded(
    files: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = failure(files / name, "onnx" if name.endswith("onnx") else "sklearn", sha256="0" * 64)
    assert error.code == "model_tampered"
    assert str(files / name) in str(error)
    marker = tmp_path / "ran"
    path = save(tmp_path / "evil.pkl", Evil(os.mkdir, str(marker)))
    assert failure(path, sha256=hashlib.sha256(b"other").hexdigest()).code == "model_tampered"
    assert not marker.exists()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Tests that run as root read everything; for a moment they do not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read(tmp_path: Path, fitted: Any) -> None:
    path = tmp_path / "model.pkl"
    load_ai_model(save(path, fitted))
    path.chmod(0)
    with unprivileged():
        error = failure(path)
    assert isinstance(error.__cause__, PermissionError)
    assert error.code == "model_load_failed"
    assert "readable for the user" in error.hint


@pytest.mark.parametrize("model_type", ["mxnet", "", None, "SKLEARN", ["sklearn"]])
def test_an_unsupported_type_names_those_there_are(files: Path, model_type: Any) -> None:
    error = failure(files / "model.joblib", model_type)
    assert f"Unsupported model type: {model_type}" in str(error)
    assert "keras, onnx, sklearn" in str(error)
    assert isinstance(error.__cause__, ValueError)


def test_a_skops_file_with_types_that_are_not_trusted(tmp_path: Path) -> None:
    """Trees can crash the process by their indexes, so that skops wants them vouched for; a checksum does that."""
    path = tmp_path / "forest.skops"
    skops.io.dump(RandomForestClassifier(3).fit(ROWS, TARGET), path)
    error = failure(path)
    assert "sklearn.tree._tree.Tree" in str(error)
    assert "sha256" in error.hint
    assert type(load_ai_model(path, sha256=sha256_of(path))) is RandomForestClassifier


def test_onnx_weights_in_other_files_are_refused_when_a_checksum_should_hold(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((2000, 1), np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [value("x", 1, [None, 2000])], [value("y", 1, [None, 1])], [weights],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=10)
    assert load_ai_model(path, "onnx") is not None
    assert "weights.bin" in str(failure(path, "onnx", sha256=sha256_of(path)))
