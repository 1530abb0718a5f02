"""Decorators keep signatures for type checkers."""

from pathlib import Path

from mypy import api


def test_mypy_sees_the_signatures_of_what_is_protected():
    file = Path(__file__).with_name("typed_uses.py")
    root = Path(__file__).parents[3]
    report, errors, code = api.run(["--strict", "--config-file", str(root / "pyproject.toml"), str(file)])
    assert code == 0, report + errors
