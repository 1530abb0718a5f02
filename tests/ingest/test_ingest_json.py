"""JSON and JSON lines: shapes, strictness, places, agreement with the standard library."""

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import AIError, InvalidFileError
from bulletproof.ingest import IngestLimits
from bulletproof.ingest.json_stream import JsonCursor, elements
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.strict_json import Flaw, StrictDecoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20) + 1, 10**20 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


def _stream(data: bytes, block: int, **limits: int) -> list[object]:
    cursor = JsonCursor(io.BytesIO(data), IngestLimits(**limits), Notes(), block=block)
    assert cursor.peek() == "["
    values = list(elements(cursor, 1))
    assert cursor.peek() == ""
    return values


@given(st.lists(VALUES, max_size=6), st.integers(1, 50), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_valid_array_is_read_as_the_standard_library_reads_it_wherever_reads_end(values, block, ascii_only, indent):
    data = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
    assert _stream(data, block) == json.loads(data)


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
def test_a_damaged_document_is_refused_exactly_when_the_standard_library_refuses_it(values, data):
    text = json.dumps(values)
    at = data.draw(st.integers(0, len(text) - 1))
    inserted = data.draw(
        st.sampled_from(["", ",", "]", "}", '"', "x", "\\", "1", ":", "\n", "-", ".", "e", " ", "\x01"])
    )
    damaged = text[:at] + inserted + text[at + data.draw(st.integers(0, 2)) :]
    try:
        expected = json.loads(damaged)
    except ValueError:
        expected = None
    if not isinstance(expected, list) or _beyond_our_limits(damaged, expected):
        with pytest.raises((AIError, AssertionError)):
            _stream(damaged.encode(), data.draw(st.integers(1, 50)))
    else:
        assert _stream(damaged.encode(), data.draw(st.integers(1, 50))) == expected


def _beyond_our_limits(text: str, value: object) -> bool:
    try:
        StrictDecoder(IngestLimits()).decode(text, len(text) - len(text.lstrip()))
    except Flaw as flaw:
        return any(word in flaw.message for word in ("surrogate", "digits", "too large", "NaN", "Infinity"))
    return False


@given(
    st.lists(st.fixed_dictionaries({"text": TEXT, "n": VALUES}), min_size=1), st.lists(st.integers(1, 9), min_size=1)
)
def test_texts_come_out_as_they_went_in_however_the_bytes_arrive(read, rows, sizes):
    data = json.dumps(rows, ensure_ascii=False)
    assert read(data, "a.json", sizes=sizes).texts == [row["text"] for row in rows]
    lines = "\n".join(json.dumps(row) for row in rows)
    assert read(lines, "a.jsonl", sizes=sizes, max_rejected_share=1).texts == [row["text"] for row in rows]


@pytest.mark.parametrize(
    ("document", "texts", "field"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"], "text"),
        ('["a", "b"]', ["a", "b"], None),
        ('{"data": [{"text": "a"}]}', ["a"], "text"),
        ('{"count": 2, "items": ["a", "b"], "next": null}', ["a", "b"], None),
        ('{"tags": ["x", "y"], "rows": [{"text": "a"}]}', ["a"], "text"),
        ('{"meta": {"rows": [1]}, "empty": [], "rows": [{"text": "a"}]}', ["a"], "text"),
        ('{"X": ["a", "b"], "y": [1, 0]}', ["a", "b"], None),
        ('{"y": ["pos", "neg"], "X": ["a", "b"]}', ["a", "b"], None),
        ('{"X": [{"text": "a"}], "y": [1]}', ["a"], "text"),
        ('{"text": "a", "stars": 5}', ["a"], "text"),
        ('[{"id": 1, "kommentar": "gut"}]', ["gut"], "kommentar"),
        ('[{"id": "A1", "what": "a whole sentence here"}]', ["a whole sentence here"], "what"),
        ('[{"text": ""}, {"text": null}]', ["", ""], "text"),
        ('[{"meta": {"a": [1, {"b": []}]}, "text": "a"}]', ["a"], "text"),
        ('\ufeff[{"text": "a"}]', ["a"], "text"),
        ('[{"text": "\\ud83d\\ude00 \\u00e9"}]', ["😀 é"], "text"),
    ],
)
def test_the_shapes_that_are_taken(read, document, texts, field):
    reading = read(document, "a.json")
    assert reading.texts == texts
    assert reading.file.text_field == field


def test_utf16_json_with_a_byte_order_mark_is_read(read):
    reading = read('[{"text": "größer"}]'.encode("utf-16"), "a.json")
    assert reading.texts == ["größer"]
    assert reading.file.encoding.startswith("utf-16")


def test_arrays_that_are_passed_over_are_reported(read):
    reading = read('{"a": [{"text": "x"}], "b": [{"text": "y"}], "c": ["z"]}', "a.json")
    assert reading.texts == ["x"]
    assert reading.file.warnings == ["Records were read from 'a'; not from 'b', 'c'."]


def test_the_field_asked_for_chooses_the_array(read):
    document = '{"a": [{"text": "x"}], "b": [{"note": "y"}]}'
    assert read(document, "a.json", text_field="note").texts == ["y"]


def test_a_long_array_of_texts_is_read_without_waiting_for_what_follows(read):
    texts = ["word " * 100] * 5000
    reading = read(json.dumps({"notes": texts, "rows": [{"text": "a"}]}), "a.json")
    assert len(reading.texts) == 5000
    assert "rows" in reading.file.warnings[0]


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        ("[]", "empty_file", "empty array"),
        ("{}", "empty_file", "empty object"),
        ('{"data": []}', "empty_file", "'data'"),
        ('{"X": [[1, 2], [3, 4]], "y": [0, 1]}', "missing_field", "'X' (array of arrays), 'y' (array of numbers)"),
        ('{"y": ["a"], "X": [[1]]}', "missing_field", "no text"),
        ('{"columns": ["id", "text"], "data": [[1, "a"]]}', "missing_field", "array of arrays"),
        ('{"a": 1, "b": {"text": "x"}}', "missing_field", "'b' (an object)"),
        ("[1, 2]", "missing_field", "numbers"),
        ("[{}]", "missing_field", "fields are none"),
        ("[[1], [2]]", "missing_field", "arrays"),
        ('[{"a": 1}, {"b": true}]', "missing_field", "'a', 'b'"),
        ("5", "invalid_input", "a number"),
        ('"text"', "invalid_input", "a text"),
        ("null", "invalid_input", "null"),
    ],
)
def test_valid_json_without_texts_is_refused_with_what_was_found(refusal, document, code, words):
    error = refusal(document, "a.json")
    assert (error.code, error.spec.http_status) == (code, 422)
    assert words in str(error)


