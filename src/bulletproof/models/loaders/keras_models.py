"""Keras 3, on whichever backend is installed: .keras files, and HDF5 files of older versions."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.models.loaders.answers import from_scores, same_count
from bulletproof.models.loaders.loader import Loader, ModelFile, NoModelError
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs


def _load(file: ModelFile) -> Any:
    keras = import_module("keras")
    suffix = ".keras" if file.format == "keras" else ".h5"
    if file.path.suffix == suffix:
        return keras.saving.load_model(file.path, safe_mode=True)
    with tempfile.TemporaryDirectory() as folder:  # Keras goes by the name alone
        link = Path(folder, f"model{suffix}")
        link.symlink_to(file.path.resolve())
        return keras.saving.load_model(link, safe_mode=True)


def _check(model: Any) -> None:
    if not callable(getattr(model, "predict", None)):
        raise NoModelError(model)


class KerasPredictor:
    """A Keras model with one input; that of a classification ends in softmax or sigmoid.

    Args:
        model: The model.
        manifest: What it should be.
    """

    def __init__(self, model: Any, manifest: Manifest, _path: Path | None = None) -> None:
        self._model, self._output = model, manifest.output
        self._to_numpy = import_module("keras").ops.convert_to_numpy
        shape = getattr(model, "input_shape", None)
        same_count("features", shape[-1] if isinstance(shape, tuple) else None, len(manifest.input.features), manifest)

    def predict(self, rows: NDArray[np.float64], /) -> Outputs:
        """Predict rows; see ``Predictor``."""
        with np.errstate(over="ignore"):
            inputs = rows.astype(np.float32)
        return from_scores(self._to_numpy(self._model(inputs, training=False)), self._output)


LOADER = Loader(load=_load, adapt=KerasPredictor, formats=frozenset({"keras", "hdf5"}), check=_check)
