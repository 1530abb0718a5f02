"""The OpenAPI description and the service agree, whatever is sent."""

from typing import Any

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


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The description of an app that is made when the test runs, not when it is collected: others are left alone."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("contract"), api_keys=()))
    config = schemathesis.Config.from_dict({"operations": [*_BY_CONTENT, _BY_MODEL]})
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


@pytest.fixture(autouse=True)
def _named(request: pytest.FixtureRequest) -> None:
    request.node._nodeid = request.node.nodeid  # where schemathesis looks for it, and this pytest has it no more


@pytest.mark.timeout(600)  # of all operations together, each a subtest
@schemathesis.pytest.from_fixture("described").parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate()