def test_numbers_under_x_are_pointed_to_where_they_belong(refusal):
    assert "/predict" in refusal('{"X": [[1, 2]], "y": [0]}', "a.json").hint


def test_a_field_that_is_missing_everywhere_is_refused_with_those_there_are(refusal):
    error = refusal('[{"id": 1, "text": "a"}]', "a.json", text_field="review")
    assert error.code == "missing_field"
    assert "'id', 'text'" in str(error)
    assert refusal('{"rows": [{"text": "a"}]}', "a.json", text_field="review").code == "missing_field"


def test_bad_records_are_rejected_one_by_one(read):
    document = '[{"text": "a"}, {"text": 5}, {"other": 1}, 7, null, {"text": ["x"]}, "b"]'
    reading = read(document, "a.json", max_rejected_share=1)
    assert [record.row for record in reading.records] == [1, 7]
    assert [(rejection.row, rejection.code) for rejection in reading.rejections] == [
        (2, "invalid_input"), (3, "missing_field"), (4, "invalid_input"), (5, "invalid_input"), (6, "invalid_input"),
    ]  # fmt: skip
    assert reading.rejections[0].details == "the field 'text' is a number, not a text"
    assert reading.rejections[1].details == "there is no field 'text'; the fields are 'other'"


@pytest.mark.parametrize(
    ("document", "line", "column", "words"),
    [
        ('[{"text": "a"},\n {"text": NaN}]', 2, 11, "NaN"),
        ('[{"text": "a", "n": -Infinity}]', 1, 21, "Infinity"),
        ('[{"text": "a", "n": 1e400}]', 1, 21, "too large"),
        ('[{"text": "a",\n"n": 123456789012345678901}]', 2, 6, "20 digits"),
        ('[{"text": "a"},\n{"text": "\\ud800"}]', 2, 11, "surrogate"),
        ('[{"text": "\\udc00\\ud800"}]', 1, 12, "surrogate"),
        ('[{"\\ud800": "a"}]', 1, 4, "surrogate"),
        ("[" * 65 + "]" * 65, 1, 65, "64 levels"),
        ("[" * 100_000, 1, 65, "64 levels"),
        ('{"a":' * 100_000, 1, 321, "64 levels"),
        ('[{"text": "a",}]', 1, 15, "comma"),
        ('[{"text": "a"},]', 1, 16, "comma"),
        ('{"a": ["x"],}', 1, 13, "comma"),
        ("[{'text': 'a'}]", 1, 3, "double quotes"),
        ('[{"text": "a"} {"text": "b"}]', 1, 16, "','"),
        ('[{"text": "a"}]\n\n[1]', 3, 1, "behind the end"),
        ('{"text": "a"}\n{"text": "b"}', 2, 1, ".jsonl"),
        ('{"x": 1} oops', 1, 10, "behind the end"),
        ('[{"text": "a\nb"}]', 1, 13, "U+000A"),
        ('[{"text": "a\x00b"}]', 1, 13, "U+0000"),
        ('[{"text": "abc', 1, 11, "never ends"),
        ('[{"text": "a"}', 1, 15, "ends too early"),
        ('[{"text": "a"}, {"text"', 1, 24, "ends too early"),
        ('[{"text": "a"}, tru]', 1, 17, "value"),
        ("[01]", 1, 3, "','"),
        ("[+1]", 1, 2, "value"),
        ("[.5]", 1, 2, "value"),
        ("[1.]", 1, 3, "','"),
        ('["\\x41"]', 1, 3, "escape"),
        ("// comment\n[]", 1, 1, "value"),
        ('{"a": ["x"], "a": ["y"]}\n', 1, 25, ""),
    ],
)
def test_what_json_forbids_is_refused_with_line_and_column(refusal, read, document, line, column, words):
    if not words:
        assert "twice" in read(document, "a.json").file.warnings[0]
        return
    error = refusal(document, "a.json")
    assert isinstance(error, InvalidFileError)
    assert (error.code, error.spec.http_status) == ("invalid_json", 422)
    assert (error.where["line"], error.where["column"]) == (line, column)
    assert words in str(error)


