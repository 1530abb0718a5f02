"""JSON bodies: read as they are, or refused with what is wrong; nothing is quietly dropped."""

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from bulletproof.errors import InputValidationError
from bulletproof.service.json_body import body_of, json_object

FIELDS = ("rows", "name")
TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def request_of(*messages: dict[str, Any]) -> Request:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, receive)


def read(body: bytes) -> dict[str, Any]:
    return asyncio.run(json_object(request_of({"type": "http.request", "body": body}), FIELDS))


@given(VALUES, VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_an_object_is_read_as_it_is(rows: Any, name: Any, escaped: bool, indent: int | None) -> None:
    sent = {"rows": rows, "name": name}
    assert read(json.dumps(sent, ensure_ascii=escaped, indent=indent).encode()) == sent


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_is_sent_it_is_read_or_refused(body: bytes) -> None:
    try:
        found = read(body)
    except InputValidationError:
        return
    assert found.keys() <= set(FIELDS)


@given(st.lists(st.sampled_from(["rows", "name", "r\\u006fws", "nam\\u0065"]), min_size=2, max_size=4), st.booleans())
def test_a_field_that_comes_twice_is_never_dropped(names: list[str], within: bool) -> None:
    pairs = ", ".join(f'"{name}": 1' for name in names)
    body = f'{{"rows": [{{{pairs}}}]}}' if within else f"{{{pairs}}}"
    plain = [json.loads(f'"{name}"') for name in names]
    if len(set(plain)) == len(plain):
        read(body.encode())
        return
    with pytest.raises(InputValidationError, match="twice"):
        read(body.encode())


def test_nan_is_left_to_whoever_knows_what_the_number_was_meant_for() -> None:
    assert math.isnan(read(b'{"rows": NaN}')["rows"])
    assert read(b'{"rows": -1e999}') == {"rows": -math.inf}


def test_a_large_body_that_needs_care_is_read_too() -> None:
    many = [0.5] * 50_000
    assert read(json.dumps({"rows": many, "name": "\u00e9"}).encode()) == {"rows": many, "name": "é"}


async def test_a_body_comes_in_pieces_or_not_at_all() -> None:
    pieces = [
        {"type": "http.request", "body": b'{"na', "more_body": True},
        {"type": "http.request", "body": b'me": 1}'},
    ]
    assert await body_of(request_of(*pieces)) == b'{"name": 1}'
    with pytest.raises(ClientDisconnect):
        await body_of(request_of(pieces[0], {"type": "http.disconnect"}))
