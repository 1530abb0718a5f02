"""``classify``: chains, groups, neutrality, statuses, and exceptions that mean harm."""

import asyncio
import concurrent.futures
import enum
import socket
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import (
    CODES,
    AIError,
    BadResponseError,
    CircuitOpenError,
    Diagnosis,
    InputValidationError,
    InvalidFileError,
    InvalidModelOutputError,
    ModelLoadError,
    PredictionError,
    RateLimitedError,
    ServiceUnavailableError,
    classify,
)


def caught(raise_it: Any) -> BaseException:
    try:
        raise_it()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class WrapperError(Exception):
    """A class that no rule knows."""


class StatusError(Exception):
    def __init__(self, status: int, headers: dict[str, str] | None = None, body: Any = None) -> None:
        super().__init__(f"it answered {status}")
        self.status_code = status
        self.headers = headers or {}
        self.body = body


# One exception by itself


@pytest.mark.parametrize(
    "error", [Exception("x"), ValueError("x"), KeyError("x"), RuntimeError("x"), WrapperError("x")]
)
def test_an_unknown_exception_is_an_internal_error_that_counts_and_is_not_worth_another_try(error: Exception) -> None:
    found = classify(error)
    assert (found.error_type, found.code, found.severity) == ("resource_error", "internal_error", "high")
    assert (found.retryable, found.counts_as_failure, found.http_status) == (False, True, 500)


@pytest.mark.parametrize(
    "error", [ConnectionError("x"), ConnectionRefusedError(111, "x"), BrokenPipeError(), socket.gaierror(-2, "x")]
)
def test_a_broken_connection_is_an_unavailable_service_worth_another_try(error: Exception) -> None:
    found = classify(error)
    assert (found.error_type, found.code, found.retryable) == ("external_service_error", "service_unavailable", True)


@pytest.mark.parametrize("error", [TimeoutError("x"), TimeoutError()])
def test_a_timeout_is_a_failure_of_the_service(error: Exception) -> None:
    found = classify(error)
    assert (found.code, found.retryable, found.counts_as_failure) == ("service_timeout", True, True)


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        concurrent.futures.CancelledError(),
        InputValidationError("bad"),
        InvalidFileError("bad", code="invalid_json"),
        AIError("refused", code="content_filtered"),
        *(StatusError(status) for status in (400, 401, 402, 403, 404, 405, 410, 413, 422, 451, 499)),
    ],
    ids=repr,
)
def test_cancellation_the_callers_mistakes_and_most_4xx_are_neutral(error: BaseException) -> None:
    assert classify(error).counts_as_failure is False


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 501, 502, 503, 504, 507, 520, 529, 599])
def test_these_statuses_count(status: int) -> None:
    assert classify(StatusError(status)).counts_as_failure is True


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "request_rejected", False), (401, "auth_failed", False), (402, "quota_exhausted", False),
        (403, "auth_failed", False), (404, "request_rejected", False), (408, "service_timeout", True),
        (409, "service_unavailable", True), (422, "request_rejected", False), (425, "service_unavailable", True),
        (429, "rate_limited", True), (500, "service_unavailable", True), (501, "service_unavailable", False),
        (502, "service_unavailable", True), (503, "service_unavailable", True), (504, "service_timeout", True),
        (529, "service_unavailable", True), (302, "bad_response", False),
    ],
)  # fmt: skip
def test_any_error_that_carries_a_status_is_judged_by_it(status: int, code: str, retryable: bool) -> None:
    found = classify(StatusError(status))
    assert (found.code, found.retryable, found.error_type) == (code, retryable, "external_service_error")


@pytest.mark.parametrize("attribute", ["status_code", "http_status", "status", "code", "http_code"])
def test_the_status_is_found_under_its_usual_names(attribute: str) -> None:
    error = WrapperError("x")
    setattr(error, attribute, 503)
    assert classify(error).code == "service_unavailable"


def test_the_status_is_found_in_a_response() -> None:
    error = WrapperError("x")
    error.response = SimpleNamespace(status_code=429, headers={"Retry-After": "3"})  # type: ignore[attr-defined]
    assert (classify(error).code, classify(error).retry_after) == ("rate_limited", 3.0)


def test_a_number_that_is_no_status_says_nothing() -> None:
    for value in (True, 7, 42, 1062, -1, "503", None, 5.5):
        error = WrapperError("x")
        error.code = value  # type: ignore[attr-defined]
        assert classify(error).code == "internal_error"


