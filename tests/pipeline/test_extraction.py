"""Text comes out of documents of every kind, and none of them takes more than itself down."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bulletproof.errors import InputValidationError
from bulletproof.pipeline.extraction import Extractor


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    async with Extractor(workers=1) as made:
        yield made


async def test_an_article_comes_with_title_date_author_and_language(extractor: Extractor) -> None:
    paragraph = "<p>The new kettle boils water quickly, and everybody in the office was happy with it.</p>"
    page = (
        "<html><head><title>A kettle</title><meta name='author' content='Jane Doe'>"
        "<meta property='article:published_time' content='2024-03-05T10:00:00Z'></head>"
        f"<body><nav><a href='/'>Start</a></nav><article><h1>A kettle</h1>{paragraph * 4}</article></body></html>"
    )
    found = await extractor.extract(page.encode(), media_type="text/html; charset=utf-8", url="https://example.com/k")
    assert "boils water" in found.text
    assert "Start" not in found.text
    assert (found.title, found.date, found.author) == ("A kettle", "2024-03-05", "Jane Doe")
    assert (found.language, found.method) == ("en", "trafilatura")


async def test_a_page_without_text_is_a_clear_answer(extractor: Extractor) -> None:
    with pytest.raises(InputValidationError) as caught:
        await extractor.extract(b"<html><script>run()</script></html>", media_type="text/html", url="https://e.com/")
    assert (caught.value.code, caught.value.where) == ("empty_text", {"url": "https://e.com/"})
    assert "scripts" in (caught.value.hint or "")


async def test_small_texts_need_no_worker(extractor: Extractor) -> None:
    found = await asyncio.gather(
        extractor.extract("Ein schöner Abend war das.".encode(), media_type="text/plain"),
        extractor.extract(b'{"message": "It was a lovely evening."}', media_type="application/json"),
    )
    assert [(one.language, one.method) for one in found] == [("de", "text"), ("en", "json")]
