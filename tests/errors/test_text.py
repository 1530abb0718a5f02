"""What is shown of foreign exceptions holds no secrets, no data, and is bounded."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import classify
from bulletproof.errors.text import LIMIT, one_line, redact, without_values


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://bob:hunter2@example.com/x", "hunter2"),
        ("postgresql+asyncpg://bob:p@ss:w0rd@db:5432/app refused", "w0rd"),
        ("redis://:s3cret@cache:6379/0", "s3cret"),
        ("https://ghp_token1234567890abcd@github.com/a/b", "ghp_token1234567890abcd"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("{'Authorization': 'Bearer tok123456'}", "tok123456"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("bearer xyz987 was refused", "xyz987"),
        ("Incorrect API key provided: sk-abcd1234****wxyz. You can find", "wxyz"),
        ("api_key=AbCdEf123", "AbCdEf123"),
        ('{"api_key": "AbCdEf123"}', "AbCdEf123"),
        ("OPENAI_API_KEY=sk-proj-abcdefghij", "abcdefghij"),
        ("X-API-Key: 12345abcde", "12345abcde"),
        ("password=hunter2 rejected", "hunter2"),
        ("pwd: hunter2", "hunter2"),
        ("https://x.example/?token=deadbeef&a=1", "deadbeef"),
        ("https://x.example/?access_token=deadbeef", "deadbeef"),
        ("https://acct.blob/?sv=1&sig=ab%2Bcd", "ab%2Bcd"),
        ("aws_secret_access_key = wJalrXUtnFEMI", "wJalrXUtnFEMI"),
        ("AKIAIOSFODNN7EXAMPLE is not authorized", "AKIAIOSFODNN7EXAMPLE"),
        ("key AIzaSyA1234567890abcdefghij is invalid", "AIzaSyA1234567890abcdefghij"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc expired", "eyJzdWIiOiIxIn0"),
        ("hf_abcdefghijklmnopqrst is invalid", "hf_abcdefghijklmnopqrst"),
        ("client_secret: 'shhh-1234'", "shhh-1234"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "***" in redact(text)
    assert secret not in classify(RuntimeError(text)).details


@pytest.mark.parametrize(
    "text",
    [
        "Connection refused",
        "unexpected token: line 1 column 2",
        "the keyboard = broken",
        "https://example.com/a/b?c=d#e",
        "mail bob@example.com",
        "Cannot connect to host example.com:443 ssl:default",
        'password authentication failed for user "bob"',
        "This model's maximum context length is 8192 tokens",
        "the task-list and the risk-averse disk-image are fine",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_only_the_first_line_is_shown_and_not_too_much_of_it() -> None:
    assert one_line("first\nDETAIL: second") == "first"
    assert len(one_line("a" * 100_000)) == LIMIT
    assert one_line("\x00bad\x1b[31m\u202etext") == "bad [31m text"
    assert one_line("\ud800").encode() == b"?"


def test_values_are_left_out_of_database_messages() -> None:
    assert without_values("Key (email)=(a@b.example) exists") == "Key (...)=(...) exists"
    assert without_values("invalid input for 'a''b' and \"c\"") == "invalid input for '...''...' and \"...\""


@given(st.text(max_size=3000))
def test_redaction_is_total_and_what_is_shown_is_one_bounded_line(text: str) -> None:
    redact(text)
    line = one_line(text)
    assert len(line) <= LIMIT
    assert "\n" not in line
    line.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    ["a" * 50_000, "://" * 20_000, "password" * 5_000, "https://" + "a" * 50_000, "=" * 50_000, "sk-" * 20_000,
     "eyJ" * 20_000, "(" * 50_000, "'" * 49_999, "api key " * 5_000, " " * 50_000, "a:" * 25_000, "bearer " * 8_000],
)  # fmt: skip
def test_hostile_texts_take_no_long_time(text: str) -> None:
    started = time.process_time()
    redact(text)
    without_values(text)
    one_line(text)
    classify(RuntimeError(text))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("pyarrow.lib.ArrowInvalid", "CSV parse error: Expected 2 columns, got 3: secret,b,c",
         "CSV parse error: Expected 2 columns"),
        ("pyarrow.lib.ArrowInvalid", "CSV conversion error to int64: invalid value 'secret'",
         "CSV conversion error to int64: invalid value '...'"),
        ("polars.exceptions.ComputeError", "could not parse `secret` as dtype `i64`",
         "could not parse `...` as dtype `...`"),
        ("ijson.backends.python.UnexpectedSymbol", "Unexpected symbol 'secret' at 12", "Unexpected symbol '...' at 12"),
        ("pandas.errors.DatabaseError", "Execution failed on sql 'select secret': no such table", "a query failed"),
        ("pymongo.errors.DuplicateKeyError", 'E11000 duplicate key error dup key: { email: "secret" }',
         "E11000 duplicate key error dup key: {...}"),
        ("asyncpg.exceptions.UniqueViolationError", 'duplicate key "k"\nDETAIL:  Key (email)=(secret) already exists.',
         'duplicate key "..."'),
        ("ValueError", "Unable to parse string \"secret\" at position 0", "a value is not a number"),
        ("ValueError", "time data 'secret' does not match format '%Y'",
         "a value is not a date or time of the expected form"),
        ("ValueError", "Invalid isoformat string: 'secret'", "a value is not a date or time of the expected form"),
        ("pydantic_core.ValidationError", "1 validation error for M\na\n  wrong, input_value='secret'",
         "1 validation error for M"),
    ],
)  # fmt: skip
def test_the_data_that_libraries_quote_is_not_shown(
    name: str, text: str, shown: str, stand_in: Callable[..., BaseException]
) -> None:
    assert classify(stand_in(name, text)).details == shown
