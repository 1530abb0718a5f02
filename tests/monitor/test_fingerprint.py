"""Which errors are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.fingerprint import TEMPLATE, template_of

SAME = [
    ("timed out after 30 s", "timed out after 2.5 s"),
    ("user 550e8400-e29b-41d4-a716-446655440000 unknown", "user 550E8400E29B41D4A716446655440001 unknown"),
    ("request req_9f8b1c2d3e failed", "request req_0a1b2c3d4e failed"),
    ("connection to 10.0.0.7:5432 refused", "connection to 192.168.17.200:5433 refused"),
    ("connection to [::1]:80 refused", "connection to [fe80::2]:8080 refused"),
    ("<Model object at 0x7f3a2b4c5d6e> is gone", "<Model object at 0x10> is gone"),
    ("failed at 2025-03-01T12:00:00Z", "failed at 2024-12-31 23:59:59.123+02:00"),
    ("can't open '/data/a.csv'", "can't open '/other/b c.csv'"),
    ('field "age" is missing', 'field "name" is missing'),
    ("/srv/models/a.pkl not found", "/srv/other/deep/b.onnx not found"),
    ("C:\\data\\a.csv not found", "D:\\b.csv not found"),
    ("GET https://a.example/x?id=1 failed", "GET http://b.example:8080/ failed"),
    ("row 1: bad", "row   2:   bad"),
    ("-5 is below 0", "-17.25 is below 0"),
]
DIFFERENT = [
    ("timed out", "timed in"),
    ("model 'a' not found", "table 'a' not found"),
    ("", "x"),
    ("out of memory on GPU 0", "out of memory on CPU 0"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_varies_does_not_matter(one: str, other: str) -> None:
    assert template_of(one) == template_of(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_does_not_vary_matters(one: str, other: str) -> None:
    assert template_of(one) != template_of(other)


def test_type_service_and_code_are_part_of_it(monitor: AIErrorMonitor) -> None:
    monitor.record_error("model_error", "ml", "high", "m")
    monitor.record_error("model_error", "ml", "low", "m")
    monitor.record_error("resource_error", "ml", "high", "m")
    monitor.record_error("model_error", "api", "high", "m")
    monitor.record_error("model_error", "ml", "high", "m", code="x")
    counts = sorted(row["count"] for row in monitor.get_error_summary()["top_errors"])
    assert counts == [1, 1, 1, 2]


def test_what_follows_a_long_beginning_is_cut_off_first() -> None:
    assert template_of("a b " * 10_000 + "x") == template_of("a b " * 10_000 + "y")
    assert len(template_of("a b " * 10_000)) <= TEMPLATE


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_has_a_short_template_without_digits(text: str) -> None:
    template = template_of(text)
    assert len(template) <= TEMPLATE
    assert not any(char in "0123456789" for char in template)
