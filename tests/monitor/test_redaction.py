"""No secret is remembered, and never too much."""

import gc
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulletproof.errors import ErrorType, Severity
from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.redaction import MASK, Scrubber, clean, is_sensitive, plain

# In pieces, so that no scanner takes them for real.
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SECRETS = {
    "an e-mail address": ("alice.smith+x@mail.example.org", "no account for {}"),
    "a JSON web token": (JWT, "token {} expired"),
    "an OpenAI key": ("sk-" + "proj-abcDEF123456ghiJKL789", "Incorrect API key provided: {}."),
    "an AWS key": ("AKIA" + "IOSFODNN7EXAMPLE", "key {} is not valid"),
    "a GitHub token": ("ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "bad credentials {}"),
    "a Google key": ("AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "key={}"),
    "a Slack token": ("xoxb-" + "123456789012-abcdefghijkl", "invalid_auth {}"),
    "a bearer token": ("9f8e7d6c5b4a39281706", "header was Authorization: Bearer {}"),
    "a URL credential": ("hunter2!pass", "cannot connect to postgresql://app:{}@db.internal:5432/main"),
    "a password in a DSN": ("correct-horse", "host=db password={} dbname=main"),
    "a card number": ("4111 1111 1111 1111", "card {} was declined"),
    "a card number without spaces": ("5500005555555559", "card {} was declined"),
    "a token in a query": ("abcdef123456", "GET https://example.com/x?token={}&page=2 failed"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_text_is_masked(name: str) -> None:
    secret, text = SECRETS[name]
    shown = clean(text.format(secret))
    assert secret not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "order 1234567890123456 is unknown",
        "at 1735689600000 ms",
        "max_tokens=4096 exceeds the limit",
        "the key 'y' is missing",
        "Rate limit reached: 30000 tokens per min",
        "a@b",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "db_password", "passwd", "pwd", "secret", "client_secret", "token", "access_token",
        "refresh-token", "authorization", "Authorization", "auth", "api_key", "apikey", "X-API-Key", "OPENAI_API_KEY",
        "private_key", "cookie", "Set-Cookie", "session_id", "credentials", "credit_card", "card_number", "cvv", "ssn",
        "csrf_token", "signature", "passphrase", "id_token", "bearer",
    ],
)  # fmt: skip
def test_a_key_that_names_a_secret_is_known(key: str) -> None:
    assert is_sensitive(key)


@pytest.mark.parametrize(
    "key", ["model_path", "tokens", "prompt_tokens", "max_tokens", "token_count", "tokenizer_name", "author", "row",
            "keyword", "passed", "compass", "monkey", "stage", "input_data"],
)  # fmt: skip
def test_a_key_that_names_no_secret_is_left(key: str) -> None:
    assert not is_sensitive(key)


def everything_held_by(root: object) -> set[str]:
    seen: set[int] = set()
    found: set[str] = set()
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or hasattr(thing, "__globals__"):
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            found.add(thing)
        todo += gc.get_referents(thing)
    return found


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_stays_in_memory_once_recorded(monitor: AIErrorMonitor, name: str) -> None:
    secret, text = SECRETS[name]
    for _ in range(3):
        monitor.record_error(
            "model_error", "ml", "high", text.format(secret), note=text.format(secret), password=secret
        )
        monitor.record_error("model_error", f"svc {text.format(secret)}", "high", "m", code=text.format(secret))
        monitor.record_error("model_error", "ml", "high", "m", nested={"list": [{"api_key": secret}]})
    assert not [held for held in everything_held_by(monitor) if secret in held]
    monitor.get_error_summary()
    assert not [held for held in everything_held_by(monitor) if secret in held]
    assert len(monitor.recent()) == 9


class Loud:
    """Tells when it is looked at."""

    asked = 0

    def __repr__(self) -> str:
        Loud.asked += 1
        return "secret"

    __str__ = __format__ = __repr__  # type: ignore[assignment]


def test_the_repr_of_an_unknown_object_is_never_asked_for(monitor: AIErrorMonitor) -> None:
    Loud.asked = 0
    loud = Loud()
    monitor.record_error(
        "model_error", "ml", "high", "m", one=loud, many=[loud, {"deep": loud}], keyed={loud: 1}, code=[loud]
    )
    monitor.record_error("model_error", "ml", "high", [loud])  # type: ignore[arg-type]
    monitor.get_error_summary()
    assert Loud.asked == 0
    assert monitor.recent()[1].context["one"] == f"<{__name__}.Loud>"


def test_known_values_are_shown_and_unknown_ones_named() -> None:
    class Colour(Enum):
        RED = "red"

    fit, _ = Scrubber().fully(
        {
            "int": 3, "float": 0.5, "none": None, "bool": True, "text": "x", "bytes": b"abc", "path": PosixPath("/a/b"),
            "uuid": UUID(int=1), "decimal": Decimal("1.5"), "when": datetime(2025, 1, 1, tzinfo=UTC), "set": {1},
            "tuple": (1, [2]), "nan": float("nan"), "huge": 10**50, "card": 4111111111111111, "colour": Colour.RED,
            "kind": ErrorType.MODEL,
        }
    )  # fmt: skip
    assert fit["path"] == "/a/b"
    assert fit["bytes"] == "<3 bytes>"
    assert fit["tuple"] == [1, [2]]
    assert fit["nan"] == "nan"
    assert fit["huge"] == "<int of 167 bits>"
    assert fit["card"] == MASK
    assert fit["kind"] == "model_error"
    assert fit["colour"].endswith("Colour>")
    json.dumps(fit, allow_nan=False)


def test_context_is_bounded_in_depth_entries_and_size() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(100):
        inner["in"] = {}
        inner = inner["in"]
    deep["self"] = deep
    wide = {f"k{number}": ["x" * 10_000] * 1000 for number in range(1000)}
    fit = Scrubber().fully({"deep": deep, "wide": wide, "long": "y" * 10**6})[0]
    written = json.dumps(fit)
    assert len(written) < 10_000
    assert written.count("{") <= 8
    assert "more" in written


NAMES = ("error_type", "service", "severity", "message")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
    max_leaves=12,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key not in NAMES), json_values))
