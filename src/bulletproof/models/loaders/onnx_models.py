"""ONNX files, run by ONNX Runtime."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import ModelLoadError
from bulletproof.models.load_failures import RefusedError
from bulletproof.models.loaders.answers import class_indexes, from_scores, same_count
from bulletproof.models.loaders.loader import Loader, ModelFile
from bulletproof.models.manifest import Manifest
from bulletproof.models.onnx_file import read_onnx
from bulletproof.models.predictor import Outputs

_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
}  # fmt: skip
_LABELS = ("tensor(int64)", "tensor(string)", "tensor(int32)")
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def _load(file: ModelFile) -> Any:
    if file.checked and (outside := read_onnx(file.path).external):
        raise RefusedError(
            f"its weights lie in files that the checksum leaves out: {', '.join(outside)}", "Save it as one file."
        )
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    # Waiting threads that spin take the cores from the requests of other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = runtime.get_available_providers()
    return runtime.InferenceSession(
        str(file.path), options, providers=[name for name in _PROVIDERS if name in available]
    )


class OnnxPredictor:
    """A session of ONNX Runtime.

    Args:
        session: The session.
        manifest: What it should be.
        path: Of its file.
    """

    def __init__(self, session: Any, manifest: Manifest, path: Path) -> None:
        self._session = session
        self._output = manifest.output
        features = len(manifest.input.features)
        self._inputs = [(one.name, _dtype(one, manifest)) for one in session.get_inputs()]
        width = session.get_inputs()[0].shape[-1:] if len(self._inputs) == 1 else [len(self._inputs)]
        same_count("features", width[0] if width and isinstance(width[0], int) else None, features, manifest)
        outputs = {one.name: one.type for one in session.get_outputs()}
        self._label = next((name for name, type_ in outputs.items() if type_ in _LABELS), None)
        others = [name for name in outputs if name != self._label]
        self._scores = next((name for name in others if "prob" in name.lower()), others[0] if others else None)
        if manifest.output.kind == "regression":
            self._label, self._scores = None, self._scores or next(iter(outputs))
        self._wanted = [name for name in (self._label, self._scores) if name is not None]
        self._known = np.asarray(_labels(outputs.get(self._label or ""), manifest, path))

    def predict(self, rows: NDArray[np.float64], /) -> Outputs:
        """Predict rows; see ``Predictor``."""
        with np.errstate(over="ignore"):  # too large for 32 bits: the model gets infinity, and its output is checked
            if len(self._inputs) == 1:
                [(name, dtype)] = self._inputs
                feed = {name: rows.astype(dtype)}
            else:
                feed = {
                    name: rows[:, column : column + 1].astype(dtype)
                    for column, (name, dtype) in enumerate(self._inputs)
                }
        answers = dict(zip(self._wanted, self._session.run(self._wanted, feed), strict=True))
        scores = answers.get(self._scores or "")
        if self._label is None:
            return from_scores(scores, self._output)
        return Outputs(class_indexes(answers[self._label], self._known), _probabilities(scores))


def _dtype(one: Any, manifest: Manifest) -> Any:
    if one.type not in _TYPES:
        raise ModelLoadError(
            f"{manifest.title}: the model's input {one.name!r} is {one.type}, and only numbers go in",
            hint="Export the model with one tensor of numbers as its input.",
        )
    return _TYPES[one.type]


def _labels(type_: str | None, manifest: Manifest, path: Path) -> list[Any]:
    """Return the labels in the order of the classes: as the file names them, else the manifest, else 0, 1, ..."""
    classes, wanted = manifest.output.classes, str if type_ == "tensor(string)" else int
    named = list(read_onnx(path).label_lists) if type_ else []
    if len(named) == 1 and len(named[0]) == len(classes) and all(isinstance(label, wanted) for label in named[0]):
        return list(named[0])
    try:
        return [wanted(name) for name in classes]
    except ValueError:
        return list(range(len(classes)))


def _probabilities(scores: Any) -> NDArray[np.float64] | None:
    """Return a row of probabilities for each row: from a tensor, or from what ZipMap makes of one."""
    if scores is None:
        return None
    if isinstance(scores, list):
        scores = [list(row.values()) for row in scores]
    array = np.asarray(scores, dtype=np.float64)
    return array if array.ndim == 2 else array.reshape(len(array), -1)


LOADER = Loader(load=_load, adapt=OnnxPredictor, formats=frozenset({"onnx"}))
