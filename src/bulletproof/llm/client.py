"""An asynchronous client for any OpenAI-compatible server, which answers with a text or a typed error."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

from bulletproof.errors import InputValidationError, classify
from bulletproof.llm.access import NO_KEY, LLMAccess, import_sdk
from bulletproof.llm.dialect import Dialect
from bulletproof.llm.failures import decoding, translating
from bulletproof.llm.pricing import PRICES, Price, Spending
from bulletproof.llm.replies import Completion, check_ending, read_completion
from bulletproof.llm.stream_checks import ChatStreamCheck
from bulletproof.resilience import timeout
from bulletproof.settings import Settings, get_settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

P = ParamSpec("P")
R = TypeVar("R")
Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": "..."}``."""


class Protection(Protocol):
    """What can stand around a call: a ``Policy``, a ``RetryPolicy``, a breaker, or any decorator."""

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]: ...


@dataclass(frozen=True, slots=True)
class LLMCall:
    """A call that has ended, for those who count them.

    Args:
        model: The model that was asked for.
        outcome: ``success``, ``cancelled``, or the code of the failure.
        seconds: How long it took.
        spending: What it took besides.
    """

    model: str
    outcome: str
    seconds: float
    spending: Spending = field(default_factory=Spending)


class LLMClient:
    """Asks an OpenAI-compatible server. The SDK's own retries are off: whoever wants them gives a ``policy``.

    It may be shared between tasks and event loops; close it with ``aclose()`` or use it as ``async with``.

    Args:
        base_url: Such as ``http://localhost:11434/v1``; the public OpenAI service when None.
        api_key: The key; not needed for most servers of one's own.
        model: The model to ask.
        timeout: Seconds one call may take in all.
        options: Further arguments of each chat completion, such as ``{"temperature": 0}``. One that the server
            refuses is left out from then on.
        prices: US dollars for a million tokens by model; others have an unknown cost.
        policy: Stands around each call; judges the SDK's own errors.
        client: A client of the SDK to use instead of one made from the arguments above; it is not closed.
        on_call: Called with each call when it has ended, retries included.

    Raises:
        ConfigurationError: The address is none, there is no key for OpenAI, or the SDK is not installed.

    Example:
        >>> LLMClient("http://localhost:11434/v1", model="llama3.2")
        <LLMClient llama3.2 at localhost:11434>
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str = "gpt-4o-mini",
        *,
        timeout: float = 30.0,
        options: Mapping[str, Any] | None = None,
        prices: Mapping[str, Price] = PRICES,
        policy: Protection | None = None,
        client: "AsyncOpenAI | None" = None,
        on_call: Callable[[LLMCall], None] | None = None,
    ) -> None:
        self.on_call = on_call
        if client is not None:
            base_url, api_key = str(client.base_url), client.api_key or NO_KEY
        self._access = LLMAccess(base_url, api_key, timeout)
        self._sdk = import_sdk()
        self.model = model
        self.prices = prices
        self._policy = policy
        self._given = client.with_options(max_retries=0) if client is not None else None
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncOpenAI] = WeakKeyDictionary()
        self._dialect = Dialect(dict(options if options is not None else {"temperature": 0}))

    @classmethod
    def from_settings(cls, settings: Settings | None = None, **overrides: Any) -> Self:
        """Return a client for the server that the settings name.

        Raises:
            ConfigurationError: They name none that can be asked.
        """
        settings = settings if settings is not None else get_settings()
        key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
        options = {"model": settings.llm_model, "timeout": settings.llm_timeout, **overrides}
        return cls(settings.llm_base_url, key, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model} at {self.host}>"

    @property
    def host(self) -> str:
        """Host and port of the server; names the service in errors and figures."""
        return self._access.host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the client can be used again afterwards."""
        mine = self._clients.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.close()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        schema_name: str = "answer",
        policy: Protection | None = None,
    ) -> Completion:
        """Ask for one answer.

        Args:
            messages: The conversation so far.
            schema: JSON schema that the answer should follow. Servers that do not know schemas are asked for a JSON
                object, or in words alone; so the messages should describe the answer too, and the caller must check it.
            schema_name: Name of the schema.
            policy: Stands around the call instead of the client's own.

        Returns:
            The answer, complete and not empty.

        Raises:
            ServiceUnavailableError: The server cannot be reached, or is in trouble.
            ServiceTimeoutError: It took too long.
            RateLimitedError: It asks to slow down; ``retry_after`` says for how long, if it did.
            ServiceAuthError: It refuses the key.
            BadResponseError: It answered rubbish, nothing, or half an answer.
            InputValidationError: The model or a filter refused (``content_filtered``), or the conversation is too
                long for it (``context_length_exceeded``).
            CircuitOpenError: From the policy.
        """
        policy = policy if policy is not None else self._policy
        ask = self._exchange if policy is None else policy(self._exchange)
        dialect = known = self._dialect
        while True:
            try:
                completion = await ask(messages, dialect.arguments(schema, schema_name))
            except Exception as error:  # noqa: BLE001 -- raised again unless it is about options
                dialect = self._weaker(dialect, error, structured=schema is not None)
            else:
                self._learn(dialect, known)
                return completion

    async def stream(self, messages: Sequence[Message]) -> AsyncGenerator[str]:
        """Ask for an answer and yield it piece by piece; ``timeout`` bounds each silence, not the whole.

        Args:
            messages: The conversation so far.

        Yields:
            Pieces of the text.

        Raises:
            BadResponseError: A piece is corrupt, or the stream ended before the answer did.
            AIError: As for ``complete``. After the first piece nothing is tried again.
        """
        pieces = self._pieces if self._policy is None else self._policy(self._pieces)
        started = False
        dialect = known = self._dialect
        while True:
            try:
                async with aclosing(pieces(messages, dialect.options)) as source:
                    async for piece in source:
                        started = True
                        yield piece
            except Exception as error:
                if started:
                    with translating(self.host):
                        raise
                dialect = self._weaker(dialect, error, structured=False)
            else:
                self._learn(dialect, known)
                return

    async def models(self) -> list[str]:
        """Return the names of the models that the server lists."""
        page = await self._client().models.list()
        found = getattr(page, "data", None)
        return [model.id for model in found or () if isinstance(getattr(model, "id", None), str)]

    def _client(self) -> "AsyncOpenAI":
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # Connections belong to the loop that opened them.
            client = self._clients[loop] = self._sdk.AsyncOpenAI(**self._access.client_options())
        return client

    def _learn(self, dialect: Dialect, known: Dialect) -> None:
        # A call that learnt nothing must not undo what others have learnt meanwhile.
        if dialect is not known:
            self._dialect = dialect

    def _weaker(self, dialect: Dialect, error: Exception, *, structured: bool) -> Dialect:
        """Return what to try instead; raise the error, as one of ours, when it has nothing to do with options."""
        weaker = dialect.weaker(error, structured=structured)
        if weaker is None:
            with translating(self.host):
                raise error
        return weaker

    async def _exchange(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Completion:
        arguments: dict[str, Any] = {"model": self.model, "messages": list(messages), **options}
        started, outcome, spending = time.perf_counter(), "cancelled", Spending()
        try:
            async with timeout(self._access.timeout):
                with _sendable(), decoding(self.host):
                    answer = await self._client().chat.completions.create(**arguments)
            completion = read_completion(answer, self.host, self.model, self.prices)
            outcome, spending = "success", completion.spending
            return completion
        except Exception as error:
            outcome = classify(error).code
            raise
        finally:
            if self.on_call is not None:
                self.on_call(LLMCall(self.model, outcome, time.perf_counter() - started, spending))

    async def _pieces(self, messages: Sequence[Message], options: Mapping[str, Any]) -> AsyncGenerator[str]:
        arguments: dict[str, Any] = {"model": self.model, "messages": list(messages), "stream": True, **options}
        check = ChatStreamCheck(self.host)
        with _sendable(), decoding(self.host):
            async with await self._client().chat.completions.create(**arguments) as source:
                async for chunk in source:
                    check.see(chunk)
                    for choice in chunk.choices[:1]:
                        delta = getattr(choice, "delta", None)
                        check_ending(getattr(choice, "finish_reason", None), getattr(delta, "refusal", None), self.host)
                        piece = getattr(delta, "content", None)
                        if isinstance(piece, str) and piece:
                            yield piece
            check.end()


@contextmanager
def _sendable() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputValidationError(
            "the text holds half of a surrogate pair, which cannot be sent", code="invalid_encoding"
        ) from error