def test_the_service_may_forbid_or_allow_another_try() -> None:
    assert classify(StatusError(503, {"x-should-retry": "false"})).retryable is False
    assert classify(StatusError(400, {"X-Should-Retry": "true"})).retryable is True


def test_a_date_to_come_back_is_measured_from_the_given_moment() -> None:
    error = StatusError(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    moment = datetime(2015, 10, 21, 7, 27, 30, tzinfo=UTC)
    assert classify(error, now=lambda: moment).retry_after == 30.0


def test_a_quota_for_a_day_is_exhausted_and_one_for_a_minute_is_a_rate_limit() -> None:
    exceeded = {"error": {"message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED"}}
    assert classify(StatusError(429, body=exceeded)).code == "quota_exhausted"
    exceeded["error"]["details"] = [{"retryDelay": "21s"}]  # type: ignore[assignment]
    found = classify(StatusError(429, body=exceeded))
    assert (found.code, found.retry_after) == ("rate_limited", 21.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 20s.", 20.0), ("Please try again in 1.5s", 1.5), ("Please try again in 250ms", 0.25),
        ("Please try again in 6m0s", 360.0), ("Please try again in 1h2m3s", 3723.0), ("try again in a while", None),
        ("try again in 5", None), ("Please retry in 35.2s.", 35.2), ("Please try again in 0s", None),
    ],
)  # fmt: skip
def test_a_wait_that_stands_only_in_the_words_is_read(text: str, seconds: float | None) -> None:
    assert classify(StatusError(429, body={"error": {"message": text}})).retry_after == seconds


def test_the_details_of_an_http_error_are_the_vendors_words_on_one_line() -> None:
    body = {"error": {"message": "Rate limit reached\nfor gpt-4o", "type": "requests", "code": "rate_limit_exceeded"}}
    assert classify(StatusError(429, body=body)).details == "HTTP 429: Rate limit reached"


# Our own errors


def test_our_own_error_says_itself_what_it_is() -> None:
    error = BadResponseError("not JSON", hint="ask them", retry_after=4.0, retryable=False, url="https://example.com")
    found = classify(error)
    assert (found.code, found.hint, found.retry_after, found.retryable) == ("bad_response", "ask them", 4.0, False)
    assert found.details == "not JSON (url https://example.com)"
    assert found.exception_chain == ("bulletproof.errors.taxonomy.BadResponseError",)


def test_our_own_error_keeps_its_opinion_whatever_caused_it() -> None:
    def fail() -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ModelLoadError("cannot load model.onnx") from error

    found = classify(caught(fail))
    assert (found.code, found.retryable) == ("model_load_failed", False)
    assert found.exception_chain == ("bulletproof.errors.taxonomy.ModelLoadError", "MemoryError")


def test_our_own_error_takes_over_the_wait_that_its_cause_was_told() -> None:
    error = ServiceUnavailableError("no answer")
    error.__cause__ = StatusError(503, {"Retry-After": "12"})
    assert classify(error).retry_after == 12.0


def test_an_open_circuit_that_an_operator_holds_has_no_wait() -> None:
    error = CircuitOpenError("openai", state="forced_open")
    error.__cause__ = StatusError(503, {"Retry-After": "12"})
    assert (classify(error).code, classify(error).retry_after) == ("circuit_open", None)


def test_a_class_of_the_users_own_inherits_the_meaning_of_ours() -> None:
    class UnreadableError(InvalidModelOutputError):
        pass

    assert classify(UnreadableError("rubbish")).code == "invalid_model_output"


def test_an_error_of_ours_that_was_tampered_with_falls_back_to_its_class() -> None:
    error = RateLimitedError("x")
    error.code = "no such code"
    assert classify(error).code == "rate_limited"
    del error.__dict__["code"]
    assert classify(error).code == "rate_limited"
    for wait in (0, -1, float("nan")):
        assert classify(RateLimitedError("x", retry_after=wait)).retry_after is None


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_gives_what_the_table_says(code: str) -> None:
    spec = CODES[code]
    found = classify(AIError("x", code=code))
    assert (found.error_type, found.code, found.severity) == (spec.error_type, code, spec.severity)
    assert (found.http_status, found.retryable) == (spec.http_status, spec.retryable)
    assert (found.title, found.hint, found.details) == (spec.title, spec.hint, "x")


# Chains


