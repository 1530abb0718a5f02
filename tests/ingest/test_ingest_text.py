"""Plain text, encodings and gzip."""

import gzip
import io
import random
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.ingest import IngestLimits, open_upload
from bulletproof.ingest.encoding import guess_encoding

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)

SAMPLES = {
    "cp1252": "Das Gerät ist großartig, leider fünf Euro zu teuer – très bonne qualité, déçu par l’emballage",
    "latin-1": "El niño está aquí, ¿verdad? El café también",
    "cp1250": "Bardzo dobry produkt, świetna jakość, polecam każdemu. Žluťoučký kůň úpěl",
    "cp1251": "Отличный товар, быстрая доставка, всем рекомендую. Качество хорошее",
    "koi8_r": "Отличный товар, быстрая доставка, всем рекомендую. Качество хорошее",
    "cp1253": "Πολύ καλό προϊόν, το συνιστώ ανεπιφύλακτα σε όλους",
    "cp1254": "Çok güzel bir ürün, kargo hızlıydı, herkese tavsiye ederim şiddetle",
    "cp1256": "منتج رائع جدا والتوصيل سريع أنصح به الجميع",
    "cp932": "この製品はとても良いです。また買いたいと思います。",
    "euc_jp": "この製品はとても良いです。また買いたいと思います。",
    "gb18030": "这个产品非常好,我很喜欢,物流也很快,推荐购买。",
    "big5": "這個產品非常好,我很喜歡,物流也很快,推薦購買。",
    "cp949": "이 제품은 정말 좋아요. 배송도 빨라요. 추천합니다.",
}


