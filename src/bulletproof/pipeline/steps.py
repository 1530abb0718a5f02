"""The four stages of an item: what each is called with, and what is kept of what it returns."""

import asyncio
import inspect
from collections.abc import Callable, Collection
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from bulletproof.errors import AIError, InputValidationError, StoreError
from bulletproof.pipeline.handing import Carried, about_page, about_score, about_text, result_of
from bulletproof.pipeline.items import ProcessingItem
from bulletproof.pipeline.parts import Parts

if TYPE_CHECKING:
    from bulletproof.pipeline.pipeline import AIProcessingPipeline

T = TypeVar("T")


class Steps:
    """Calls the stage methods of a pipeline, overridden ones included."""

    def __init__(self, owner: "AIProcessingPipeline", parts: Parts, languages: Collection[str] | None) -> None:
        self._owner = owner
        self._parts = parts
        self._languages = frozenset(languages) if languages is not None else None

    async def download(self, item: ProcessingItem, carried: Carried) -> str | None:
        """Get the page, or learn that it is still the one that is known."""
        content = _expect(str, await self._call(self._owner.download_content, item.url), "download_content")
        page = getattr(content, "page", None)
        if page is not None and page.not_modified and carried.previous is not None:
            self._check_language(item, carried.previous.get("language", "und"))
            item.result = carried.previous | {"not_modified": True}
            carried.next(None)
            return "store"
        carried.known |= about_page(content)
        carried.next(content)
        return None

    async def extract(self, item: ProcessingItem, carried: Carried) -> None:
        """Get the text out of it."""
        text = _expect(str, await self._call(self._owner.extract_text, carried.value), "extract_text")
        if not text.strip():
            raise InputValidationError("no text was found in the document", code="empty_text", url=item.url)
        carried.known |= about_text(text)
        carried.next(text)

    async def analyze(self, item: ProcessingItem, carried: Carried) -> None:
        """Analyse the text, if it is in a language that is wanted."""
        if self._owner.overrides("analyze_sentiment"):
            score = await self._parts.borne(self._call, self._owner.analyze_sentiment, carried.value)
        else:
            score = await self._owner.analyze_sentiment(carried.value or "")
            if carried.size > (most := self._parts.settings.max_text_chars):
                carried.known["analyzed_chars"] = most
        known = about_score(score)
        language = known.get("language", "und")
        if language == "und":
            language = carried.known.get("language", "und")
        self._check_language(item, language)
        carried.known |= known | {"language": language}
        item.result = result_of(item.url, carried.known)
        carried.next(None)

    async def store(self, item: ProcessingItem, carried: Carried) -> None:
        """Store the result."""
        if await self._call(self._owner.store_result, item) is False:
            raise StoreError("store_result returned False: the result was not stored", url=item.url)
        carried.next(None)

    def _check_language(self, item: ProcessingItem, language: str) -> None:
        if self._languages is not None and language not in ("und", *self._languages):
            raise InputValidationError(
                f"the text is in the language {language!r}; wanted are {', '.join(sorted(self._languages))}",
                code="unsupported_language",
                url=item.url,
            )

    async def _call(self, method: Callable[[Any], Any], argument: Any) -> Any:
        """Call a stage method; a plain function runs in a thread, so that the others go on."""
        if inspect.iscoroutinefunction(method):
            return await method(argument)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._parts.threads, copy_context().run, _plain, method, argument)
        return await result if inspect.isawaitable(result) else result


def _plain(method: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return method(argument)
    except (StopIteration, GeneratorExit) as error:  # no future takes the one, the other closes whoever awaits it
        name = getattr(method, "__name__", "a stage")
        raise AIError(f"{name} raised {type(error).__name__}; did it call next() on an empty iterator?") from error


def _expect(kind: type[T], value: Any, method: str) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{method} returned {type(value).__name__}; it must return {kind.__name__}")
    return value
