"""Cleaning of texts."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.ingest import Chunk, Cleaner, IngestLimits, Record, Rejection, clean_text

ANY = st.text(
    st.characters()
    | st.sampled_from("\u200b\u200c\u200d\ufe0f\u0301\u0327\u094d\u0915\u06cc😀👩🏴\U000e0067\U000e007f ")
)


@given(ANY)
def test_cleaning_is_stable_normal_and_free_of_control_characters(text):
    clean = clean_text(text)
    assert clean_text(clean) == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in clean)
    assert clean == clean.strip()
    assert "  " not in clean


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u115f\u1160\u3164\uffa0"), max_size=50)
)
def test_letters_digits_and_signs_stay(text):
    assert clean_text(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\t b\r\n\x0bc\u00a0d\u3000e\u2028f\x85g ", "a b c d e f g"),
        ("he\x00l\x07lo\x7f\x9b", "hello"),
        ("zero\u200bwidth\u2060\ufeff", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u202eevil\u202c \u2066x\u2069\u200f", "evil x"),
        ("a\u200db\u200cc", "abc"),
        ("tag\U000e0041\U000e0042 hidden\U000e0131", "tag hidden"),
        ("blank\u3164\u115f", "blank"),
        ("cafe\u0301", "café"),
        ("A\u030a", "Å"),
        ("x\ufe0f", "x"),
        ("\u200b \u2060", ""),
        ("lone \ud800 half", "lone half"),
    ],
)
def test_what_nobody_sees_goes(raw, clean):
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم",  # Persian: without the joiner another word
        "क्‍ष और क्‌ष",  # Hindi: the joiners choose between two forms
        "ന്‍",  # Malayalam: a joiner at the end of a word
        "ශ්‍රී",  # Sinhala
        "👨‍👩‍👧‍👦",
        "👩🏽‍🚒",
        "🏳️‍🌈",
        "❤️",
        "#️⃣",
        "🇩🇪",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "👍🏽",
    ],
)
def test_what_changes_a_word_or_an_emoji_stays(text):
    assert clean_text(text) == unicodedata.normalize("NFC", text)


def test_a_tower_of_marks_is_lowered_in_linear_time():
    begun = time.perf_counter()
    clean = clean_text("Z" + "\u0301\u0327" * 60_000)
    assert time.perf_counter() - begun < 1
    assert len(clean) <= 31


def test_empty_and_long_texts_become_rejections_and_all_is_counted():
    cleaner = Cleaner(IngestLimits(max_text_chars=10))
    chunk = Chunk(
        [Record(1, "good"), Record(3, " \u200b"), Record(4, "x" * 11), Record(5, "good "), Record(6, " " * 50 + "bad")],
        [Rejection(2, "invalid_csv", "line 3: ...")],
    )
    clean = cleaner.clean(chunk)
    assert clean.records == [(1, "good"), (5, "good"), (6, "bad")]
    assert [(row, code) for row, code, _ in clean.rejections] == [
        (2, "invalid_csv"),
        (3, "empty_text"),
        (4, "text_too_long"),
    ]
    assert "11 characters; at most 10" in clean.rejections[2].details
    counts = cleaner.counts
    assert (counts.texts, counts.changed, counts.empty, counts.too_long, counts.duplicates) == (5, 2, 1, 1, 1)


def test_duplicates_are_counted_across_chunks():
    cleaner = Cleaner(IngestLimits())
    for _ in range(3):
        cleaner.clean(Chunk([Record(row, f"text {row % 10}") for row in range(100)], []))
    assert cleaner.counts.duplicates == 290


def test_the_memory_of_duplicates_is_bounded(monkeypatch):
    monkeypatch.setattr("bulletproof.ingest.cleaning._REMEMBERED", 100)
    cleaner = Cleaner(IngestLimits())
    cleaner.clean(Chunk([Record(row, f"text {row}") for row in range(1000)], []))
    assert len(cleaner._seen) == 100