def test_whatever_comes_leaves_as_bounded_strict_json(context: dict[str, Any]) -> None:
    monitor = AIErrorMonitor()
    monitor.record_error("model_error", "ml", "high", "m", **context)
    (event,) = monitor.recent()
    assert len(json.dumps(event.as_dict(), allow_nan=False, ensure_ascii=False).encode()) < 60_000


@given(st.text(max_size=3000))
def test_any_text_becomes_one_that_can_be_written(text: str) -> None:
    shown = clean(text)
    shown.encode("utf-8")
    assert len(shown) <= 1000
    assert not any(ord(char) < 32 and char not in "\t\n" for char in shown)


@pytest.mark.parametrize("shift", range(0, 400, 7))
def test_a_secret_is_masked_wherever_the_text_is_cut(shift: int) -> None:
    url = "postgresql://app:hunter2hunter2hunter2@db.internal/main"
    for limit in (300, 1000):
        text = f"{'alice@example.com ' * 20}{'x' * (limit - 200 + shift)} {url} {'y' * 3000}"
        assert "hunter2" not in clean(text, limit)


def test_lone_surrogates_and_nul_bytes_are_replaced() -> None:
    assert clean("a\ud800b\x00c\x1b[31md") == "a?b c [31md"


def hostile_things() -> list[Any]:
    """Made in here, so that pytest does not look at the classes."""

    class HostileError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    class Liar(str):
        def __hash__(self) -> int:
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        def __str__(self) -> str:
            raise RuntimeError

        def __len__(self) -> int:
            raise RuntimeError

        strip = lower = encode = translate = None  # type: ignore[assignment]

    class Pretender:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise RuntimeError

    class Meta(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise RuntimeError

        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise RuntimeError

    class Nameless(metaclass=Meta):
        pass

    class Trap(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError

        def __iter__(self) -> Any:
            raise RuntimeError

        def __len__(self) -> int:
            raise RuntimeError

    return [
        HostileError(), Liar("x"), Pretender(), Nameless(), Trap(a=1), [], {}, None, 3, b"x", float("nan"), object(),
        10**5000, Loud, type, "\ud800", "x" * 10**6, Severity.HIGH, ErrorType.MODEL, Exception(HostileError()),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(20))
def test_nothing_makes_record_error_raise_or_lose_the_error(monitor: AIErrorMonitor, number: int) -> None:
    thing = hostile_things()[number]
    monitor.record_error(thing, "ml", "high", "m")
    monitor.record_error("model_error", thing, "high", "m")
    monitor.record_error("model_error", "ml", thing, "m")
    monitor.record_error("model_error", "ml", "high", thing)
    monitor.record_error("model_error", "ml", "high", "m", code=thing)
    monitor.record_error("model_error", "ml", "high", "m", thing=thing, inside=[thing, {"a": thing}])
    monitor.record_error(thing, thing, thing, thing, code=thing, thing=thing)
    summary = monitor.get_error_summary()
    assert summary["total_errors"] == 7
    assert summary["unrecorded_errors"] == 0
    json.dumps(summary, allow_nan=False)
    json.dumps([event.as_dict() for event in monitor.recent()], allow_nan=False)


def test_an_error_recorded_at_the_end_of_the_stack_does_not_raise(monitor: AIErrorMonitor) -> None:
    def deeper(depth: int) -> None:
        try:
            deeper(depth + 1)
        except RecursionError:
            monitor.record_error("resource_error", "ml", "high", f"too deep at {depth}")
            raise

    with pytest.raises(RecursionError):
        deeper(0)
    summary = monitor.get_error_summary()
    assert summary["total_errors"] + summary["unrecorded_errors"] > 0


def test_plain_shows_an_exception_by_its_text_and_an_enum_by_its_value() -> None:
    class Colour(Enum):
        RED = "red"

    assert plain(ValueError("bad")) == "bad"
    assert plain(Colour.RED) == "red"
    assert plain(object()) == "<object>"
