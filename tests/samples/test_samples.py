"""The sample files hold enough distinct texts, and exactly the flaws that samples/README.md promises."""

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


def reviews() -> list[list[str]]:
    # Only the line in Windows-1252 suffers from this; the tests below look at its bytes.
    text = (SAMPLES / "reviews.csv").read_text(encoding="utf-8", errors="replace")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def feedback() -> list[list[str]]:
    text = (SAMPLES / "feedback_export.csv").read_bytes().decode("utf-16")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=";", strict=True))


def tickets() -> list[dict[str, object]]:
    loaded = json.loads((SAMPLES / "support_tickets.json").read_text(encoding="utf-8"))
    return list(loaded["tickets"])


def app_lines() -> list[str]:
    return (SAMPLES / "app_reviews.jsonl").read_text(encoding="utf-8").splitlines()


def app_reviews() -> list[dict[str, object]]:
    return [json.loads(line) for number, line in enumerate(app_lines(), 1) if number != 32]


def survey() -> list[str]:
    return [part.strip() for part in (SAMPLES / "survey_comments.txt").read_text(encoding="utf-8").split("\n\n")]


def texts() -> list[str]:
    found: list[object] = [row[4] for row in reviews()[1:]]
    found += [row[5] for row in feedback()[1:]]
    found += [ticket.get("message") for ticket in tickets()]
    found += [review["body"] for review in app_reviews()]
    found += survey()
    return [str(text).strip() for text in found if text and str(text).strip()]


def test_there_are_at_least_330_distinct_texts() -> None:
    assert len({text.casefold() for text in texts()}) >= 330


def test_texts_follow_no_template() -> None:
    """No long run of words opens two different texts."""
    openings = [tuple(text.split()[:6]) for text in set(texts()) if len(text.split()) >= 6]
    assert len(openings) == len(set(openings))


def test_texts_are_short_and_long_and_in_several_scripts() -> None:
    lengths = sorted(len(text) for text in texts())
    assert lengths[0] < 25
    assert lengths[-1] > 220
    scripts = {unicodedata.name(char, "?").split()[0] for text in texts() for char in text if char.isalpha()}
    assert {"LATIN", "ARABIC", "DEVANAGARI", "HIRAGANA", "CJK"} <= scripts


def test_reviews_have_all_star_ratings() -> None:
    assert {row[3] for row in reviews()[1:]} >= {"1", "2", "3", "4", "5", ""}


def test_reviews_are_utf8_but_for_one_line_in_windows_1252() -> None:
    bad = []
    for line in (SAMPLES / "reviews.csv").read_bytes().split(b"\n"):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            bad.append(line.decode("cp1252"))
    assert len(bad) == 1
    assert bad[0].startswith("1112,")
    assert "café d’à côté" in bad[0]


def test_reviews_have_one_row_with_too_many_columns() -> None:
    rows = reviews()
    assert [row[0] for row in rows if len(row) != len(rows[0])] == ["1111"]


@pytest.mark.parametrize(
    ("number", "column"), [("1105", 3), ("1106", 1), ("1107", 2), ("1108", 4), ("1109", 4), ("1110", 4)]
)
def test_reviews_have_missing_cells(number: str, column: int) -> None:
    row = next(row for row in reviews() if row[0] == number)
    assert row[column].strip() == ""


def test_reviews_have_line_breaks_and_quotes_inside_cells() -> None:
    by_id = {row[0]: row[4] for row in reviews()}
    assert "\n" in by_id["1102"]
    assert '"cable tray"' in by_id["1102"]
    assert "\n\n" in by_id["1103"]
    assert '"you\'ll use it twice"' in by_id["1104"]


def test_reviews_have_duplicates() -> None:
    rows = reviews()
    assert sum(row == next(row for row in rows if row[0] == "1058") for row in rows) == 2
    by_id = {row[0]: row[4] for row in rows}
    assert by_id["1113"] == by_id["1011"]
    assert by_id["1114"] == by_id["1012"]


def test_feedback_is_utf16_with_semicolons() -> None:
    data = (SAMPLES / "feedback_export.csv").read_bytes()
    assert data.startswith((b"\xff\xfe", b"\xfe\xff"))
    rows = feedback()
    assert rows[0] == ["Bestellnr", "Datum", "Artikel", "Sterne", "Sprache", "Kommentar"]
    assert {len(row) for row in rows} == {6}
    assert {row[4] for row in rows[1:]} == {"de", "fr"}
    assert [row[0] for row in rows if row[5] == ""] == ["F-2221"]
    assert sum(row[0] == "F-2210" for row in rows) == 2


def test_tickets_have_an_empty_a_null_and_a_missing_text() -> None:
    by_id = {ticket["ticket"]: ticket for ticket in tickets()}
    assert by_id["T-7090"]["message"] == ""
    assert by_id["T-7091"]["message"] is None
    assert "message" not in by_id["T-7092"]
    assert by_id["T-7093"]["message"] == by_id["T-7003"]["message"]
    assert "\x07" in str(by_id["T-7094"]["message"])
    assert "\u200b" in str(by_id["T-7094"]["message"])


def test_app_reviews_have_one_broken_line() -> None:
    broken = []
    for number, line in enumerate(app_lines(), 1):
        try:
            json.loads(line)
        except json.JSONDecodeError:
            broken.append(number)
    assert broken == [32]
    assert [review["review_id"] for review in app_reviews() if not review["body"]] == ["a-061"]


def test_survey_has_about_forty_paragraphs_the_last_twice() -> None:
    paragraphs = survey()
    assert 40 <= len(paragraphs) <= 50
    assert paragraphs[-1] == paragraphs[-2]


def test_broken_json_is_cut_off_in_a_string() -> None:
    with pytest.raises(json.JSONDecodeError, match="Unterminated string") as caught:
        json.loads((SAMPLES / "broken.json").read_text(encoding="utf-8"))
    assert caught.value.lineno == 4


def test_no_address_phone_number_or_link_is_in_the_samples() -> None:
    """Nothing that could belong to a person."""
    joined = "\n".join(texts())
    assert "@" not in joined
    assert "http" not in joined
    assert "www." not in joined
