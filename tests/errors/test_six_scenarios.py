"""The six scenarios of the example, provoked for real, are told apart."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_FILE = Path(__file__).parents[2] / "examples" / "six_scenarios.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("six_scenarios", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_each_scenario_has_its_type_code_severity_and_advice(example: ModuleType) -> None:
    outcomes = await example.provoke()
    found = [(d.error_type, d.code, d.severity, d.retryable, d.retry_after) for _, _, d in outcomes]
    assert found == [
        ("validation_error", "corrupted_image", "low", False, None),
        ("resource_error", "gpu_out_of_memory", "high", False, None),
        ("external_service_error", "rate_limited", "medium", True, 20.0),
        ("model_error", "invalid_model_output", "high", False, None),
        ("resource_error", "database_unavailable", "high", True, None),
        ("validation_error", "unsupported_language", "low", False, None),
    ]
    assert all(d.hint and d.details and "secret" not in d.details for _, _, d in outcomes)
    assert [type(error).__module__.partition(".")[0] for _, error, _ in outcomes] == [
        "builtins", "torch", "openai", "bulletproof", "builtins", "bulletproof",
    ]  # fmt: skip


def test_it_prints_a_table_for_people(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main() == 0
    printed = capsys.readouterr().out
    for words in ("Scenario", "What to do", "yes, after 20 s", "Upload", "Lower the batch size", "supported are"):
        assert words.lower() in printed.lower()