def test_the_byte_counts_the_bytes_of_the_file(refusal):
    document = '\ufeff[{"text": "größer"}, {"text": ?}]'
    error = refusal(document, "a.json")
    assert document.encode()[error.where["byte"] :].startswith(b"?")
    assert "byte" not in refusal(document.encode("utf-16"), "a.json").where


def test_the_place_is_right_far_into_a_long_document(refusal):
    rows = [f'{{"text": "ä {number}"}}' for number in range(50_000)]
    rows[40_000] = '{"text": oops}'
    document = "[" + ",\n".join(rows) + "]"
    error = refusal(document, "a.json")
    assert (error.where["row"], error.where["line"], error.where["column"]) == (40_001, 40_001, 10)
    assert document.encode()[error.where["byte"] :].startswith(b"oops")


def test_bytes_that_are_not_utf8_are_named(refusal):
    error = refusal(b'[{"text": "ok"},\n{"text": "caf\xe9"}]', "a.json")
    assert error.code == "invalid_encoding"
    assert (error.where["line"], error.where["column"], error.where["byte"]) == (2, 14, 30)


def test_the_limits_are_exact(read, refusal):
    at_most = [{"text": "a", "n": 10**20 - 1, "m": -(10**20) + 1}]
    assert read(json.dumps(at_most), "a.json").texts == ["a"]
    deep: object = "x"
    for _ in range(62):
        deep = [deep]
    assert read(json.dumps([{"text": "a", "n": deep}]), "a.json").texts == ["a"]
    assert "64 levels" in str(refusal(json.dumps([{"text": "a", "n": [deep]}]), "a.json"))
    wide = {f"f{number}": 1 for number in range(999)}
    assert read(json.dumps([{"text": "a", **wide}]), "a.json").texts == ["a"]
    assert "1,001 fields" in str(refusal(json.dumps([{"text": "a", "b": 1, **wide}]), "a.json"))


