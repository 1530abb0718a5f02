"""What an LLM is asked, and what of its answer is believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.analysis.llm_questions import Judgement, answer_schema, question, read_answer

FINE = {"sentiment": "positive", "score": 0.5, "confidence": 0.9}


def test_half_a_surrogate_pair_does_not_keep_the_other_texts_from_being_sent() -> None:
    user = question({"t1": "broken \ud83d"}, None)[1]
    user["content"].encode()


def test_the_schema_asks_for_each_id_once_and_nothing_else() -> None:
    schema = answer_schema(["t1", "t2"], ["praise", "bug"])
    assert schema["required"] == ["t1", "t2"] == list(schema["properties"])
    judgement = schema["$defs"]["judgement"]
    assert judgement["required"] == list(judgement["properties"])
    assert judgement["properties"]["label"]["enum"] == ["praise", "bug"]
    assert schema["additionalProperties"] is judgement["additionalProperties"] is False


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"sentiment": "great", "score": 0.5, "confidence": 0.9}, "t1.sentiment"),
        ({**FINE, "score": 1.5}, "t1.score"),
        ({**FINE, "score": "0.5"}, "t1.score"),
        ({**FINE, "score": True}, "t1.score"),
        ({**FINE, "score": -0.5}, "contradicts"),
        ({**FINE, "confidence": -0.1}, "t1.confidence"),
        ({"sentiment": "positive", "score": 0.5}, "t1.confidence"),
        ("positive", "t1"),
        (None, "t1"),
    ],
)
def test_a_judgement_outside_the_schema_is_not_believed(answer: Any, problem: str) -> None:
    valid, problems = read_answer(json.dumps({"t1": answer, "t2": FINE}), ["t1", "t2"], None)
    assert list(valid) == ["t2"]
    assert problem in problems[0]


@pytest.mark.parametrize(
    "judgement", [{**FINE, "label": "other", "label_confidence": 1}, {**FINE, "label": "bug"}, FINE]
)
def test_a_label_must_be_one_of_the_callers(judgement: Any) -> None:
    valid, problems = read_answer(json.dumps({"t1": judgement}), ["t1"], ["praise", "bug"])
    assert not valid
    assert "label" in problems[0]


def test_what_is_beyond_the_schema_is_dropped() -> None:
    answer = {"t1": {**FINE, "reason": "because", "label": None}, "t9": FINE, "comment": "hello"}
    valid, problems = read_answer(json.dumps(answer), ["t1"], None)
    assert valid == {"t1": Judgement(**FINE)}
    assert problems == []


@pytest.mark.parametrize("wrapped", ["```json\n{}\n```", "<think>maybe {{...</think>", "Sure! {}", "{}"])
def test_text_around_the_answer_is_tolerated_or_named_as_a_problem(wrapped: str) -> None:
    valid, problems = read_answer(wrapped.replace("{}", json.dumps({"t1": FINE})), ["t1"], None)
    assert bool(valid) != bool(problems)


def test_an_id_that_is_answered_twice_counts_as_not_answered() -> None:
    one = json.dumps(FINE)
    valid, problems = read_answer(f'{{"t1": {one}, "t1": {one}, "t2": {one}}}', ["t1", "t2"], None)
    assert list(valid) == ["t2"]
    assert problems[0].startswith("t1")


@pytest.mark.parametrize(
    "answer", ["", "no", "[1]", "{", "{}}", '{"t1": NaN}', "[" * 50_000 + "{}", '{"a":' * 50_000 + "}"]
)
def test_no_answer_breaks_the_reader(answer: str) -> None:
    valid, problems = read_answer(answer, ["t1"], None)
    assert not valid
    assert problems


@given(st.text(), st.lists(st.sampled_from(["t1", "t2", "t3"]), unique=True, min_size=1))
def test_any_text_is_read_without_an_error(answer: str, ids: list[str]) -> None:
    valid, problems = read_answer(answer, ids, None)
    assert set(valid) <= set(ids)
    assert problems or len(valid) == len(ids)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["positive", "negative"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["t1", "sentiment", "score", "confidence"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["t1", "t2"]), json_values))
def test_whatever_is_believed_is_within_bounds(answer: dict[str, Any]) -> None:
    valid, _ = read_answer(json.dumps(answer), ["t1", "t2"], None)
    for judgement in valid.values():
        assert -1 <= judgement.score <= 1
        assert 0 <= judgement.confidence <= 1


def test_problems_do_not_quote_what_the_model_said() -> None:
    _, problems = read_answer(json.dumps({"t1": {**FINE, "sentiment": "my secret text"}}), ["t1"], None)
    assert "my secret text" not in " ".join(problems)
