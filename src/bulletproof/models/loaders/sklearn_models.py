"""scikit-learn and what follows its interface: joblib, pickle and skops files."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import InvalidModelOutputError, ModelLoadError
from bulletproof.models.load_failures import RefusedError
from bulletproof.models.loaders.answers import class_indexes, numbers, same_count
from bulletproof.models.loaders.loader import Loader, ModelFile, NoModelError
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs

_VOUCHED = ("numpy", "scipy", "sklearn")


def _load(file: ModelFile) -> Any:
    import_module("sklearn")
    if file.format == "skops":
        io = import_module("skops.io")
        # A checksum vouches for the file, as it does for a pickle; other libraries' types stay refused all the same.
        types = io.get_untrusted_types(file=file.path) if file.checked else ()
        return io.load(file.stream, trusted=[name for name in types if name.partition(".")[0] in _VOUCHED])
    return import_module("joblib").load(file.stream)


def _check(model: Any) -> None:
    if not callable(getattr(model, "predict", None)):
        raise NoModelError(model)
    if not isinstance(model, import_module("sklearn.base").BaseEstimator):
        return
    try:
        import_module("sklearn.utils.validation").check_is_fitted(model)
    except import_module("sklearn.exceptions").NotFittedError as error:
        raise RefusedError(
            f"the {type(model).__name__} cannot predict: it was saved before it was fitted",
            "Call its fit with the training data, and save it again.",
        ) from error


def _classifies(model: Any) -> bool:
    base = import_module("sklearn.base")
    return isinstance(model, base.BaseEstimator) and bool(base.is_classifier(model))


class SklearnPredictor:
    """A fitted estimator.

    Args:
        model: Has ``predict``.
        manifest: What it should be.
    """

    def __init__(self, model: Any, manifest: Manifest, _path: Path | None = None) -> None:
        what = manifest.title
        if isinstance(model, type):
            raise ModelLoadError(
                f"{what}: what was saved is the class {model.__name__}, not a model of it: it cannot predict",
                hint="Save what was fitted: pickle.dump(model), not its class.",
            )
        self._model = model
        self._classes = getattr(model, "classes_", None) if manifest.output.kind == "classification" else None
        names = getattr(model, "feature_names_in_", None)
        self._names = None if names is None else list(names)
        features = getattr(model, "n_features_in_", None)
        same_count("features", features, len(manifest.input.features), manifest)
        if manifest.output.kind == "classification":
            if self._classes is None:
                raise ModelLoadError(
                    f"{what}: its manifest says classification, the model has no classes_",
                    hint="Set the kind of the output to regression.",
                )
            same_count("classes", len(self._classes), len(manifest.output.classes), manifest)
        elif _classifies(model):
            raise ModelLoadError(
                f"{what}: its manifest says regression, the model is a classifier: {type(model).__name__}",
                hint="Name its classes: --classes a,b,c in place of --regression.",
            )
        self._has_probabilities = self._classes is not None and hasattr(model, "predict_proba")

    def predict(self, rows: NDArray[np.float64], /) -> Outputs:
        """Predict rows; see ``Predictor``."""
        table: Any = rows
        if self._names is not None:  # fitted on named columns: without the names it would warn at every call
            table = import_module("pandas").DataFrame(rows, columns=self._names)
        answer = self._model.predict(table)
        if self._classes is None:
            return Outputs(numbers(answer))
        probabilities = self._model.predict_proba(table) if self._has_probabilities else None
        if self._has_probabilities and probabilities is None:
            raise InvalidModelOutputError("predict_proba of the model answered None")
        return Outputs(
            class_indexes(answer, self._classes),
            None if probabilities is None else np.asarray(probabilities, dtype=np.float64),
        )


LOADER = Loader(
    load=_load,
    adapt=SklearnPredictor,
    formats=frozenset({"pickle", "compressed", "skops"}),
    check=_check,
    takes="pickle, joblib or skops",
)
