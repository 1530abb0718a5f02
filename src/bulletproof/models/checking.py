"""What a model answered, checked against what its schema says that it answers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import InvalidModelOutputError
from bulletproof.models.manifest import OutputSchema
from bulletproof.models.predictor import Outputs

_TOLERANCE = 1e-3  # of a sum of probabilities, which many models compute in single precision


class Answer(NamedTuple):
    """What the model says of one row.

    Args:
        prediction: Class index of a classification, value of a regression.
        confidence: Probability of the predicted class. 0 when the model states none, as a regression and some
            classifiers do: nothing is claimed, and whoever asks for a least confidence does not get such an answer.
        label: Name of the class; None for a regression.
    """

    prediction: int | float
    confidence: float
    label: str | None


def answers_of(outputs: Outputs, rows: int, schema: OutputSchema) -> list[Answer]:
    """Check what a model answered and put it into words.

    Args:
        outputs: What it answered.
        rows: How many rows it was asked about.
        schema: What it is to answer.

    Returns:
        One answer for each row, in order.

    Raises:
        InvalidModelOutputError: Wrong shape, not finite, a class that does not exist, probabilities that are none.

    Example:
        >>> outputs = Outputs(np.array([1.0]), np.array([[0.2, 0.8]]))
        >>> answers_of(outputs, 1, OutputSchema(classes=("no", "yes")))
        [Answer(prediction=1, confidence=0.8, label='yes')]
    """
    values = _numbers(outputs.values, "values", (rows,))
    if schema.kind == "regression":
        _within(values, schema)
        return [Answer(value, 0.0, None) for value in values.tolist()]
    classes = schema.classes
    wrong = (values != np.floor(values)) | (values < 0) | (values >= len(classes))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidModelOutputError(
            f"there is no class {values[row]:g}: classes are 0 to {len(classes) - 1}", row=row
        )
    chosen = values.astype(np.intp)
    confidences = _confidences(outputs, chosen, len(classes))
    return [Answer(one, confidence, classes[one]) for one, confidence in zip(chosen.tolist(), confidences, strict=True)]


def _confidences(outputs: Outputs, chosen: NDArray[np.intp], classes: int) -> list[float]:
    rows = len(chosen)
    if outputs.probabilities is None:
        if outputs.confidences is None:
            return [0.0] * rows
        stated = _numbers(outputs.confidences, "confidences", (rows,))
        odd = (stated < 0) | (stated > 1)
        if odd.any():
            row = int(odd.argmax())
            raise InvalidModelOutputError(f"the confidence of {stated[row]:g} is not from 0 to 1", row=row)
        return list(stated.tolist())
    probabilities = _numbers(outputs.probabilities, "probabilities", (rows, classes))
    wrong = (probabilities < -_TOLERANCE) | (probabilities > 1 + _TOLERANCE)
    if wrong.any():
        row, index = map(int, np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise InvalidModelOutputError(
            f"the probability of class {index} is {probabilities[row, index]:g}, which is not from 0 to 1", row=row
        )
    sums = probabilities.sum(axis=1)
    off = np.abs(sums - 1) > _TOLERANCE
    if off.any():
        row = int(off.argmax())
        raise InvalidModelOutputError(f"the probabilities of the classes sum to {sums[row]:g}, not 1", row=row)
    confidences: list[float] = probabilities[np.arange(rows), chosen].clip(0, 1).tolist()
    return confidences


def _numbers(given: object, what: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Take it as finite numbers of a shape, whatever a model of somebody else's gave."""
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidModelOutputError(f"the {what} are not numbers") from error
    if numbers.shape != shape:
        raise InvalidModelOutputError(f"the {what} have the shape {numbers.shape}, not {shape}")
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(np.unravel_index(int((~finite).argmax()), shape)[0])
        raise InvalidModelOutputError(f"the {what} are not finite", row=row)
    return numbers


def _within(values: NDArray[np.float64], schema: OutputSchema) -> None:
    least = -np.inf if schema.minimum is None else schema.minimum
    greatest = np.inf if schema.maximum is None else schema.maximum
    wrong = (values < least) | (values > greatest)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidModelOutputError(f"{values[row]:g} is not from {least:g} to {greatest:g}", row=row)
