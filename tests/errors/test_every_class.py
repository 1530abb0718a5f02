"""Every exception class of the libraries in the data file has a rule, or is in a list that people reviewed."""

from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors.registry import rules_for

_HERE = Path(__file__).parent
_REVIEWED = [
    line.strip()
    for line in (_HERE / "defaults.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
# Rules that say little more than that something failed.
_GENERIC = {
    "unknown exception", "BaseException", "Exception", "RuntimeError", "ValueError", "OSError", "TypeError",
    "NameError", "LookupError", "ArithmeticError", "AssertionError", "AttributeError", "SyntaxError",
    "NotImplementedError",
}  # fmt: skip


def _reviewed(name: str) -> str | None:
    """Return the line of the list that covers the class."""
    for line in _REVIEWED:
        if name == line or (line.endswith(".*") and name.startswith(line[:-1])):
            return line
    return None


def test_no_class_falls_to_the_default_unless_the_reviewed_list_says_so(catalogue: Any) -> None:
    fallen = [
        name
        for name in catalogue.bases
        if "." in name and rules_for(catalogue.build(name))[0].name in _GENERIC and _reviewed(name) is None
    ]
    assert not fallen, f"{len(fallen)} classes need a rule, or a line in defaults.txt after a look: {fallen[:20]}"


def test_the_reviewed_list_holds_nothing_that_a_rule_names_or_that_is_gone(catalogue: Any) -> None:
    fallen = [name for name in catalogue.bases if "." in name and rules_for(catalogue.build(name))[0].name in _GENERIC]
    used = {_reviewed(name) for name in fallen}
    assert [line for line in _REVIEWED if line not in used] == []


_PACKAGES = """aiohttp anthropic asyncpg botocore celery cohere dbos fastapi google.genai grpc httpx httpx2 ijson joblib
    litellm mistralai msgspec numpy onnxruntime openai orjson pandas pebble PIL polars psycopg pyarrow pydantic pymongo
    ray redis requests safetensors sklearn skops sqlalchemy sqlite3 ssl starlette tenacity tensorflow torch transformers
    urllib3 zipfile"""


@pytest.mark.parametrize("package", _PACKAGES.split())
def test_the_data_file_covers_the_libraries_of_ai_systems(catalogue: Any, package: str) -> None:
    assert any(name.startswith(f"{package}.") for name in catalogue.bases)
