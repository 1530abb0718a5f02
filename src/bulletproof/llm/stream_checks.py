"""Whether a stream of an LLM is whole: SDKs take one that breaks off for one that is done."""

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import Any

from bulletproof.errors import BadResponseError


class StreamCheck:
    """Looks at the items of one stream as they pass; this one knows nothing of them and lets everything pass."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._items = 0

    def see(self, item: Any) -> None:
        """Look at an item; raises ``BadResponseError`` when it is none of such a stream."""

    def end(self) -> None:
        """Look at the end; raises ``BadResponseError`` when the stream has ended before the answer did."""

    def over(self, items: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield the items of a stream and look at all of it, its end included."""
        for item in items:
            self.see(item)
            yield item
        self.end()

    async def over_async(self, items: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        async for item in items:
            self.see(item)
            yield item
        self.end()

    def _count(self, good: bool) -> None:
        if not good:
            raise BadResponseError(f"{self._service} sent a corrupt piece in the stream of its answer")
        self._items += 1

    def _finish(self, whole: bool) -> None:
        if not whole:
            after = f"after {self._items:,} pieces" if self._items else "before it began"
            raise BadResponseError(f"{self._service}: the stream of the answer broke off {after}")


class ChatStreamCheck(StreamCheck):
    """Checks a stream of chat completion chunks: every choice has to give a reason for its end.

    Example:
        >>> check = ChatStreamCheck("llm:8000")
        >>> check.end()
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.BadResponseError: llm:8000: the stream of the answer broke off before it began
    """

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self._ended: dict[Any, bool] = {}

    def see(self, item: Any) -> None:
        choices = getattr(item, "choices", None)
        self._count(isinstance(choices, list))
        for choice in choices or ():
            index = getattr(choice, "index", 0)
            self._ended[index] = self._ended.get(index, False) or bool(getattr(choice, "finish_reason", None))

    def end(self) -> None:
        self._finish(bool(self._ended) and all(self._ended.values()))


class EventStreamCheck(StreamCheck):
    """Checks a stream of typed events, which has to close with one of the types in ``last``."""

    def __init__(self, service: str, *last: str) -> None:
        super().__init__(service)
        self._last = last
        self._done = False

    def see(self, item: Any) -> None:
        kind = getattr(item, "type", None)
        self._count(isinstance(kind, str))
        self._done = self._done or kind in self._last

    def end(self) -> None:
        self._finish(self._done)
