"""Which format a file is taken for, and what is refused."""

import gzip
import io

import pytest

from bulletproof.errors import FileTooLargeError
from bulletproof.ingest import IngestLimits, open_upload

CSV = "id,text\n1,good\n2,bad\n"
JSON = '[{"text": "good"}, {"text": "bad"}]'
LINES = '{"text": "good"}\n{"text": "bad"}\n'


@pytest.mark.parametrize(
    ("name", "content_type", "data", "expected"),
    [
        ("a.csv", None, CSV, "csv"),
        ("A.CSV", None, CSV, "csv"),
        ("a.tsv", None, CSV.replace(",", "\t"), "tsv"),
        ("a.tab", None, CSV.replace(",", "\t"), "tsv"),
        ("a.json", None, JSON, "json"),
        ("a.jsonl", None, LINES, "jsonl"),
        ("a.ndjson", None, LINES, "jsonl"),
        ("a.txt", None, JSON, "text"),
        ("archive.2024.csv", None, CSV, "csv"),
        ("a.csv", "application/vnd.ms-excel", CSV, "csv"),
        ("a.csv", "text/plain", CSV, "csv"),
        ("a.csv", "application/json", CSV, "csv"),
        ("a.txt", "application/json", JSON, "json"),
        ("upload", "text/csv; charset=utf-8", CSV, "csv"),
        ("upload", "application/json", JSON, "json"),
        ("upload", "application/vnd.api+json", JSON, "json"),
        ("upload", "application/x-ndjson", LINES, "jsonl"),
        ("upload", "application/octet-stream", CSV, "csv"),
        ("upload", "text/plain", JSON, "json"),
        ("upload", None, LINES, "jsonl"),
        ("upload", None, CSV.replace(",", "\t"), "tsv"),
        ("upload", None, "Dear all, hello.\nThis is, in a way, a letter.\n", "text"),
        (None, None, CSV, "csv"),
        ("", None, "just words", "text"),
    ],
)
def test_the_name_decides_then_the_type_then_the_content(read, name, content_type, data, expected):
    reading = read(data, name, content_type)
    assert reading.file.format == expected
    assert reading.records


@pytest.mark.parametrize("name", ["a.xyz", "a.exe", "a.pdf", "a.xlsx", "a.tar.gz", "a.xyz.gz", "a.zip", "a.b c"])
@pytest.mark.parametrize("content_type", [None, "text/csv", "application/json"])
def test_an_unknown_extension_is_refused_even_if_the_content_is_text(refusal, name, content_type):
    error = refusal(CSV, name, content_type)
    assert (error.code, error.spec.http_status) == ("unsupported_format", 415)
    assert ".csv" in str(error)


@pytest.mark.parametrize("content_type", ["application/pdf", "image/png", "text/html"])
def test_a_type_of_another_kind_is_refused_when_the_name_says_nothing(refusal, content_type):
    assert refusal(CSV, "upload", content_type).code == "unsupported_format"


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.jsonl", "upload", "a.txt.gz"])
@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"%PDF-1.7 and so on",
        b"PK\x03\x04 something",
        b"\x7fELF\x02\x01\x01",
        b"SQLite format 3\0 and so on",
        bytes(range(256)) * 4,
        b"\0\x01\x02\x03" * 50,
        b"\0" * 100,
    ],
)
def test_binary_content_under_a_text_name_is_refused(refusal, name, data):
    error = refusal(gzip.compress(data) if name.endswith(".gz") else data, name)
    assert (error.code, error.spec.http_status) == ("unsupported_format", 415)


@pytest.mark.parametrize(
    ("name", "content_type"), [("a.json", None), ("upload", "application/json"), ("a.txt", "application/json")]
)
@pytest.mark.parametrize("data", ['[{"text": "a"}, {"text": ', "text\ngood\nbad\n", "{'text': 'a'}", "[1,2", "hello"])
def test_corrupted_json_is_never_taken_for_anything_else(refusal, name, content_type, data):
    error = refusal(data, name, content_type)
    assert (error.code, error.spec.http_status) == ("invalid_json", 422)
    assert {"line", "column", "byte"} <= error.where.keys()


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt", "upload", None, "a.csv.gz"])
@pytest.mark.parametrize("data", [b"", b"  \n\t\r\n ", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_an_empty_file_is_named_so(refusal, name, data):
    error = refusal(gzip.compress(data) if name == "a.csv.gz" else data, name)
    assert (error.code, error.spec.http_status) == ("empty_file", 422)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\reviews.csv", "reviews.csv"),
        ("re\r\nviews\0.csv", "reviews.csv"),
        (" a.csv ", "a.csv"),
        ("/", None),
        (None, None),
    ],
)
def test_a_file_name_is_kept_without_folders_and_control_characters(read, given, kept):
    assert read(CSV, given).file.filename == kept


def test_a_file_larger_than_allowed_is_refused_before_it_is_read():
    class Unreadable(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("must not be read")

    with pytest.raises(FileTooLargeError) as caught:
        open_upload(Unreadable(b"x" * 101), "a.csv", limits=IngestLimits(max_bytes=100))
    assert caught.value.spec.http_status == 413
    assert "101 bytes" in str(caught.value)


def test_a_stream_of_unknown_size_is_refused_once_it_proves_too_large(refusal):
    error = refusal(CSV * 100, "a.csv", sizes=[7], max_bytes=1000)
    assert error.code == "file_too_large"


def test_the_share_of_bad_rows_decides_at_the_end(read, refusal):
    half = "id,text\n" + "1,good\n2,bad,x\n" * 5
    assert len(read(half).records) == 5
    error = refusal(half + "3\n")
    assert error.code == "too_many_bad_rows"
    assert "6 of the 11 rows" in str(error)
    assert "row 2: line 3: expected 2 fields, got 3" in str(error)
    assert len(read(half + "3\n", max_rejected_share=0.6).records) == 5


@pytest.mark.parametrize("chunk_size", [1, 512, 7_000])
def test_only_a_file_that_begins_with_a_hundred_thousand_bad_rows_is_given_up_early(refusal, read, chunk_size):
    good = "1,a\n" * 100_001
    error = refusal("id,text\n" + "x\n" * 100_000 + good, chunk_size=chunk_size)
    assert "100,000 of the first 100,000 rows" in str(error)
    assert len(read("id,text\n" + "x\n" * 99_999 + good, chunk_size=chunk_size).records) == 100_001


def test_counts_and_chunks_agree(read):
    reading = read("id,text\n" + "1,good\n2\n3,fine\n" * 1000, chunk_size=10)
    assert (reading.file.received, reading.file.rejected) == (3000, 1000)
    assert [record.row for record in reading.records[:3]] == [1, 3, 4]
    assert [rejection.row for rejection in reading.rejections[:2]] == [2, 5]


def test_long_texts_make_small_chunks():
    data = "id,text\n" + f"1,{'word ' * 20_000}\n" * 50
    chunks = list(open_upload(io.BytesIO(data.encode()), "a.csv").chunks())
    assert max(len(chunk.records) for chunk in chunks) <= 11


@pytest.mark.parametrize("field", ["max_bytes", "max_depth", "chunk_size", "max_compression_ratio"])
def test_limits_must_make_sense(field):
    with pytest.raises(ValueError, match=field):
        IngestLimits(**{field: 0})
    with pytest.raises(ValueError, match="max_rejected_share"):
        IngestLimits(max_rejected_share=1.5)
