"""The OpenAPI description and the service agree, whatever is sent."""

import tempfile
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from bulletproof.service import create_app
from bulletproof.settings import Settings

# No schema can say what makes a file, or a list in one, a good one: what is in it decides.
_BY_CONTENT = [
    {
        "include-path": path,
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "409", "415", "422", "503"]},
            # What is no file when it is made is the bytes of one when it is sent.
            "negative_data_rejection": {"expected-statuses": ["2xx", "4xx", "503"]},
        },
    }
    for path in ("/process", "/batches")
]

# Nor what a model takes, which versions there are, and how long it needs.
_BY_MODEL = {
    "include-path-regex": "^/predict$|/infer$",
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "415", "422", "503", "504"]},
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},
    },
}

_FOLDER = tempfile.TemporaryDirectory()
_APP = create_app(Settings(data_dir=Path(_FOLDER.name), api_keys=()))
schema = schemathesis.openapi.from_asgi(
    "/openapi.json", _APP, config=schemathesis.Config.from_dict({"operations": [*_BY_CONTENT, _BY_MODEL]})
)


@pytest.fixture(scope="module", autouse=True)
def _folder() -> object:
    yield
    _FOLDER.cleanup()


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate()