def test_a_wrapper_that_says_nothing_means_what_its_cause_means() -> None:
    error = WrapperError("cannot embed")
    error.__cause__ = StatusError(429, {"Retry-After": "7"})
    found = classify(error)
    assert (found.code, found.retry_after, found.counts_as_failure) == ("rate_limited", 7.0, True)
    assert [name.rsplit(".", 1)[-1] for name in found.exception_chain] == ["WrapperError", "StatusError"]


def test_the_exception_during_whose_handling_it_was_raised_explains_a_wrapper() -> None:
    def fail() -> None:
        try:
            raise ConnectionError("refused")
        except ConnectionError:
            raise WrapperError("cannot embed")  # noqa: B904 - without a cause on purpose

    assert classify(caught(fail)).code == "service_unavailable"


def test_a_suppressed_context_explains_nothing() -> None:
    def fail() -> None:
        try:
            raise ConnectionError("refused")
        except ConnectionError:
            raise WrapperError("something else") from None

    found = classify(caught(fail))
    assert (found.code, len(found.exception_chain)) == ("internal_error", 1)


@pytest.mark.parametrize("bug", [TypeError("x"), KeyError("x"), ValueError("x"), AttributeError("x")])
def test_a_bug_in_an_error_handler_is_a_bug(bug: Exception) -> None:
    bug.__context__ = ConnectionError("refused")
    assert classify(bug).code == "internal_error"


def test_a_value_error_with_a_cause_means_what_the_cause_means() -> None:
    error = ValueError("unusable")
    error.__cause__ = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert classify(error).code == "invalid_encoding"


def test_an_error_after_a_cancellation_is_no_cancellation() -> None:
    error = RuntimeError("clean-up failed")
    error.__context__ = asyncio.CancelledError()
    found = classify(error)
    assert (found.code, found.counts_as_failure) == ("internal_error", True)


def test_a_circle_of_causes_ends() -> None:
    first, second = WrapperError("a"), WrapperError("b")
    first.__cause__, second.__cause__ = second, first
    assert len(classify(first).exception_chain) == 2


def test_a_long_chain_is_cut() -> None:
    error: Exception = WrapperError("innermost")
    for _ in range(1000):
        outer = WrapperError("outer")
        outer.__cause__ = error
        error = outer
    assert len(classify(error).exception_chain) <= 20


# Groups


def test_the_worst_member_of_a_group_decides_and_all_must_be_worth_another_try() -> None:
    busy, broken = StatusError(429, {"Retry-After": "9"}), PredictionError("NaN")
    found = classify(ExceptionGroup("several", [busy, ExceptionGroup("inner", [broken])]))
    assert (found.code, found.retryable, found.retry_after) == ("prediction_failed", False, 9.0)
    assert found.details == "NaN (and 1 more in the group)"
    assert found.exception_chain[0] == "ExceptionGroup"
    assert len(found.exception_chain) == 3


def test_a_group_of_the_same_kind_keeps_it() -> None:
    found = classify(ExceptionGroup("several", [ConnectionError("a"), ConnectionError("b")]))
    assert (found.code, found.retryable) == ("service_unavailable", True)


def test_cancelled_members_of_a_group_say_nothing_unless_there_are_no_others() -> None:
    mixed = BaseExceptionGroup("several", [asyncio.CancelledError(), ConnectionError("a")])
    assert classify(mixed).code == "service_unavailable"
    only = classify(BaseExceptionGroup("several", [asyncio.CancelledError(), KeyboardInterrupt()]))
    assert (only.code, only.counts_as_failure) == ("cancelled", False)


def test_a_group_of_callers_mistakes_is_neutral() -> None:
    found = classify(ExceptionGroup("several", [InvalidFileError("a"), StatusError(404)]))
    assert found.counts_as_failure is False


def test_a_wrapper_around_a_group_means_what_the_group_means() -> None:
    error = WrapperError("gather failed")
    error.__cause__ = ExceptionGroup("several", [TimeoutError("a")])
    assert classify(error).code == "service_timeout"


def test_a_group_that_is_the_cause_of_its_own_member_ends() -> None:
    leaf = WrapperError("leaf")
    group = ExceptionGroup("g", [leaf])
    leaf.__cause__ = group
    assert classify(group).code == classify(leaf).code == "internal_error"


