"""Each way that tables are written, and each that is none; encodings; what spreadsheets and terminals would run."""

import csv
import io
from itertools import product
from typing import Any

from bulletproof.ingest import clean_text

CELLS = [
    "It is good", 'He said "fine"', '"', '""', "a,b;c|d", "one\ntwo", "one\r\ntwo", "one\rtwo", " padded ", "'single'",
    "back\\slash", 'back\\"quote', "tab\there", "=1+1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "%0a=1",
    "=HYPERLINK(\"http://evil.example\",\"x\")", "NULL", "NaN", "#REF!", "1e5", "0001", "-", "'", "é中😀", "\x85next",
    "\u2028line", "\x0bvt", "\x1cfs", "a" * 5000, "{\"a\": 1}", "<b>bold</b>", "trailing\\", "#comment", "sep=;", "//",
]  # fmt: skip


def table(cells: list[str], ends: str, encoding: str, **dialect: Any) -> bytes:
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator=ends, **dialect)
    writer.writerow(["id", "text", "stars"])
    writer.writerows([number, cell, number % 5] for number, cell in enumerate(cells, 1))
    return written.getvalue().encode(encoding)


async def test_tables_of_every_dialect_are_read_as_they_were_written(sender: Any) -> None:
    expected = list(map(clean_text, CELLS))
    encodings = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    for delimiter, ends, encoding in product(",;\t|", ("\n", "\r\n", "\r"), encodings):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            # The writer leaves a CR or LF unquoted where lines end otherwise.
            cells = [cell for cell in CELLS if quoting == csv.QUOTE_ALL or not {"\r", "\n"} & set(cell)]
            content = table(cells, ends, encoding, delimiter=delimiter, quoting=quoting)
            wanted = expected if quoting == csv.QUOTE_ALL else list(map(clean_text, cells))
            assert await sender.texts("a.csv", content, text_field="text") == wanted, (delimiter, ends, encoding)
    body = "".join(f'{number},"{cell.replace(chr(34), chr(92) + chr(34))}"\n' for number, cell in enumerate(CELLS[:4]))
    assert await sender.texts("a.csv", "id,text\n" + body) == [clean_text(cell) for cell in CELLS[:4]]
    for head in ("sep=;\n", '"sep=;"\r\n', "\n\n", "\ufeff"):
        assert await sender.texts("a.csv", head + 'id;text\n1;good\n2;"b;d"\n') == ["good", "b;d"]
    for content in (
        "text\ngood",
        "text\r\ngood\r\n",
        '"text"\n"good"',
        "ID, Text \n1, good\n",
        '"id", "text"\n1, "good"\n',
    ):
        assert await sender.texts("a.csv", content) == ["good"], content
    spaced = 'id, text\n1, "good" he said\n2, "bad", \n3, fine\n'
    assert (await sender.texts("a.csv", spaced.replace('"bad", ', '"bad"')))[0] == '"good" he said'
    assert await sender.texts("a.tsv", "id\ttext\n1\ta,b\n2\tc;d\n") == ["a,b", "c;d"]


async def test_broken_tables_are_refused_or_cost_the_row_that_is_broken(sender: Any) -> None:
    good = "id,text\n" + "".join(f"{number},It is number {number}\n" for number in range(10))
    for bad, code in (
        ("10\n", "invalid_csv"), ("10,a,b\n", "invalid_csv"), ('10,"a"b\n', "invalid_csv"), ('10,"a" "b"\n',
        "invalid_csv"),
        ("10,\n", "empty_text"), ('10,""\n', "empty_text"), ("10,\u200b\u2060\n", "empty_text"), (",,,,,\n",
        "invalid_csv"),
        (f"10,{'a' * 30_000}\n", "text_too_long"), (f"10,{'a' * 200_000}\n", "text_too_long"),
    ):  # fmt: skip
        status, body = await sender.file("a.csv", good + bad + "11,It is the last\n")
        assert status == 200, (bad[:50], body)
        assert [(one["row"], one["code"]) for one in body["rejections"]] == [(11, code)], (bad[:50], body["rejections"])
        assert body["results"][-1]["text"] == "It is the last"
    for content, code, place in (
        ("", "empty_file", ""), ("id,text\n", "empty_file", ""), ("\n\n\r\n", "empty_file", ""), (" ", "empty_file",
        ""),
        (good + '10,"never closed\n' + "a,b\n" * 50, "invalid_csv", "line 12"), ('"', "invalid_csv", "line 1"),
        (good + "10,a\0b\n", "invalid_csv", "line 12, column 5"), ("id,text\n" + "x\n" * 20, "too_many_bad_rows",
        "row 1"),
        ("id,n\n1,2\n3,4\n", "missing_field", ""), ("," * 1_000_000, "invalid_csv", "line 1"),
        (",".join(f"c{n}" for n in range(1_000_000)) + "\n1\n", "invalid_csv", "line 1"),
        ("id,text\n" + "," * 1_000_000, "invalid_csv", "line 2"), ("a," * 1001 + "\n1\n", "invalid_csv", "line 1"),
        ('id,text\n1,"' + "a\n" * 3_000_000, "invalid_csv", "line"), ("a" * 9_000_000, "invalid_csv", "line 1"),
        ('"' * 100_001, "invalid_csv", ""), ("id,text\n1,a\n".encode("utf-16-le"), "invalid_encoding", "byte"),
        (b"id,text\n1,\xff\x00\xfe\x00\n", "invalid_csv", "line 2"), (b"\xff\xfea", "invalid_encoding", "byte"),
    ):  # fmt: skip
        body = await sender.refusal("a.csv", content)
        assert body["code"] == code, (content[:60], body)
        assert place in body["details"], (content[:60], body)


