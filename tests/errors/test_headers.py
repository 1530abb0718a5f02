"""What a service says about trying again."""

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import retry_after_of, should_retry_of
from bulletproof.errors.headers import parse_retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def with_headers(headers: Any) -> Exception:
    error = Exception("x")
    error.headers = headers  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "value",
    ["0", "-10", "nan", "inf", "-inf", "", " ", "1" + "0" * 34, "1e5", "1_000", "١٢", "5, 10", "soon", "0.0",
     "+5", "0x10",
     "Wed, 99 Foo 2026 99:99:99 GMT", "Sun, 01 Mar 2026 11:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Sun",
     "a" * 10**6,
     "9" * 5000, None, True, False, float("nan"), float("inf"), 10**400, -1, 0, [], {}, b"\xff", "31622401"],
)  # fmt: skip
def test_e8_nonsense_and_the_past_say_nothing(value: Any) -> None:
    assert parse_retry_after(value, now=lambda: NOW) is None
    assert retry_after_of(with_headers({"Retry-After": value}), now=lambda: NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0), ("120", 120.0), (" 7 ", 7.0), ("1.5", 1.5), ("0.25", 0.25), ("3600", 3600.0), (12, 12.0),
        (0.5, 0.5),
        (b"30", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60.0),
        ("Sun Mar  1 12:00:05 2026", 5.0),
    ],
)  # fmt: skip
def test_seconds_and_the_three_forms_of_http_dates_are_read(value: Any, seconds: float) -> None:
    assert parse_retry_after(value, now=lambda: NOW) == seconds


@given(st.integers(min_value=1, max_value=86_400), st.integers(min_value=-14, max_value=14))
def test_a_date_means_the_same_in_every_time_zone(ahead: int, hours: int) -> None:
    moment = (NOW + timedelta(seconds=ahead)).astimezone(timezone(timedelta(hours=hours)))
    assert parse_retry_after(format_datetime(moment), now=lambda: NOW) == ahead


@given(
    st.one_of(st.text(), st.binary(), st.floats(), st.integers(), st.from_regex(r"[A-Z][a-z]{2}, [\x20-\x7e]{8,40}"))
)
def test_no_value_whatever_makes_it_raise_or_return_nonsense(value: Any) -> None:
    seconds = parse_retry_after(value, now=lambda: NOW)
    assert seconds is None or (math.isfinite(seconds) and seconds > 0)


def test_milliseconds_go_before_seconds_unless_they_are_nonsense() -> None:
    assert retry_after_of(with_headers({"retry-after-ms": "1500", "retry-after": "9"})) == 1.5
    for nonsense in ("soon", "0", "-1", "nan", "Sun, 01 Mar 2026 12:00:30 GMT"):
        headers = {"retry-after-ms": nonsense, "retry-after": "9"}
        assert retry_after_of(with_headers(headers), now=lambda: NOW) == 9.0


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "7"}, {"retry-after": "7"}, {"RETRY-AFTER": "7"}, httpx.Headers({"Retry-After": "7"}),
        httpx2.Headers({"Retry-After": "7"}),
    ],
)  # fmt: skip
def test_the_name_of_the_header_may_be_in_any_case(headers: Any) -> None:
    assert retry_after_of(with_headers(headers)) == 7.0


def test_headers_are_found_where_the_sdks_keep_them() -> None:
    headers = {"retry-after": "7", "x-should-retry": "true"}
    places = [
        {"response": SimpleNamespace(headers=headers)},
        {"raw_response": SimpleNamespace(headers=headers)},
        {"response": {"ResponseMetadata": {"HTTPHeaders": headers}}},
        {"headers": headers},
        {"retry_after": 7, "headers": {"x-should-retry": "True"}},
    ]
    for place in places:
        error = Exception("x")
        error.__dict__.update(place)
        assert (retry_after_of(error), should_retry_of(error)) == (7.0, True)


@pytest.mark.parametrize(
    ("value", "told"), [("true", True), ("false", False), (" FALSE ", False), ("maybe", None), ("", None)]
)
def test_should_retry_is_yes_no_or_nothing(value: str, told: bool | None) -> None:
    assert should_retry_of(with_headers({"x-should-retry": value})) is told


def test_the_causes_are_asked_when_the_error_itself_says_nothing() -> None:
    outer = Exception("outer")
    outer.__cause__ = with_headers({"Retry-After": "4"})
    assert retry_after_of(outer) == 4.0
    assert retry_after_of(Exception("alone")) is None


def test_causes_in_a_circle_end() -> None:
    first, second = Exception("a"), Exception("b")
    first.__cause__, second.__cause__ = second, first
    assert retry_after_of(first) is None