def test_groups_nested_deeply_and_wide_end() -> None:
    error: Exception = ConnectionError("a")
    for _ in range(3000):
        error = ExceptionGroup("g", [error])
    assert isinstance(classify(error), Diagnosis)
    assert classify(ExceptionGroup("g", [ConnectionError(str(n)) for n in range(5000)])).code == "service_unavailable"


# Exceptions that mean harm


class EvilError(BaseException):
    pass


def _explode(*_: Any, **__: Any) -> Any:
    raise EvilError("from within")


def _hostile() -> list[BaseException]:
    names = ["__str__", "__repr__", "__getattr__", "__getattribute__", "__eq__", "__hash__", "__bool__", "__len__"]
    found: list[BaseException] = [type("Hostile", (Exception,), {name: _explode})("x") for name in names]
    for name in ("status_code", "response", "headers", "retry_after", "code", "body", "args", "__cause__",
                 "__context__", "__traceback__", "__suppress_context__", "__dict__", "__class__",
                 "__module__", "message"):  # fmt: skip
        found.append(type("Hostile", (Exception,), {name: property(_explode)})("x"))
    for value in (None, 5, "text", b"bytes", [], {}, object(), float("nan"), 10**400, "9" * 5000):
        error = WrapperError("x")
        for name in ("status_code", "response", "headers", "retry_after", "code", "body", "errno", "details", "type"):
            setattr(error, name, value)
        found.append(error)
    nasty_text = type("Hostile", (Exception,), {"__str__": lambda self: 5})("x")
    long_text = Exception("a" * 10_000_000)
    strange = Exception("\ud800\x00\n\u202e" * 50)
    module_gone = type("Gone", (Exception,), {"__module__": 5})("x")
    weird_meta = type("Meta", (type,), {"__hash__": None, "__eq__": _explode, "__getattribute__": _explode})
    members = enum.Enum("Members", ["A"])
    carried = WrapperError("x")
    carried.headers = members  # type: ignore[attr-defined]
    by_mapping = WrapperError("x")
    by_mapping.headers = type("Map", (dict,), {"get": _explode, "items": _explode})()  # type: ignore[attr-defined]
    by_mapping.body = type("Map", (dict,), {"get": _explode})()  # type: ignore[attr-defined]
    by_mapping.response = type("Map", (dict,), {"get": _explode})()  # type: ignore[attr-defined]
    own = ModelLoadError("x")
    own.where = 5  # type: ignore[assignment]
    empty = AIError.__new__(AIError)
    found += [nasty_text, long_text, strange, module_gone, weird_meta("W", (Exception,), {})("x"), carried]
    found += [by_mapping, own, empty, EvilError(), OSError(*range(2)), UnicodeDecodeError("u", b"", 0, 0, "")]
    return found


@pytest.mark.parametrize("number", range(len(_hostile())))
def test_no_exception_however_hostile_makes_it_raise(number: int) -> None:
    error = _hostile()[number]
    for _ in range(2):
        found = classify(error)
        assert isinstance(found.code, str)
        assert found.code in CODES
        assert found.details
        assert len(found.details) <= 500
        assert found.details.isprintable() or "\n" not in found.details
        found.details.encode("utf-8")


def test_it_holds_near_the_end_of_the_stack() -> None:
    def deep(level: int) -> int:
        try:
            return deep(level + 1)
        except RecursionError as error:
            codes.append(classify(error).code)
            raise

    codes: list[str] = []
    with pytest.raises(RecursionError):
        deep(0)
    assert set(codes) <= set(CODES)


@given(
    st.sampled_from(
        [ValueError, OSError, WrapperError, ConnectionError, RuntimeError, KeyError, MemoryError, ImportError]
    ),
    st.lists(st.one_of(st.text(max_size=300), st.integers(), st.binary(max_size=20), st.none()), max_size=3),
)
def test_any_arguments_give_a_bounded_printable_diagnosis(cls: type[Exception], args: list[Any]) -> None:
    found = classify(cls(*args))
    assert found.details
    assert len(found.details) <= 500
    assert "\n" not in found.details
    found.details.encode("utf-8")


def test_classes_made_at_run_time_do_not_pile_up() -> None:
    from bulletproof.errors import plans

    for number in range(10_000):
        classify(type(f"Made{number}", (Exception,), {})("x"))
    assert len(plans._plans) <= plans._CLASSES


def test_it_leaves_the_exception_as_it_is() -> None:
    error = StatusError(503)
    before = dict(vars(error))
    classify(error)
    assert vars(error) == before
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)