# Enough of each language to tell its encoding from the others.
LANGUAGES = {
    "cp1252": "Le café est très bon, où êtes-vous allés hier soir ? Ça coûte 5 €.",
    "iso-8859-1": "Die Bücher sind schön und größer als früher, aber das Café ist zu.",
    "cp1250": "Zażółć gęślą jaźń, proszę o więcej książek i świeże mięso na obiad.",
    "cp1251": "Это очень хорошая книга, и я читаю её каждый вечер с удовольствием.",
    "koi8_r": "Это очень хорошая книга, и я читаю её каждый вечер с удовольствием.",
    "cp1253": "Η νέα βιβλιοθήκη άνοιξε τη Δευτέρα και όλοι την αγαπούν πολύ.",
    "cp1254": "Bu kitap çok güzel, her akşam okuyorum ve şimdi ığdır'a gidiyorum.",
    "cp1255": "הספר הזה טוב מאוד ואני קורא אותו כל ערב בהנאה רבה",
    "cp1256": "هذا الكتاب جيد جدا وأنا أقرأه كل مساء بسرور كبير",
    "cp932": "この本はとても良いので、毎晩楽しく読んでいます。新しい図書館が好きです。",
    "euc_jp": "この本はとても良いので、毎晩楽しく読んでいます。新しい図書館が好きです。",
    "gb18030": "这本书非常好，我每天晚上都很高兴地读它，新图书馆很明亮。",
    "big5": "這本書非常好，我每天晚上都很高興地讀它，新圖書館很明亮。",
    "cp949": "이 책은 아주 좋아서 매일 저녁 즐겁게 읽고 있습니다. 새 도서관이 밝습니다.",
}


async def test_common_encodings_are_read_and_what_was_guessed_is_said(sender: Any) -> None:
    for name, text in LANGUAGES.items():
        texts = [f"{number}: {text}" for number in range(20)]
        for file, content in (
            ("a.csv", "id,text\n" + "".join(f'{number},"{one}"\n' for number, one in enumerate(texts))),
            ("a.txt", "\n\n".join(texts)),
        ):
            for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
                assert await sender.texts(file, content.encode(encoding)) == texts, (name, encoding)
            status, body = await sender.file(file, content.encode(name))
            assert status == 200, (name, body)
            assert [result["text"] for result in body["results"]] == texts, (name, body["encoding"], body["warnings"])
            assert any("not UTF-8" in warning for warning in body["warnings"]), (name, body["warnings"])


async def test_damaged_encodings_lose_no_row_and_are_told(sender: Any) -> None:
    good = [f"{number}: Das schöne Café, größer als früher" for number in range(20)]
    for bad in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xff", b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xe4\xb8", b"\x80\x81"):
        for name, joint in (("a.txt", b"\n\n"), ("a.csv", b"\n")):
            head = b"text\n" if name == "a.csv" else b""
            lines = [*(line.encode() for line in good), b"20: damaged " + bad + b" here", b"21: the last"]
            status, body = await sender.file(name, head + joint.join(lines))
            assert (status, body["records"]["received"]) == (200, 22), (bad, body)
            assert [result["text"] for result in body["results"]][:20] == good
            assert body["results"][-1]["text"] == "21: the last"
            assert body["warnings"], bad
