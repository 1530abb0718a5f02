"""Extract the text of a document, in a process that can be killed over it."""

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Self

from bulletproof.analysis import Analyzer, AnalyzerChain
from bulletproof.analysis.language import LanguageDetector
from bulletproof.errors import DeadlineExceededError, InputValidationError, ResourceError
from bulletproof.errors.installing import not_installed
from bulletproof.llm import LLMClient, Protection
from bulletproof.pipeline.asking import ask_for_text
from bulletproof.pipeline.content import Kind, decode, kind_of
from bulletproof.pipeline.readers import Found, read, read_simply, warm_up
from bulletproof.workers import WorkerPool

_LIBRARIES = ("pypdf", "selectolax", "trafilatura")
_FIRST_SHARE = 0.75  # of the time allowed, after which a page is left to the simpler parser
_SMALL = 64 * 1024  # bytes of plain text or JSON that are read here rather than sent to a worker
_HINTS = {
    "html": "The page may show its text by scripts only; give the address of the text itself, or configure an LLM.",
    "pdf": "Its pages may be pictures of text: run them through OCR first.",
}

_languages = cache(LanguageDetector)


@dataclass(frozen=True, slots=True)
class Extract:
    """What a document says.

    Args:
        text: Its text, one paragraph a line, at most a million characters.
        title: Its title, if it has one.
        date: When it was published, as ``YYYY-MM-DD`` where that can be told.
        author: Who wrote it.
        language: ISO 639-1 code of the text, ``und`` when it cannot be told.
        method: What found the text: ``trafilatura``, ``selectolax``, ``text``, ``json``, ``pdf`` or ``llm``.
        left_out: Characters beyond the million, at least (of a page that an LLM read: of its source); None when the
            text is all there is.
    """

    text: str
    title: str | None
    date: str | None
    author: str | None
    language: str
    method: str
    left_out: int | None = None


class Extractor:
    """Gets the text out of HTML, plain text, JSON and PDF, whatever the document tries.

    Documents are read in worker processes. One that takes too long, wants too much memory or crashes its worker costs
    only itself; what is small and simple is read on the spot. Close it with ``aclose()`` or use it as ``async with``.

    Args:
        workers: Number of processes; by default one for each core, at most four. They start when first needed.
        timeout: Seconds that one document may take.
        memory_bytes: Bytes that one document may take in its worker.
        llm: Asked for the text of pages in which the parsers find none; what it answers counts only when it is of the
            form asked for and its words are those of the page.
        policy: Stands around a call of it.

    Raises:
        ConfigurationError: The parsers are not installed.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with Extractor() as extractor:
        ...         return await extractor.extract(b'{"title": "Tea", "text": "A cup of it, please."}',
        ...             media_type="application/json")
        >>> asyncio.run(main())
        Extract(text='A cup of it, please.', title='Tea', date=None, author=None, language='en', method='json', ...)
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 20.0,
        memory_bytes: int = 512 * 2**20,
        llm: LLMClient | None = None,
        policy: Protection | None = None,
    ) -> None:
        missing = [name for name in _LIBRARIES if find_spec(name) is None]
        if missing:
            raise not_installed(f"what reads documents is not installed: {', '.join(missing)}", "pipeline")
        self._timeout = timeout
        self._llm = llm
        self._policy = policy
        size = workers if workers is not None else min(os.cpu_count() or 1, 4)
        self._pool = WorkerPool(size, name="text extraction", initializer=warm_up, memory_bytes=memory_bytes)

    @classmethod
    def beside(cls, analyzer: Analyzer, **options: Any) -> Self:
        """Return an extractor that may ask the LLM of an analyzer chain, within the same policy; without one, none."""
        if isinstance(analyzer, AnalyzerChain) and analyzer.primary is not None:
            options = {"llm": analyzer.primary.client, "policy": analyzer.policy, **options}
        return cls(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def extract(
        self, body: bytes | str, *, media_type: str, charset: str | None = None, url: str = ""
    ) -> Extract:
        """Extract the text of a document.

        Args:
            body: The document.
            media_type: As in the header ``Content-Type``; empty when unknown.
            charset: What its sender says it is in.
            url: Where it comes from; named in errors.

        Returns:
            What it says; the text is never empty.

        Raises:
            InputValidationError: It holds no text (``empty_text``), is broken or encrypted (an ``InvalidFileError``),
                or is of a kind that is not read (an ``UnsupportedFormatError``).
            DeadlineExceededError: It took too long.
            ResourceError: It needed too much memory (``out_of_memory``), or its worker crashed.
            ExternalServiceError: The LLM was needed and failed.
        """
        try:
            kind = kind_of(media_type, body)
            found = Found("", kind)
            if len(body) <= _SMALL and (kind == "text" or (kind == "json" and not _has_markup(body))):
                found = read(kind, body, charset, url)
            elif body:
                found = await self._read(kind, body, charset, url)
            if not found.text and self._llm is not None and kind == "html" and body:
                found = await ask_for_text(self._llm, decode(body, charset), self._policy) or found
            if not found.text:
                raise InputValidationError(
                    "no text was found in the document", code="empty_text", hint=_HINTS.get(kind)
                )
        except (InputValidationError, ResourceError) as error:
            error.at(url=url or None)
            raise
        language = _languages().detect_batch([found.text])[0]
        return Extract(found.text, found.title, found.date, found.author, language, found.method, found.left_out)

    async def _read(self, kind: Kind, body: bytes | str, charset: str | None, url: str) -> Found:
        """Read a document in a worker; a page over which one died is read more simply in the next."""
        whole = self._timeout
        first = whole * _FIRST_SHARE if kind == "html" else whole
        try:
            return await self._pool.run(read, kind, body, charset, url, timeout=first)
        except ResourceError as error:
            if kind != "html" or error.code == "cancelled":
                raise
            try:
                return await self._pool.run(read_simply, body, charset, timeout=whole - first)
            except DeadlineExceededError as late:
                raise DeadlineExceededError(f"text extraction took longer than the {whole:g} s allowed") from late

    async def aclose(self) -> None:
        """Stop the workers."""
        await self._pool.aclose()


def _has_markup(body: bytes | str) -> bool:
    return "<" in body if isinstance(body, str) else b"<" in body