def test_brackets_and_digits_inside_of_texts_do_not_count(read):
    text = "[" * 100 + "9" * 100 + ' NaN "\\ud800'
    assert read(json.dumps([{"text": text}]), "a.json").texts == [text]


def test_a_field_over_the_limit_is_a_rejection(read, refusal):
    rows = [{"text": "a"}, {"text": "é" * 65_537}, {"text": "b", "raw": "x" * 131_073}, {"text": "c" * 131_072}]
    reading = read(json.dumps(rows), "a.json")
    assert [record.row for record in reading.records] == [1, 4]
    assert [(rejection.row, rejection.code) for rejection in reading.rejections] == [
        (2, "text_too_long"),
        (3, "text_too_long"),
    ]
    assert "'raw'" in reading.rejections[1].details
    assert refusal(json.dumps(["x" * 200] * 3 + ["y" * 3000]), "a.json", max_record_bytes=1000, sizes=[50]).code in (
        "file_too_large",
        "too_many_bad_rows",
    )


def test_a_value_over_the_limit_is_refused_whole_or_not(refusal):
    for end in ("", '"}, {"text": "a"}]'):
        error = refusal('[{"text": "' + "x" * 5_000_000 + end, "a.json")
        assert (error.code, error.spec.http_status) == ("file_too_large", 413)


def test_arrays_passed_over_for_the_object_itself_are_reported(read):
    reading = read('{"text": "a", "rows": [{"note": "b"}]}', "a.json", text_field="text")
    assert reading.texts == ["a"]
    assert reading.file.warnings[-1] == "Records were read from the object itself; not from 'rows'."


def test_an_integer_that_is_too_long_is_named_wherever_it_stands(refusal):
    error = refusal('[{"text": "' + "9" * 25 + '", "n": 1}, ' + "9" * 25 + "x]", "a.json")
    assert "20 digits" in str(error)
    assert error.where["column"] == 49


def test_of_a_field_given_twice_the_last_counts_with_a_warning(read):
    for document, name in (('[{"text": "a", "text": "b"}]', "a.json"), ('{"text": "a", "text": "b"}\n', "a.jsonl")):
        reading = read(document, name)
        assert reading.texts == ["b"]
        assert reading.file.warnings == ["1 record(s) give a field twice (such as 'text'); the last counts."]


def test_an_array_of_records_given_twice_is_refused(refusal):
    assert "twice" in str(refusal('{"rows": [{"text": "a"}], "rows": [{"text": "b"}]}', "a.json"))


def test_broken_lines_are_rejected_and_the_rest_goes_on(read):
    data = b'{"text": "a"}\n{"text": \n\n  {"text": "b"} \r\n{"text": "\xff"}\n"c"\n'
    data += b'{"text": NaN}\n{"text": "d"} x\n{"text": "e"}'
    reading = read(data, "a.jsonl")
    assert [(record.row, record.text) for record in reading.records] == [(1, "a"), (3, "b"), (5, "c"), (8, "e")]
    assert [(row, code, details.split(":")[0]) for row, code, details in reading.rejections] == [
        (2, "invalid_json", "line 2, column 9"),
        (4, "invalid_encoding", "line 5, column 11"),
        (6, "invalid_json", "line 7, column 10"),
        (7, "invalid_json", "line 8, column 15"),
    ]


def test_json_lines_that_are_all_broken_are_refused(refusal):
    error = refusal("{oops\n{oops\n", "a.jsonl")
    assert error.code == "too_many_bad_rows"
    assert "row 1: line 1, column 2" in str(error)


def test_an_endless_line_is_rejected(read):
    data = '{"text": "a"}\n{"text": "' + "x" * 5_000_000 + '"}\n{"text": "b"}\n'
    reading = read(data, "a.jsonl")
    assert reading.texts == ["a", "b"]
    assert reading.rejections[0][:2] == (2, "text_too_long")


def test_a_field_is_found_after_a_hundred_broken_lines(read):
    data = "{oops\n" * 120 + '{"comment": "a"}\n' * 130
    reading = read(data, "a.jsonl")
    assert reading.texts == ["a"] * 130
    assert reading.file.text_field == "comment"


def test_the_strict_decoder_lets_constants_through_when_asked():
    value, _ = StrictDecoder(IngestLimits(), constants=True).decode("[NaN, 1e400]", 0)
    assert math.isnan(value[0])
    assert math.isinf(value[1])
