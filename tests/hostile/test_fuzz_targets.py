"""What is fuzzed for hours by ``make fuzz``, for seconds: the same targets hold on the corpus and what comes of it."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, outcome

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
SEEDS = {name: [file.read_bytes() for file in sorted((CORPUS / name).glob("*"))] for name in TARGETS}
PIECES = [
    b'"', b"'", b",", b";", b"\t", b"\n", b"\r\n", b"\0", b"\\", b"{", b"}", b"[", b"]", b"<", b">", b"&#x0;", b"%00",
    b"%", b"\xff",
    b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"NaN", b"1e999", b"9" * 30, b"--x", b"/../",
    b"xn--", b"null", b"true", b"[" * 80, b"*", b"$", b" obj", b"stream",
]  # fmt: skip


@st.composite
def damaged(draw: Any, name: str) -> bytes:
    """A seed of the target with some bytes replaced, or any bytes behind its first ones."""
    seed = draw(st.sampled_from(SEEDS[name]))
    if draw(st.integers(0, 4)) == 0:
        return bytes(seed[: draw(st.integers(0, 8))] + draw(st.binary(max_size=100)))
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_is_taken_or_refused_by_type_and_in_time(name: str) -> None:
    assert SEEDS[name], "each target has a corpus"
    for data in SEEDS[name]:
        outcome(name, data)
    begun = time.process_time()
    for data in SEEDS[name]:
        outcome(name, data)
    assert time.process_time() - begun < TARGETS[name].seconds


# A file of a form without an end is closed when it is forgotten, not before.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function SpooledTemporaryFile")
@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_inputs_are_taken_or_refused_by_type(name: str, data: st.DataObject) -> None:
    outcome(name, data.draw(damaged(name)))


def test_the_corpus_is_small() -> None:
    assert sum(len(data) for seeds in SEEDS.values() for data in seeds) < 64 * 1024
