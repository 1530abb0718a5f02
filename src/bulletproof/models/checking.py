"""What a model answered, checked against what its schema says that it answers."""

import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import InvalidModelOutputError
from bulletproof.models.manifest import OutputSchema
from bulletproof.models.predictor import Outputs

_TOLERANCE = 1e-3  # of probabilities and their sum, which many models compute in single precision
_LARGEST = sys.float_info.max


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
        InvalidModelOutputError: Wrong shape, not finite, a class that does not exist, probabilities that are none or
            say the opposite.

    Example:
        >>> outputs = Outputs(np.array([1.0]), np.array([[0.2, 0.8]]))
        >>> answers_of(outputs, 1, OutputSchema(classes=("no", "yes")))
        [Answer(prediction=1, confidence=0.8, label='yes')]
    """
    if rows == 1 and (answer := _quick(outputs, schema.classes)) is not None:
        return [answer]
    if schema.kind == "regression":
        least = -_LARGEST if schema.minimum is None else schema.minimum
        greatest = _LARGEST if schema.maximum is None else schema.maximum
        values = _checked(outputs.values, "value", (rows,), least, greatest)
        return [Answer(value, 0.0, None) for value in values.tolist()]
    classes = schema.classes
    values = _checked(outputs.values, "class index", (rows,), 0, len(classes) - 1)
    chosen = values.astype(np.intp)
    if not (chosen == values).all():
        row = int((chosen != values).argmax())
        raise InvalidModelOutputError(f"a class index of {values[row]:g} is not whole", row=row)
    confidences = _confidences(outputs, chosen, len(classes))
    numbers = chosen.tolist()
    return list(map(Answer, numbers, confidences, [classes[number] for number in numbers]))


def _quick(outputs: Outputs, classes: tuple[str, ...]) -> Answer | None:
    """Check one row's class and probabilities, in a third of the time; None leaves it to the checks that say why."""
    values, table = outputs.values, outputs.probabilities
    if table is None or values.shape != (1,) or table.shape != (1, len(classes)):
        return None
    value, [row] = float(values[0]), table.tolist()
    fits = min(row) >= -_TOLERANCE and max(row) <= 1 + _TOLERANCE and abs(sum(row) - 1) <= _TOLERANCE
    if not fits or not 0 <= value < len(classes) or not value.is_integer():
        return None
    chosen = int(value)
    if row[chosen] <= _TOLERANCE and max(row) >= 1 - _TOLERANCE:
        return None
    return Answer(chosen, min(1.0, max(0.0, row[chosen])), classes[chosen])


def _confidences(outputs: Outputs, chosen: NDArray[np.intp], classes: int) -> list[float]:
    rows = len(chosen)
    if outputs.probabilities is None:
        if outputs.confidences is None:
            return [0.0] * rows
        return list(_checked(outputs.confidences, "confidence", (rows,), 0, 1).tolist())
    table = _checked(outputs.probabilities, "probability", (rows, classes), -_TOLERANCE, 1 + _TOLERANCE)
    off = np.abs(table.sum(axis=1) - 1)
    if off.max() > _TOLERANCE:
        row = int(off.argmax())
        raise InvalidModelOutputError(f"the probabilities of the classes sum to {table[row].sum():g}, not 1", row=row)
    stated = table[np.arange(rows), chosen]
    # A class that is not the most probable one may be right: some classifiers decide by other means. Not so one that
    # is impossible beside one that is certain.
    absurd = (stated <= _TOLERANCE) & (table.max(axis=1) >= 1 - _TOLERANCE)
    if absurd.any():
        row = int(absurd.argmax())
        raise InvalidModelOutputError(
            f"class {chosen[row]} was predicted, with a probability of {stated[row]:g}, and class "
            f"{table[row].argmax()} has {table[row].max():g}",
            row=row,
        )
    return list(np.minimum(np.maximum(stated, 0), 1).tolist())


def _checked(given: object, what: str, shape: tuple[int, ...], least: float, greatest: float) -> NDArray[np.float64]:
    """Take it as finite numbers of a shape within bounds, whatever a model of somebody else's gave."""
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidModelOutputError(f"a {what} is not a number") from error
    if numbers.shape != shape:
        raise InvalidModelOutputError(f"the shape for each {what} is {numbers.shape}, not {shape}")
    if not (numbers.min() >= least and numbers.max() <= greatest):  # so that NaN is found too
        place = np.unravel_index(int((~((numbers >= least) & (numbers <= greatest))).argmax()), shape)
        value = numbers[place]
        fault = f"not from {round(least, 2) + 0:g} to {round(greatest, 2):g}" if np.isfinite(value) else "not finite"
        raise InvalidModelOutputError(f"a {what} of {value:g} is {fault}", row=int(place[0]))
    return numbers
