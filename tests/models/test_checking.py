"""What a model answers is checked before anybody sees it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bulletproof.errors import InvalidModelOutputError
from bulletproof.models.checking import answers_of
from bulletproof.models.manifest import OutputSchema
from bulletproof.models.predictor import Outputs

CLASSES = OutputSchema(classes=("no", "maybe", "yes"))
NUMBER = OutputSchema(kind="regression", minimum=-1, maximum=1)
FINE = [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]


def outputs(values: Any, probabilities: Any = None, confidences: Any = None) -> Outputs:
    return Outputs(*(None if part is None else np.array(part) for part in (values, probabilities, confidences)))  # type: ignore[arg-type]


def test_a_classification_answers_class_probability_and_name() -> None:
    first, second = answers_of(outputs([2, 0], FINE), 2, CLASSES)
    assert first == (2, 0.7, "yes")
    assert second == (0, 0.5, "no")
    assert isinstance(first.prediction, int)


def test_a_model_without_probabilities_claims_no_confidence() -> None:
    assert answers_of(outputs([1]), 1, CLASSES) == [(1, 0.0, "maybe")]
    assert answers_of(outputs([0.5]), 1, NUMBER) == [(0.5, 0.0, None)]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_class_that_is_impossible_by_the_models_own_probabilities_is_refused(rows: int) -> None:
    given = outputs([1, 0][-rows:], [[0, 1.0, 0], [0, 1.0, 0]][-rows:])
    with pytest.raises(
        InvalidModelOutputError, match="class 0 was predicted, with a probability of 0, and class 1 has 1"
    ):
        answers_of(given, rows, CLASSES)
    less_likely = outputs([0], [[0.3, 0.4, 0.3]])  # an SVM's classes and probabilities come from two models
    assert answers_of(less_likely, 1, CLASSES)[0].confidence == 0.3


def test_a_model_that_states_the_confidence_alone_is_believed() -> None:
    assert answers_of(outputs([1], confidences=[0.75]), 1, CLASSES) == [(1, 0.75, "maybe")]
    with pytest.raises(InvalidModelOutputError, match=r"a confidence of 1.5 is not from 0 to 1"):
        answers_of(outputs([1], confidences=[1.5]), 1, CLASSES)


def test_rounding_in_single_precision_is_no_fault() -> None:
    probabilities = np.array([[1 / 3, 1 / 3, 1 / 3 + 2e-7]], dtype=np.float32)
    assert answers_of(Outputs(np.array([0.0]), probabilities), 1, CLASSES)[0].confidence == pytest.approx(1 / 3)
    assert answers_of(outputs([2], [[-1e-7, 0, 1 + 1e-7]]), 1, CLASSES)[0].confidence == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (outputs([0]), r"shape for each class index is \(1,\), not \(2,\)"),
        (outputs([[0], [1]]), r"class index is \(2, 1\)"),
        (outputs([0, float("nan")]), r"class index of nan is not finite \(row 1\)"),
        (outputs(["no", "yes"]), "class index is not a number"),
        (outputs([None, {}]), "class index is not a number"),
        (outputs([0, 3]), r"class index of 3 is not from 0 to 2 \(row 1\)"),
        (outputs([-1, 0]), r"class index of -1 is not from 0 to 2 \(row 0\)"),
        (outputs([0, 0.5]), r"class index of 0.5 is not whole \(row 1\)"),
        (outputs([0, 1], [[0.5, 0.5], [1, 0]]), r"each probability is \(2, 2\), not \(2, 3\)"),
        (outputs([0, 1], [FINE[0], [0, float("inf"), 0]]), r"probability of inf is not finite \(row 1\)"),
        (outputs([0, 1], [FINE[0], [1.2, -0.2, 0]]), r"a probability of 1.2 is not from 0 to 1 \(row 1\)"),
        (outputs([0, 1], [FINE[0], [0.2, 0.2, 0.2]]), r"probabilities of the classes sum to 0.6, not 1 \(row 1\)"),
    ],
)
def test_rubbish_is_an_invalid_model_output(given: Outputs, message: str) -> None:
    with pytest.raises(InvalidModelOutputError, match=message) as caught:
        answers_of(given, 2, CLASSES)
    assert caught.value.code == "invalid_model_output"


@pytest.mark.parametrize("value", [-1.5, 1.5])
def test_a_value_beyond_the_bounds_of_a_regression_is_refused(value: float) -> None:
    with pytest.raises(InvalidModelOutputError, match="is not from -1 to 1"):
        answers_of(outputs([0.0, value]), 2, NUMBER)


@given(
    arrays.arrays(np.float64, st.integers(0, 3)),
    st.none() | arrays.arrays(np.float64, st.tuples(st.integers(0, 3), st.integers(0, 4))),
)
def test_whatever_a_model_answers_is_checked_or_refused(values: Any, probabilities: Any) -> None:
    try:
        answers = answers_of(Outputs(values, probabilities), 2, CLASSES)
    except InvalidModelOutputError:
        return
    assert all(one.label == CLASSES.classes[one.prediction] and 0 <= one.confidence <= 1 for one in answers)  # type: ignore[index]


def judged(outputs: Outputs, rows: int) -> Any:
    try:
        return answers_of(outputs, rows, CLASSES)[0]
    except InvalidModelOutputError as error:
        return error.message


@given(
    arrays.arrays(np.float64, 1, elements=st.floats(-1, 4) | st.sampled_from([0.0, 1.0, 2.0, float("nan")])),
    arrays.arrays(np.float64, (1, 3), elements=st.floats(-0.2, 1.2) | st.sampled_from([0.25, 0.5, float("inf")])),
)
def test_one_row_alone_and_one_of_two_are_judged_alike(values: Any, probabilities: Any) -> None:
    pair = Outputs(np.repeat(values, 2), np.repeat(probabilities, 2, axis=0))
    assert judged(Outputs(values, probabilities), 1) == judged(pair, 2)
