"""From what a library answers to what every model answers: class indexes, probabilities, numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import InvalidModelOutputError, ModelLoadError
from bulletproof.models.manifest import Manifest, OutputSchema
from bulletproof.models.predictor import Outputs


def numbers(values: Any) -> NDArray[np.float64]:
    """Return an array of numbers; a column of them as a plain row of values."""
    array: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    return array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array


def class_indexes(labels: Any, known: Any) -> NDArray[np.float64]:
    """Return for each label its place among those known.

    Args:
        labels: Numbers or texts; shape (rows,).
        known: The labels in the order of the model's; an array or a list.

    Raises:
        InvalidModelOutputError: One is not known.

    Example:
        >>> class_indexes(["spam", "ham"], ["ham", "spam"])
        array([1., 0.])
    """
    labels = np.asarray(labels).reshape(-1)
    if len(labels) == 1:
        label = labels.item()
        for place, one in enumerate(known):
            if one == label:
                return np.array([place], dtype=np.float64)
    same = labels[:, None] == np.asarray(known, dtype=labels.dtype if labels.dtype.kind == "O" else None)[None, :]
    if not same.any(axis=1).all():
        raise InvalidModelOutputError("the model answered a class that is none of its classes")
    places: NDArray[np.float64] = same.argmax(axis=1).astype(np.float64)
    return places


def from_scores(scores: Any, output: OutputSchema) -> Outputs:
    """Return what a network says: of a classification the probabilities of its last layer, else numbers.

    Args:
        scores: Shape (rows, classes); (rows, 1) or (rows,) for the second of two classes; (rows, 1) or (rows,) for a
            regression.
        output: What should come out.
    """
    array = np.asarray(scores, dtype=np.float64)
    if output.kind == "regression":
        return Outputs(numbers(array))
    if len(output.classes) == 2 and (array.ndim == 1 or array.shape[1:] == (1,)):
        array = array.reshape(-1)
        array = np.stack([1.0 - array, array], axis=1)
    if array.ndim != 2:
        raise InvalidModelOutputError(
            f"the model answered an array of shape {array.shape}, not a row of probabilities for each input row"
        )
    return Outputs(array.argmax(axis=1).astype(np.float64), array)


def same_count(what: str, model_has: int | None, manifest_says: int, manifest: Manifest) -> None:
    """Refuse a manifest that lists another number of features or classes than the model has."""
    if model_has is not None and model_has != manifest_says:
        raise ModelLoadError(
            f"{manifest.title}: the model has {model_has} {what}, its manifest lists {manifest_says}",
            hint=f"Correct the {what} in the manifest, or put the right model file beside it.",
        )
