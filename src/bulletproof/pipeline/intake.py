"""Makes items of URLs: which are valid, which came before, what is known of them from earlier runs."""

import logging
import reprlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from bulletproof.errors import InputValidationError, StoreError, classify
from bulletproof.errors.text import one_line
from bulletproof.fetch.address import parse
from bulletproof.pipeline.handing import Carried
from bulletproof.pipeline.items import DONE, ProcessingItem
from bulletproof.pipeline.parts import Parts
from bulletproof.pipeline.seen import SeenUrls
from bulletproof.pipeline.source import UrlSource, is_at_hand, pieces


@dataclass(slots=True, eq=False)
class Intake:
    """Turns sources of URLs into items; ``any_scheme`` tells whether others than http and https may be downloaded."""

    parts: Parts
    any_scheme: Callable[[], bool]
    max_retries: int
    logger: logging.Logger

    def place(self, url: Any) -> tuple[str, str]:
        """Return the lane of a URL, and its one spelling; ``InputValidationError`` when it is none."""
        if not isinstance(url, str):
            raise InputValidationError(f"a URL is a text, not {type(url).__name__}")
        try:
            address = parse(url)
        except InputValidationError:
            # A download of somebody's own may know other schemes.
            parts = _split(url) if self.any_scheme() else None
            if parts is None or not parts.scheme or not parts.netloc or parts.scheme in ("http", "https"):
                raise
            return f"host:{parts.netloc}", url
        return f"host:{address.site}", str(address)

    async def items(self, urls: UrlSource, *, recall: bool) -> AsyncIterator[ProcessingItem]:
        """Make the items of a source; one that came before has the code ``duplicate`` and a result that says of what.

        With ``recall`` earlier results are looked for, where many URLs are at hand.
        """
        seen = SeenUrls()
        number = 0
        async for piece in pieces(urls):
            items = [
                url if isinstance(url, ProcessingItem) else ProcessingItem(str(url), max_retries=self.max_retries)
                for url in piece
            ]
            if recall and is_at_hand(urls):
                await self.recall(items)
            for item in items:
                item.key = number if item.key is None else item.key
                number += 1
                try:
                    lane, address = self.place(item.url)
                except InputValidationError:
                    yield item  # the pipeline fails it
                    continue
                item.carry = Carried(lane)
                if not item.is_done and not seen.add(address):
                    item.stage, item.code = DONE, "duplicate"
                    item.result = {"url": item.url, "duplicate_of": address}
                yield item

    async def spelt(self, urls: UrlSource) -> AsyncIterator[str]:
        """Go through the URLs of a source, valid ones in their one spelling."""
        async for piece in pieces(urls):
            for url in piece:
                try:
                    yield self.place(str(url))[1]
                except InputValidationError:
                    yield str(url)

    async def open_items(
        self, batch_id: str, chunks: Collection[int] | None, *, recall: bool
    ) -> AsyncIterator[ProcessingItem]:
        """Go through the items of a batch in the store that are not done."""
        async for items in self.parts.rows.open_items(batch_id, chunks, self.max_retries):
            if recall:
                await self.recall(items)
            for item in items:
                yield item

    async def recall(self, items: Sequence[ProcessingItem], *, owner: str | None = None) -> None:
        """Give items the results of earlier runs; see ``AIProcessingPipeline.recall``."""
        items = [item for item in items if isinstance(item.url, str)]
        try:
            earlier = await self.parts.store.earlier_results([item.url for item in items], owner=owner)
        except StoreError as error:
            self.logger.warning("pages are fetched without asking what has changed: %s", classify(error).code)
            return
        analyzer = self.parts.analyzer.name if earlier else ""
        for item in items:
            found = earlier.get(item.url)
            same = found is not None and found.get("analyzer") == analyzer and "degraded" not in found
            if same and item.result is None:
                item.result = found


def given_url(item: ProcessingItem) -> Any:
    """Return the address as it was given; one that is no text is put into words, to be logged, stored and shown."""
    given: Any = item.url
    if not isinstance(given, str):
        item.url = reprlib.repr(given)
    return given


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:  # such as a bracket that is never closed
        raise InputValidationError(f"that is no URL: {error}", url=one_line(url, limit=200)) from error
