"""Packages bring rules along by entry points, which are loaded only when asked for."""

import sys
from pathlib import Path

import pytest

from bulletproof.errors import ConfigurationError, classify, load_rules


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that puts a package with entry points on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, source: str, entry_points: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[bulletproof.rules]\n{entry_points}\n")

    yield put
    for name in [name for name in sys.modules if name.startswith("brought_along")]:
        del sys.modules[name]


_RULES = """
from bulletproof.errors import register, rule

@rule("brought_along.Busy")
def busy(error):
    return "overloaded"

def more():
    register("disk_full", "brought_along.Full")
"""


def test_a_module_and_a_function_bring_rules_along(install) -> None:  # type: ignore[no-untyped-def]
    install("brought_along_a", _RULES, "shop = brought_along_a\nshop_more = brought_along_a:more")
    busy = type("Busy", (Exception,), {"__module__": "brought_along.errors"})("x")
    full = type("Full", (Exception,), {"__module__": "brought_along.errors"})("x")
    assert (classify(busy).code, classify(full).code) == ("internal_error", "internal_error")
    assert {"shop", "shop_more"} <= set(load_rules())
    assert (classify(busy).code, classify(full).code) == ("overloaded", "disk_full")


def test_what_cannot_be_loaded_is_named_and_the_others_are_loaded(install) -> None:  # type: ignore[no-untyped-def]
    install("brought_along_b", "raise RuntimeError('broken on purpose')", "broken = brought_along_b")
    install("brought_along_c", _RULES.replace("brought_along.", "brought_along_too."), "whole = brought_along_c")
    with pytest.raises(ConfigurationError, match=r"broken \(brought_along_b\)") as raised:
        load_rules()
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert classify(type("Busy", (Exception,), {"__module__": "brought_along_too"})()).code == "overloaded"
