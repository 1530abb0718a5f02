"""Text comes out of documents of every kind, and none of them takes more than itself down."""

import asyncio
import io
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof import errors
from bulletproof.errors import AIError, InputValidationError, InvalidFileError, UnsupportedFormatError, classify
from bulletproof.pipeline.content import Kind, decode, kind_of, tidy
from bulletproof.pipeline.extraction import Extractor
from bulletproof.pipeline.readers import read, read_html, read_json, read_pdf

PARAGRAPH = "<p>The new kettle boils water quickly, and everybody in the office was happy with it.</p>"
ARTICLE = (
    "<html><head><title>A kettle</title><meta name='author' content='Jane Doe'>"
    "<meta property='article:published_time' content='2024-03-05T10:00:00Z'></head>"
    f"<body><nav><a href='/'>Start</a></nav><article><h1>A kettle</h1>{PARAGRAPH * 4}</article></body></html>"
)


def pdf(*pages: str, packed: bool = False, title: str | None = None) -> bytes:
    """Write a PDF by hand: one line of text on each page (ISO 32000-1, annex H.3)."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
        stream = zlib.compress(stream) if packed else stream
        filters = b" /Filter /FlateDecode" if packed else b""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(stream), filters, stream))
    info = b""
    if title is not None:
        objects.append(f"<< /Title ({title}) /CreationDate (D:20230102030405Z) >>".encode())
        info = b" /Info %d 0 R" % len(objects)
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, info, start)
    return bytes(out)


def encrypted(body: bytes, password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(body)))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    async with Extractor(workers=1) as made:
        yield made


async def test_documents_of_every_kind_come_with_what_is_known_of_them(extractor: Extractor) -> None:
    page = await extractor.extract(ARTICLE.encode(), media_type="text/html; charset=utf-8", url="https://e.com/k")
    assert "boils water" in page.text
    assert "Start" not in page.text
    assert (page.title, page.date, page.author) == ("A kettle", "2024-03-05", "Jane Doe")
    assert (page.language, page.method) == ("en", "trafilatura")
    paper = await extractor.extract(
        pdf("The weather was nice today.", "And so it stayed.", packed=True, title="Weather"), media_type=""
    )
    assert (paper.text, paper.title, paper.date) == (
        "The weather was nice today.\nAnd so it stayed.", "Weather", "2023-01-02"
    )  # fmt: skip
    assert (paper.language, paper.method) == ("en", "pdf")
    small = await extractor.extract("Ein schöner Abend war das.".encode(), media_type="text/plain")
    assert (small.text, small.language, small.method) == ("Ein schöner Abend war das.", "de", "text")
    large = await extractor.extract("line of text\n" * 20_000, media_type="text/plain")
    assert large.text.count("\n") == 19_999
    assert (
        await extractor.extract(b'{"message": "A lovely evening."}', media_type="application/json")
    ).method == "json"


async def test_what_cannot_be_read_says_why_and_what_to_do(extractor: Extractor) -> None:
    cases: list[tuple[bytes, str, type[AIError], str, str]] = [
        (b"<html><script>run()</script></html>", "text/html", InputValidationError, "empty_text", "scripts"),
        (pdf(""), "application/pdf", InputValidationError, "empty_text", "OCR"),
        (b"", "text/html", InputValidationError, "empty_text", "text"),
        (b"  \n ", "text/plain", InputValidationError, "empty_text", "text"),
        (b"<html>", "application/pdf", InvalidFileError, "invalid_input", "Correct"),
        (pdf("text")[:200], "application/pdf", InvalidFileError, "invalid_input", "Publish"),
        (encrypted(pdf("secret"), "geheim"), "application/pdf", InvalidFileError, "invalid_input", "password"),
        (b'{"text": ', "application/json", InvalidFileError, "invalid_json", "JSON"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "text/html", UnsupportedFormatError, "unsupported_format", "PDF"),
        (b"GIF89a", "image/gif", UnsupportedFormatError, "unsupported_format", "PDF"),
    ]
    for body, media_type, kind, code, word in cases:
        with pytest.raises(kind) as caught:
            await extractor.extract(body, media_type=media_type, url="https://e.com/x")
        found = classify(caught.value)
        assert (found.code, found.retryable) == (code, False), body[:20]
        assert word in found.hint
        assert caught.value.where["url"] == "https://e.com/x"


async def test_a_pdf_that_opens_without_a_password_is_read(extractor: Extractor) -> None:
    found = await extractor.extract(encrypted(pdf("Free to read."), ""), media_type="application/pdf")
    assert found.text == "Free to read."


async def test_a_document_that_takes_too_long_fails_alone_and_for_good() -> None:
    async with Extractor(workers=1, timeout=1.0) as extractor:
        await extractor.extract(ARTICLE, media_type="text/html")
        deep = b"<html><body>" + b"<div>" * 300_000 + b"bottom"
        with pytest.raises(errors.DeadlineExceededError, match="text extraction took longer than the 1 s") as caught:
            await extractor.extract(deep, media_type="text/html", url="https://e.com/deep")
        assert classify(caught.value).code == "deadline_exceeded"
        assert not classify(caught.value).retryable
        assert (await extractor.extract(pdf("Still here."), media_type="application/pdf")).text == "Still here."


async def test_a_page_on_which_the_first_parser_takes_too_long_is_read_by_the_other() -> None:
    async with Extractor(workers=1, timeout=2.0) as extractor:
        await extractor.extract(ARTICLE, media_type="text/html")
        tangled = b"<html><title>Tangled</title><body>" + b"<p>some words <b>here" * 49_000
        found = await extractor.extract(tangled, media_type="text/html")
        assert (found.method, found.title) == ("selectolax", "Tangled")
        assert found.text.startswith("some words here\nsome words here\n")


@pytest.mark.parametrize(
    ("body", "media_type", "method", "left_out"),
    [
        (b"word " * 300_000, "text/plain", "text", 499_999),
        (b"".join(b"<p>%06d%s" % (n, b" word" * 250) for n in range(1000)), "text/html", "trafilatura", 256_999),
        (b"<i>" * 100_001 + b"word " * 300_000, "text/html", "selectolax", 499_999),
        (b'{"title": "T", "text": "' + b"word " * 300_000 + b'"}', "application/json", "json", 499_999),
        (b"[" + b'"word word ",' * 150_000 + b'"end"]', "application/json", "json", 0),
        (b"word " * 200_000, "text/plain", "text", None),
    ],
    ids=["text", "article", "whole", "json", "leaves", "all"],
)
async def test_a_text_that_is_cut_off_is_said_to_be(
    extractor: Extractor, body: bytes, media_type: str, method: str, left_out: int | None
) -> None:
    found = await extractor.extract(body, media_type=media_type)
    assert (found.method, found.left_out) == (method, left_out)
    assert len(found.text) == 1_000_000 or not left_out


async def test_a_pdf_that_is_not_read_to_its_end_is_said_to_be(extractor: Extractor) -> None:
    page = "word " * 110_000
    found = await extractor.extract(pdf(page, page, "the end"), media_type="application/pdf")
    assert len(found.text) == 1_000_000
    assert found.left_out == 2 * len(page.strip()) + 1 - 1_000_000
    assert (await extractor.extract(pdf("one", "two"), media_type="application/pdf")).left_out is None


async def test_a_document_that_needs_too_much_memory_fails_alone() -> None:
    bomb = pdf("x").replace(b"/F1 12 Tf", b"")  # its one page is replaced by a stream of 300 MB in 300 kB
    stream = zlib.compress(b"BT (word) Tj ET " * (300 * 2**16), 9)
    head, _, rest = bomb.partition(b"<< /Length ")
    bomb = head + b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(stream) + stream + b"\nendstream"
    bomb += rest[rest.index(b"\nendobj") :]
    async with Extractor(workers=1, memory_bytes=48 * 2**20) as extractor:
        for body, media_type in ((b"<p>word</p>" * 2_000_000, "text/html"), (bomb, "application/pdf")):
            with pytest.raises((errors.ResourceError, InvalidFileError)) as caught:
                await extractor.extract(body, media_type=media_type)
            assert classify(caught.value).code in ("out_of_memory", "invalid_input")
            assert not classify(caught.value).retryable
        assert (await extractor.extract(ARTICLE, media_type="text/html")).method == "trafilatura"


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "' + b"&a;" * 99 + b'"><!ENTITY c "'
         + b"&b;" * 99 + b'"><!ENTITY d "' + b"&c;" * 99 + b'">]><html><body><p>&d; Said and done.</p></body></html>',
         "application/xhtml+xml", "Said and done."),
        (b"<html><body>" + b"<p>So many words here.</p>" * 120_000, "text/html", "So many words here."),
        (b"<div>" * 3_000 + b"At the very bottom.", "text/html", "At the very bottom."),
        (b"<rss><channel><item><title>News of the day</title></item></channel></rss>", "application/rss+xml",
         "News of the day"),
        (pdf("In a page of paper.") + b"<html><script>alert(1)</script><p>not this</p>", "text/html",
         "In a page of paper."),
        (b"GIF89a/*<html><p>Neither picture nor script.</p>", "text/html", "Neither picture nor script."),
        (b"[" * 500 + b'"Deep down in it."' + b"]" * 500, "application/json", "Deep down in it."),
        ("<html><body><p>Umlaute: schön über.</p>".encode("cp1252"), "text/html", "schön über"),
        ("<html><body><p>Ничего не было.</p>".encode("cp1251"), "text/html", "Ничего не было."),
        ("<p>Sixteen bits each.</p>".encode("utf-16"), "text/html", "Sixteen bits each."),
    ],
    ids=["laughs", "wide", "deep", "rss", "pdf-html", "gif-html", "json", "cp1252", "cp1251", "utf-16"],
)  # fmt: skip
def test_odd_documents_are_read(body: bytes, media_type: str, expected: str) -> None:
    found = read(kind_of(media_type, body), body, "utf-8", "https://e.com/")
    assert expected in found.text
    assert len(found.text) <= 1_000_000


def test_scripts_menus_and_styles_are_no_text() -> None:
    found = read_html("<nav>Menu</nav><style>p{}</style><div>Good <b>day</b>, all.</div><noscript>No</noscript>")
    assert "Good" in found.text
    assert not any(word in found.text for word in ("Menu", "p{}", "No\n"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"data": {"article": {"title": "T", "body": "<p>All <b>well</b>.</p><p>Bye.</p>"}}}, "All well.\nBye."),
        ([{"review": "Good thing."}, {"review": "Bad thing."}], "Good thing.\nBad thing."),
        ({"id": "a-1", "url": "https://e.com/a", "n": 3, "ok": True, "said": ["One word.", None]}, "One word."),
        ("Just a text.", "Just a text."),
        (
            {"@type": "Article", "articleBody": "So it is.", "author": {"name": "A"}, "publisher": {"name": "P"}},
            "So it is.",
        ),
        (
            {"by": {"body": "Hi."}, "parts": [{"s": "A long part."}, {"s": "And another."}]},
            "Hi.\nA long part.\nAnd another.",
        ),
    ],
)
def test_json_is_read_by_its_fields_else_as_a_whole(value: object, text: str) -> None:
    assert read_json(json.dumps(value)).text == text


def test_encodings_are_believed_only_when_they_are_right() -> None:
    assert decode("naïve".encode(), "ascii") == "naïve"
    assert decode('<meta charset="koi8-r"> мир'.encode("koi8-r"), None).endswith("мир")
    assert decode("日本".encode("shift_jis") * 20, "shift_jis").startswith("日本")
    for nonsense in ("punycode", "hex", "rot13", "\0", "unicode_escape", "no such"):
        assert decode(b"plain \\u0041", nonsense) == "plain \\u0041"
    assert "\0" not in decode(b"one\0two three four", "utf-8")
    damaged = decode(("schön " * 500).encode() + b"\xff" + ("schön " * 500).encode(), "utf-8")
    assert damaged.count("\ufffd") == 1


def test_without_what_decrypts_it_an_encrypted_pdf_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    body = encrypted(pdf("secret"), "")

    def missing(*_: object) -> None:
        raise DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(PdfReader, "decrypt", missing)
    monkeypatch.setattr(PdfReader, "is_encrypted", True)
    with pytest.raises(errors.ConfigurationError) as caught:
        read_pdf(body)
    assert (caught.value.code, "crypto" in (caught.value.hint or "")) == ("missing_dependency", True)


_MARKUP = st.lists(
    st.sampled_from(["<p>", "</p>", "<div>", "<script>", "<![CDATA[", "<!--", "&amp;", "&#0;", "<a href='", "\0", "{",
                     '"', "%PDF-", "[", "]", "text ", "ü", "\ud800"]), max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["html", "json", "text", "pdf"]), st.binary(max_size=400) | _MARKUP)
def test_rubbish_is_read_or_refused_with_a_typed_error(kind: Kind, body: bytes | str) -> None:
    told: list[AIError] = []
    try:
        text = read(kind, body, None, "").text
    except AIError as error:
        told, text = [error], ""
    text.encode()
    assert "\0" not in text
    assert not any(classify(error).retryable for error in told)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_pdf_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(pdf("Some text to find.", "And a second page.", packed=True, title="T"))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(9, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidFileError):
        read_pdf(bytes(body[: data.draw(st.integers(9, len(body)))]))


@given(st.text())
def test_tidying_twice_changes_nothing_more(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    assert all(once.splitlines())


async def test_giving_up_on_a_document_leaves_no_work_behind(extractor: Extractor) -> None:
    await extractor.extract(ARTICLE, media_type="text/html")
    task = asyncio.create_task(extractor.extract(b"<div>" * 300_000, media_type="text/html"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await asyncio.wait_for(extractor.extract(ARTICLE, media_type="text/html"), 10)
    assert found.title == "A kettle"
