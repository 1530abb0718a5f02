"""Requests and responses are made as the API names them."""

import pytest
from pydantic import ValidationError

from bulletproof import PredictionRequest, PredictionResponse


def test_a_request_is_made_of_the_input_alone_and_names_no_version_then() -> None:
    request = PredictionRequest(input_data=[1.2, 3.4, 5.6, 7.8])
    assert (request.model_version, request.model, request.version) == ("v1.0", None, None)


def test_a_version_that_was_set_is_the_one_asked_for() -> None:
    request = PredictionRequest.model_validate({"input_data": [[1]], "model_version": "v1.0", "model": "iris"})
    assert (request.version, request.model) == ("v1.0", "iris")


@pytest.mark.parametrize("data", ["1,2", None, {"a": 1}, 5])
def test_input_that_is_no_list_is_refused(data: object) -> None:
    with pytest.raises(ValidationError):
        PredictionRequest.model_validate({"input_data": data})


def test_a_response_has_the_four_fields_of_the_contract() -> None:
    response = PredictionResponse(prediction=0.85, confidence=0.92, model_version="v1.0")
    assert response.model_dump(exclude_none=True) == {
        "prediction": 0.85, "confidence": 0.92, "model_version": "v1.0", "status": "success",
    }  # fmt: skip
    assert '"prediction":1,' in PredictionResponse(prediction=1, confidence=1, model_version="v1.0").model_dump_json()
