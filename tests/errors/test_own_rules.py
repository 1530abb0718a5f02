"""``classify``: rules of the user's own, and the diagnosis as a value."""

import copy
import pickle

import pytest

from bulletproof.errors import (
    Diagnosis,
    ErrorType,
    Severity,
    Verdict,
    classify,
    rule,
)

# The value itself


def test_it_is_frozen_equal_copied_and_pickled_as_a_value() -> None:
    found = classify(ConnectionError("x"))
    assert found == classify(ConnectionError("x")) == copy.deepcopy(found) == pickle.loads(pickle.dumps(found))
    assert hash(found) == hash(classify(ConnectionError("x")))
    with pytest.raises(AttributeError):
        found.code = "other"  # type: ignore[misc]
    assert list(found.as_dict()) == list(Diagnosis.__dataclass_fields__)
    assert (found.error_type, found.severity) == (ErrorType.EXTERNAL_SERVICE, Severity.MEDIUM)


# Rules of the user's own


def test_a_rule_of_the_users_own_holds_for_subclasses_and_moved_classes() -> None:
    @rule("shoplib.StockError")
    def stock(error: BaseException) -> Verdict:
        return Verdict("not_found", retryable=False, details=f"no such article: {error.args[0]}", counts=False)

    cls = type("StockError", (ValueError,), {"__module__": "shoplib.core.errors"})
    found = classify(type("Sub", (cls,), {"__module__": "elsewhere"})(7))
    assert (found.code, found.details, found.counts_as_failure) == ("not_found", "no such article: 7", False)
    assert found.rule == "shoplib.StockError"


def test_a_later_rule_replaces_an_earlier_one_even_for_classes_seen_before() -> None:
    cls = type("LateError", (Exception,), {"__module__": "latelib"})
    assert classify(cls("x")).code == "internal_error"
    rule("latelib.LateError")(lambda error: "disk_full")
    assert classify(cls("x")).code == "disk_full"
    rule("latelib.LateError")(lambda error: "io_error")
    assert classify(cls("x")).code == "io_error"


def test_a_rule_may_pass_point_to_another_exception_or_fail() -> None:
    cls = type("OddError", (ConnectionError,), {"__module__": "oddlib"})
    rule("oddlib.OddError")(lambda error: None)
    assert classify(cls("x")).code == "service_unavailable"
    rule("oddlib.OddError")(lambda error: MemoryError("inside"))
    assert (classify(cls("x")).code, classify(cls("x")).details) == ("out_of_memory", "inside")
    rule("oddlib.OddError")(lambda error: error)
    assert classify(cls("x")).code == "internal_error"
    rule("oddlib.OddError")(lambda error: "no such code")
    found = classify(cls("x"))
    assert found.code == "service_unavailable"
    assert "oddlib.OddError" in found.rule


@pytest.mark.parametrize("name", ["", "not a name", "pkg.", "pkg..Error", "3.Error"])
def test_a_rule_needs_the_name_of_a_class(name: str) -> None:
    with pytest.raises(ValueError, match="qualified name"):
        rule(name)
