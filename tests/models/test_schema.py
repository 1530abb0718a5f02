"""Rows are read out of any JSON value, or it is said what is wrong with it and where."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import InputValidationError
from bulletproof.models.manifest import Feature, InputSchema
from bulletproof.models.schema import RowReader

SCHEMA = InputSchema(
    features=(
        Feature(name="length", unit="cm", minimum=0, maximum=30),
        Feature(name="width"),
        Feature(name="leaves", type="int", minimum=1),
    ),
    max_rows=4,
)
GOOD = [1.5, -2, 3]


def refused(data: object, schema: InputSchema = SCHEMA) -> InputValidationError:
    with pytest.raises(InputValidationError) as caught:
        RowReader(schema)(data)
    return caught.value


def test_one_row_and_a_list_of_rows_are_read() -> None:
    rows, single = RowReader(SCHEMA)(GOOD)
    assert (rows.tolist(), rows.dtype, single) == ([[1.5, -2.0, 3.0]], np.float64, True)
    rows, single = RowReader(SCHEMA)([GOOD, [0, 0.0, 4.0]])
    assert (rows.tolist(), single) == ([[1.5, -2.0, 3.0], [0.0, 0.0, 4.0]], False)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("text", "a string"), ({"a": 1}, "an object"), (None, "null"), (True, "a bool"), (1.5, "a single number"),
     ((1, 2, 3), "a tuple")],
)  # fmt: skip
def test_what_is_no_list_is_not_numeric(value: object, kind: str) -> None:
    error = refused(value)
    assert (error.code, error.spec.title) == ("not_numeric", "Invalid input format")
    assert str(error) == f"Input must be numeric array: got {kind}"


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1.5", "a string"), (None, "null"), (False, "a bool"), ({}, "an object"), ([1], "a list, nested too deeply"),
     (float("nan"), "NaN, which is not finite"), (float("-inf"), "infinite, which is not finite"),
     (10**400, "a whole number that is too large"),
     pytest.param(10**9000, "a whole number that is too large", id="huge")],
)  # fmt: skip
def test_each_value_that_is_no_finite_number_is_named_with_its_place(value: object, kind: str) -> None:
    error = refused([1, value, 3])
    assert (error.code, error.where) == ("not_numeric", {"index": 1})
    assert str(error) == f"Input must be numeric array: width is {kind} (index 1)"
    error = refused([GOOD, GOOD, [1, value, 3]])
    assert str(error) == f"Input must be numeric array: width is {kind} (row 2, index 1)"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "Wrong length: expected 3 numbers, got 0 in the input"),
        ([1, 2], "Wrong length: expected 3 numbers, got 2 in the input"),
        ([1.0] * 100_000, "Wrong length: expected 3 numbers, got 100000 in the input"),
        ([[]], "Wrong length: expected 3 numbers, got 0 in a row (row 0)"),
        ([GOOD, [1, 2, 3, 4]], "Wrong length: expected 3 numbers, got 4 in a row (row 1)"),
        ([GOOD] * 5, "Too many rows: 5, at most 4 are taken at once"),
    ],
)
def test_a_wrong_shape_says_what_was_expected_and_what_came(data: object, message: str) -> None:
    error = refused(data)
    assert (error.code, str(error)) == ("shape_mismatch", message)
    assert error.hint == "Send a list of 3 finite numbers, or a list of at most 4 such lists."


def test_rows_and_numbers_mixed_are_refused_at_the_first_that_does_not_fit() -> None:
    assert "a single number among the rows" in str(refused([GOOD, 1]))
    assert "length is a list" not in str(refused([1, [2], 3]))
    assert "width is a list, nested too deeply (index 1)" in str(refused([1, [2], 3]))
    assert "length is a list, nested too deeply (row 0, index 0)" in str(refused([[[1], 2, 3]]))
    error = refused([[GOOD]])
    assert (error.code, "nested too deeply (row 0, index 0)" in str(error)) == ("not_numeric", True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([-1, 0, 1], "length must be from 0 to 30, not -1 (index 0)"),
        ([31.5, 0, 1], "length must be from 0 to 30, not 31.5 (index 0)"),
        ([1, 0, 0], "leaves must be a whole number at least 1, not 0 (index 2)"),
        ([1, 0, 2.5], "leaves must be a whole number at least 1, not 2.5 (index 2)"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_range(row: list[float], message: str) -> None:
    error = refused(row)
    assert (error.code, str(error)) == ("invalid_input", message)


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert RowReader(SCHEMA)([1, 1, 2.0])[0].tolist() == [[1.0, 1.0, 2.0]]


def test_a_long_row_of_good_numbers_and_one_bad_is_found() -> None:
    wide = InputSchema(features=tuple(Feature(name=f"f{index}") for index in range(1000)))
    row: list[Any] = [0.5] * 1000
    assert RowReader(wide)(row)[0].shape == (1, 1000)
    row[777] = "x"
    assert "f777 is a string (index 777)" in str(refused(row, wide))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)


@given(json_values | st.lists(json_values | numbers, min_size=3, max_size=3))
def test_any_json_value_gives_rows_or_an_error_of_validation(data: object) -> None:
    try:
        rows, single = RowReader(SCHEMA)(data)
    except InputValidationError as error:
        code, message = error.code, str(error)
    else:
        assert isinstance(data, list)
        assert rows.shape == (1 if single else len(data), 3)
        assert np.isfinite(rows).all()
        return
    assert code in ("not_numeric", "shape_mismatch", "invalid_input")
    assert message


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=4))
def test_every_good_batch_is_read_number_by_number(data: list[list[float]]) -> None:
    schema = InputSchema(features=(Feature(name="a"), Feature(name="b")))
    rows, single = RowReader(schema)(data)
    assert not single
    assert rows.tolist() == [[float(value) for value in row] for row in data]


@given(st.lists(numbers | json_values, min_size=1, max_size=3))
def test_a_row_alone_and_a_row_of_a_batch_are_judged_alike(row: list[object]) -> None:
    schema = InputSchema(features=(Feature(name="a", minimum=-10, maximum=10), Feature(name="b")))
    outcomes = []
    for data in (row, [row]):
        try:
            outcomes.append(RowReader(schema)(data)[0].tolist())
        except InputValidationError as error:
            outcomes.append((error.code, error.message.removesuffix(" the input").removesuffix(" a row")))
    if not isinstance(row[0], list):
        assert outcomes[0] == outcomes[1]
