"""Whether a stream of an LLM is whole: SDKs take one that breaks off for one that is done."""

from typing import Any, Protocol

from bulletproof.errors import BadResponseError


class StreamCheck(Protocol):
    """Looks at the items of one stream as they pass."""

    def see(self, item: Any) -> None:
        """Look at an item.

        Raises:
            BadResponseError: It is no item of such a stream.
        """
        ...

    def end(self) -> None:
        """Look at the end.

        Raises:
            BadResponseError: The stream has ended before the answer did.
        """
        ...


def _broken_off(service: str, items: int) -> BadResponseError:
    after = "before it began" if items == 0 else f"after {items:,} pieces"
    return BadResponseError(f"{service}: the stream of the answer broke off {after}")


class ChatStreamCheck:
    """Checks a stream of chat completion chunks: every choice has to give a reason for its end.

    Args:
        service: Who answers.

    Example:
        >>> check = ChatStreamCheck("llm:8000")
        >>> check.end()
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.BadResponseError: llm:8000: the stream of the answer broke off before it began
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._items = 0
        self._open: set[Any] = set()
        self._ended: set[Any] = set()

    def see(self, item: Any) -> None:
        """Look at a chunk."""
        choices = getattr(item, "choices", None)
        if not isinstance(choices, list):
            raise BadResponseError(f"{self._service} sent a corrupt piece in the stream of its answer")
        self._items += 1
        for choice in choices:
            ended = getattr(choice, "finish_reason", None)
            (self._ended if ended else self._open).add(getattr(choice, "index", 0))

    def end(self) -> None:
        """Look at the end."""
        if not self._ended or self._open - self._ended:
            raise _broken_off(self._service, self._items)


class EventStreamCheck:
    """Checks a stream of typed events, which has to close with a certain one.

    Args:
        service: Who answers.
        *last: Types of the events that close it.
    """

    def __init__(self, service: str, *last: str) -> None:
        self._service = service
        self._last = last
        self._items = 0
        self._done = False

    def see(self, item: Any) -> None:
        """Look at an event."""
        kind = getattr(item, "type", None)
        if not isinstance(kind, str):
            raise BadResponseError(f"{self._service} sent a corrupt piece in the stream of its answer")
        self._items += 1
        self._done = self._done or kind in self._last

    def end(self) -> None:
        """Look at the end."""
        if not self._done:
            raise _broken_off(self._service, self._items)


class NoCheck:
    """Knows nothing of the stream and lets everything pass."""

    def see(self, item: Any) -> None:
        """Let an item pass."""

    def end(self) -> None:
        """Let the end pass."""