@given(
    st.lists(st.lists(LINE, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_each_paragraph_is_a_record_in_every_encoding_however_the_bytes_arrive(read, parts, ending, encoding, sizes):
    text = f"{ending}{ending} \t{ending}".join(ending.join(lines) for lines in parts)
    reading = read(text.encode(encoding), "a.txt", sizes=sizes)
    assert reading.texts == ["\n".join(lines).strip("\ufeff") for lines in parts] or "\ufeff" in text
    assert reading.file.rejected == 0


def test_paragraphs_are_numbered_from_one(read):
    reading = read("\n\nFirst\nstill first\n\n\n \t\nSecond\n", "a.txt")
    assert reading.records == [(1, "First\nstill first"), (2, "Second")]


def test_an_endless_paragraph_is_rejected_with_its_line_and_a_hint(read):
    reading = read("one\n\n" + "a line\n" * 30_000 + "\ntwo\n\n" + "é" * 65_537 + "\n\n" + "x" * 131_072, "a.txt")
    assert [record.row for record in reading.records] == [1, 3, 5]
    assert [(row, code) for row, code, _ in reading.rejections] == [(2, "text_too_long"), (4, "text_too_long")]
    assert "line 3" in reading.rejections[0].details
    assert "blank lines" in reading.rejections[0].details


def test_an_endless_line_of_text_is_rejected(read):
    reading = read("one\n\n" + "x" * 10_000_000 + "\nmore\n\ntwo", "a.txt")
    assert reading.records == [(1, "one"), (3, "two")]
    assert reading.rejections[0][:2] == (2, "text_too_long")


def test_a_nul_byte_in_a_text_is_refused_with_its_place(refusal):
    error = refusal("fine\n" * 20 + "bro\0ken\n", "a.txt")
    assert (error.code, error.where) == ("invalid_encoding", {"line": 21, "column": 4})


def test_the_place_of_a_nul_byte_is_told_by_whatever_ends_the_lines(refusal):
    assert refusal("one\r\rbro\0ken\r", "a.txt").where == {"line": 3, "column": 4}


def test_a_text_field_makes_no_sense_for_plain_text_and_is_said_to(read):
    assert "ignored" in read("one", "a.txt", text_field="text").file.warnings[0]
    assert "ignored" in read('["one"]', "a.json", text_field="text").file.warnings[0]


@pytest.mark.parametrize("encoding", list(SAMPLES))
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_a_file_that_is_not_utf8_is_read_in_the_encoding_its_content_suggests(read, name, encoding):
    text = SAMPLES[encoding]
    data = f'id,text\n1,plain\n2,"{text}"\n3,"{text}"\n' if name == "a.csv" else f"plain\n\n{text}\n\n{text}\n"
    reading = read(data.encode(encoding), name)
    assert reading.texts == ["plain", text, text]
    assert reading.file.encoding == {"latin-1": "cp1252"}.get(encoding, encoding)
    assert "not UTF-8" in reading.file.warnings[0]


def test_the_encoding_is_found_behind_a_long_plain_beginning(read):
    data = (
        b"id,text\n" + b"1,plain\n" * 100_000 + SAMPLES["koi8_r"].replace(",", "").encode("koi8_r").join([b"2,", b"\n"])
    )
    reading = read(data)
    assert reading.texts[-1] == SAMPLES["koi8_r"].replace(",", "")
    assert reading.file.encoding == "koi8_r"


def test_single_lines_in_another_encoding_are_read_and_counted(read):
    lines = ["1,größer", "2,schöner", "3,fünf", "4,süß", "5,ok"]
    data = "\n".join(["id,text", *lines]).encode().replace("fünf".encode(), "fünf".encode("cp1252"))
    reading = read(data)
    assert reading.texts == ["größer", "schöner", "fünf", "süß", "ok"]
    assert reading.file.encoding == "utf-8"
    assert reading.file.warnings == ["1 line(s) were not valid UTF-8 and were read as cp1252; the first is line 4."]


def test_a_damaged_line_keeps_what_is_whole(read):
    data = "id,text\n1,größer und schöner\n2,".encode() + "ä ö ü ".encode() + b"\xc3\n"
    reading = read(data)
    assert reading.texts == ["größer und schöner", "ä ö ü \ufffd"]
    assert "U+FFFD" in reading.file.warnings[0]


def test_too_few_bytes_to_tell_from_are_read_as_windows_wrote_them():
    assert guess_encoding(b"caf\xe9") == "cp1252"
    assert guess_encoding(b"\xff") == "cp1252"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_refused_with_the_reason(refusal, encoding):
    for name in ("a.csv", "a.txt"):
        error = refusal("id,text\n1,good\n".encode(encoding), name)
        assert (error.code, error.spec.http_status) == ("invalid_encoding", 422)
        assert "UTF-16" in str(error)


@pytest.mark.parametrize(
    ("data", "byte"), [("id,text\n1,ok".encode("utf-16") + b"x", 26), (b"\xff\xfei\0d\0\x00\xd8,\0a\0", 6)]
)
def test_broken_utf16_is_refused_with_the_byte(refusal, data, byte):
    error = refusal(data)
    assert (error.code, error.where["byte"]) == ("invalid_encoding", byte)


@pytest.mark.parametrize("name", ["a.csv.gz", "A.CSV.GZ", "a.csv.gzip", "upload"])
def test_gzip_is_unpacked(read, name):
    reading = read(gzip.compress(b"id,text\n1,good\n2,bad\n"), name)
    assert reading.texts == ["good", "bad"]
    assert (reading.file.format, reading.file.compression) == ("csv", "gzip")


def test_gzip_of_several_members_and_padding_is_unpacked(read):
    data = gzip.compress(b"id,text\n1,good\n") + gzip.compress(b"2,bad\n") + b"\0" * 512
    assert read(data, "a.csv.gz", sizes=[5]).texts == ["good", "bad"]


@pytest.mark.parametrize("cut", [1, 5, 11, 20, 30])
def test_gzip_that_is_cut_off_is_refused(refusal, cut):
    error = refusal(gzip.compress(b"id,text\n1,good\n2,bad\n")[:-cut], "a.csv.gz")
    assert (error.code, error.spec.http_status) == ("invalid_archive", 422)


@pytest.mark.parametrize("damage", [0, 3, 12, 25, -5])
def test_gzip_that_is_corrupt_is_refused(refusal, damage):
    data = bytearray(gzip.compress(b"id,text\n1,good\n2,bad\n" * 3))
    data[damage] ^= 0xFF
    assert refusal(bytes(data), "a.csv.gz").code == "invalid_archive"


def test_what_is_not_gzip_or_has_rubbish_behind_is_refused(refusal):
    assert refusal(b"id,text\n1,good\n", "a.csv.gz").code == "invalid_archive"
    assert refusal(zlib.compress(b"id,text\n1,good\n"), "a.csv.gz").code == "invalid_archive"
    assert refusal(gzip.compress(b"id,text\n1,good\n") + b"rubbish", "a.csv.gz").code == "invalid_archive"
    assert refusal(gzip.compress(gzip.compress(b"id,text\n1,good\n")), "a.csv.gz").code == "unsupported_format"


def test_a_compression_bomb_is_refused_early(refusal):
    bomb = gzip.compress(b"a" * 50_000_000)
    error = refusal(bomb, "a.txt.gz")
    assert (error.code, error.spec.http_status) == ("file_too_large", 413)
    assert "bomb" in str(error)
    error = refusal(bomb, "a.txt.gz", max_compression_ratio=10_000, max_decompressed_bytes=2_000_000)
    assert "2,000,000 bytes" in str(error)


def test_well_packed_honest_data_is_no_bomb(read):
    data = "id,text\n" + "".join(f"{number},the very same text again\n" for number in range(50_000))
    assert len(read(gzip.compress(data.encode()), "a.csv.gz").records) == 50_000


@pytest.mark.parametrize(
    ("name", "head", "row", "tail"),
    [
        ("a.csv.gz", b"text\n", b"a\n", b""),
        ("a.json.gz", b"[", b'"a",', b'"a"]'),
        ("a.json.gz", b'["a",', b"1,", b'"a"]'),
        ("a.json.gz", b'{"other":[', b"1,", b'1],"rows":[{"text":"hello"}]}'),
        ("a.json.gz", b"{", b'"a":1,', b'"z":["hello there"]}'),
        ("a.jsonl.gz", b"", b'"a"\n', b""),
        ("a.txt.gz", b"", b"a\n\n", b""),
    ],
)
def test_millions_of_tiny_rows_in_a_few_kilobytes_are_refused_before_they_cost_much(refusal, name, head, row, tail):
    packed = gzip.compress(head + row * 1_500_000 + tail)
    started = time.process_time()
    error = refusal(packed, name, max_compression_ratio=10_000)
    assert time.process_time() - started < 2
    assert (error.code, error.spec.http_status) == ("file_too_large", 413)
    assert "more than 100,000 records" in str(error)
    assert "uncompressed" in error.hint


def test_a_million_rows_of_real_text_are_read_packed_or_not():
    words = ["good", "bad", "food", "room", "service", "again", "never", "very", "staff", "price", "was", "the"]
    draw = random.Random(7).choices
    data = b"text\n" + "\n".join(" ".join(draw(words, k=6)) for _ in range(1_000_000)).encode()
    for content, name in ((gzip.compress(data, 6), "a.csv.gz"), (data, "a.csv")):
        file = open_upload(io.BytesIO(content), name, limits=IngestLimits(max_bytes=10**9))
        assert sum(len(chunk.records) for chunk in file.chunks()) == 1_000_000


def test_a_file_of_more_records_than_allowed_is_refused(refusal, read):
    data = b"text\n" + b"a word\n" * 5000
    assert len(read(data, "a.csv", max_records=5000).records) == 5000
    error = refusal(data + b"a word\n" * 1000, "a.csv", max_records=5000)
    assert (error.code, error.spec.http_status) == ("file_too_large", 413)
    assert "BULLETPROOF_MAX_RECORDS" in error.hint
