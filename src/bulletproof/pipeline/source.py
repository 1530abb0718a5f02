"""Where URLs come from: lists, iterators, async iterators, files."""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence, Sized
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from bulletproof.errors import InputValidationError
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.url_lists import listed_urls

T = TypeVar("T")
UrlSource = Iterable[Any] | AsyncIterable[Any] | str | os.PathLike[str]
_PIECE = 500
_log = logging.getLogger("bulletproof.pipeline")


def expected(source: Any) -> int | None:
    """Return how many there will be, if that can be told beforehand."""
    if isinstance(source, str):
        return 1 if "://" in source else None
    return len(source) if isinstance(source, Sized) else None


async def each(source: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Go through a plain or an async iterable."""
    if isinstance(source, AsyncIterable):
        async for one in source:
            yield one
    else:
        for one in source:
            yield one


def is_at_hand(source: Any) -> bool:
    """Whether many can be had at once, without waiting for whoever makes them."""
    return isinstance(source, Sized | os.PathLike)


async def pieces(source: UrlSource) -> AsyncIterator[Sequence[Any]]:
    """Go through URLs in pieces: those of an iterable, the lines of a file, or the one that a string is.

    Of a file, read in threads, empty lines and those that begin with ``#`` are left out; see ``listed_urls``.
    """
    if isinstance(source, str) and "://" in source:
        yield [source]
    elif isinstance(source, str | os.PathLike):
        async for urls in _listed(Path(source)):
            yield urls
    elif isinstance(source, Sequence) and not isinstance(source, bytes):
        for first in range(0, len(source), _PIECE):
            yield source[first : first + _PIECE]
    elif isinstance(source, Iterable | AsyncIterable) and not isinstance(source, bytes):
        async for one in each(source):
            yield [one]
    else:
        raise InputValidationError(
            f"URLs have to be a list, an iterator or the path of a file, not {type(source).__name__}"
        )


async def _listed(path: Path) -> AsyncIterator[list[str]]:
    notes = Notes()
    with closing(listed_urls(path, notes)) as lines:
        while (urls := await asyncio.to_thread(next, lines, None)) is not None:
            yield urls
    for warning in notes.texts:
        _log.warning("the file of URLs %r: %s", str(path), warning)
