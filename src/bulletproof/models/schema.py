"""Rows of numbers out of untrusted JSON, by the model's own input schema."""

import math
import sys
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import InputValidationError
from bulletproof.models.manifest import Feature, InputSchema

Rows = NDArray[np.float64]

_NUMBERS = frozenset((float, int))
_LISTS = frozenset((list,))
_LARGEST = sys.float_info.max
_NUMERIC = "Input must be numeric array"


class RowReader:
    """Reads the input of one model; made once, it answers for every request.

    Args:
        schema: What the model takes.

    Example:
        >>> read = RowReader(InputSchema(features=(Feature(name="petal length", minimum=0, maximum=10),)))
        >>> read([1.4])
        (array([[1.4]]), True)
        >>> read([[1.4], [-1]])
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.InputValidationError: petal length must be from 0 to 10, not -1 (row 1, index 0)
    """

    def __init__(self, schema: InputSchema) -> None:
        self._features = schema.features
        self._width = len(schema.features)
        self._most = schema.max_rows
        bounds = [(_or(one.minimum, -_LARGEST), _or(one.maximum, _LARGEST)) for one in schema.features]
        self._bounds = bounds
        self._least, self._greatest = np.array(bounds, dtype=np.float64).T
        whole = [one.type == "int" for one in schema.features]
        self._whole = np.array(whole) if any(whole) else None

    def __call__(self, data: object) -> tuple[Rows, bool]:
        """Read what a caller sent: one row of numbers, or a list of rows.

        Nothing is guessed: a digit string, a bool and null are no numbers, NaN and the infinities are not finite.

        Args:
            data: A value as a JSON parser gives it.

        Returns:
            The rows, of shape (rows, features), and whether it was one row alone.

        Raises:
            InputValidationError: ``not_numeric``, ``shape_mismatch`` or ``invalid_input`` (out of range); says where,
                rows and indexes counted from 0.
        """
        if not isinstance(data, list):
            raise InputValidationError(f"{_NUMERIC}: got {_kind(data)}", code="not_numeric", hint=self._hint)
        single = not (data and isinstance(data[0], list))
        if single and self._whole is None and self._fits(data):  # in a third of the time of what follows
            return np.array([data], dtype=np.float64), True
        many = [data] if single else data
        if not single and len(data) > self._most:
            self._misshapen(f"Too many rows: {len(data):,}, at most {self._most:,} are taken at once")
        if not (
            set(map(type, many)) == _LISTS
            and set(map(len, many)) == {self._width}
            and set(map(type, chain.from_iterable(many))) <= _NUMBERS
        ):
            self._find_fault(many, single)
        try:
            rows = np.array(many, dtype=np.float64)
        except OverflowError:
            self._find_fault(many, single)
            raise
        fits = (rows >= self._least) & (rows <= self._greatest)
        if self._whole is not None:
            fits &= ~self._whole | (rows == np.floor(rows))
        if not fits.all():
            self._find_fault(many, single)
            row, index = map(int, np.unravel_index(int(fits.argmin()), fits.shape))
            raise self._out_of_range(many[row][index], index, None if single else row)
        return rows, single

    def _fits(self, data: list[Any]) -> bool:
        """Tell whether a row is right; False leaves it to the checks that say why it is not."""
        if len(data) != self._width:
            return False
        for value, (least, greatest) in zip(data, self._bounds, strict=True):
            if not (type(value) in _NUMBERS and least <= value <= greatest):
                return False
        return True

    @property
    def _hint(self) -> str:
        return (
            f"Send a list of {self._width} finite number{'s'[: self._width != 1]}, "
            f"or a list of at most {self._most:,} such lists."
        )

    def _find_fault(self, many: list[Any], single: bool) -> None:
        """Raise for the first value that is wrong; return if none is (a subclass of float is a number too)."""
        for number, values in enumerate(many):
            row = None if single else number
            if not isinstance(values, list):
                message = f"{_NUMERIC}: got {_kind(values)} among the rows, which must all be lists of numbers"
                raise InputValidationError(message, code="not_numeric", hint=self._hint, row=row)
            if len(values) != self._width:
                if values and isinstance(values[0], list):
                    message = f"{_NUMERIC}: a list stands where a number should, nested too deeply"
                    raise InputValidationError(message, code="not_numeric", hint=self._hint, row=row, index=0)
                what = "the input" if single else "a row"
                self._misshapen(f"Wrong length: expected {self._width} numbers, got {len(values)} in {what}", row=row)
            for index, value in enumerate(values):
                fault = _fault(value)
                if fault:
                    raise InputValidationError(
                        f"{_NUMERIC}: {self._features[index].name} is {fault}",
                        code="not_numeric", hint=self._hint, row=row, index=index,
                    )  # fmt: skip

    def _misshapen(self, message: str, row: int | None = None) -> NoReturn:
        raise InputValidationError(message, code="shape_mismatch", hint=self._hint, row=row)

    def _out_of_range(self, value: float, index: int, row: int | None) -> InputValidationError:
        feature = self._features[index]
        message = f"{feature.name} must be {_range(feature)}, not {value:g}"
        unit = f" in {feature.unit}" if feature.unit else ""
        hint = f"Check the value of {feature.name}{unit}, and that the numbers are in the order of the model's schema."
        return InputValidationError(message, hint=hint, row=row, index=index)


def _or(limit: float | None, without: float) -> float:
    return without if limit is None else limit


def _kind(value: object) -> str:
    """Say in JSON's words what a value is; its content stays out of messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    names = ((str, "a string"), (list, "a list"), (dict, "an object"), (int | float, "a single number"))
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")


def _fault(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _kind(value) + (", nested too deeply" if isinstance(value, list) else "")
    try:
        number = float(value)
    except OverflowError:
        return "a whole number that is too large"
    return None if math.isfinite(number) else f"{'NaN' if math.isnan(number) else 'infinite'}, which is not finite"


def _range(feature: Feature) -> str:
    kind = "a whole number " if feature.type == "int" else ""
    least, greatest = feature.minimum, feature.maximum
    if least is not None and greatest is not None:
        return f"{kind}from {least:g} to {greatest:g}"
    if least is not None:
        return f"{kind}at least {least:g}"
    return f"{kind}at most {greatest:g}" if greatest is not None else kind.strip()
