"""Protection for clients of openai, anthropic and other SDKs that Stainless generates: all requests pass one method."""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from functools import partial
from itertools import chain
from typing import Any

from bulletproof.llm.failures import decoding
from bulletproof.llm.stream_checks import ChatStreamCheck, EventStreamCheck, StreamCheck
from bulletproof.llm.ways import PROTECTED, Shield, Way
from bulletproof.resilience import remaining

_END = object()
_NO_STREAM = object()


def is_client(client: Any) -> bool:
    return all(hasattr(type(client), part) for part in ("request", "copy", "with_options", "base_url"))


def host_of(client: Any) -> str:
    """Return host and port of a client."""
    return str(client.base_url.netloc, "ascii", "replace")


def host_of_another(client: Any, other: Any) -> str:
    """Return host and port of a client that can stand in for another one; raise ``TypeError`` when it cannot."""
    family, kind = _family(client), "an asynchronous" if _waits(client) else "a plain"
    if not is_client(other) or _family(other) != family or _waits(other) != _waits(client):
        raise TypeError(f"only {kind} client of {family} can stand in for this one, not {other!r:.80}")
    return host_of(other)


def protect(client: Any, shield: Shield) -> Any:
    """Return a protected copy of a client."""
    return _install(_quiet(client), shield)


def _install(client: Any, shield: Shield) -> Any:
    """Put a shield around the one method that all requests pass, and around copies made later."""
    plain = client.request
    asking, streaming, opening = (_ask_async, _stream_async, _open_async) if _waits(client) else (_ask, _stream, _open)

    def ask(way: Way) -> Callable[..., Any]:
        return asking(_target(plain, way), way)

    usually, without_model, once = shield.around(ask), shield.same.around(ask), shield.once.around(ask)
    open_stream = partial(opening, shield.around(lambda way: streaming(_target(plain, way), way)))

    def request(cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        options = _repeatable(client, options)
        if stream:
            return open_stream(cast_to, options, stream_cls)
        call = once if _is_upload(options) else usually if _names_model(options) else without_model
        return call(cast_to, options)

    def copy(**options: Any) -> Any:
        return _install(_quiet(client, **options), shield)

    vars(client).update({"request": request, "copy": copy, "with_options": copy, PROTECTED: shield})
    return client


def _target(plain: Callable[..., Any], way: Way) -> Callable[..., Any]:
    if way.client is None:
        return plain
    client: Any = way.client if way.policy is None else _quiet(way.client)
    return client.request  # type: ignore[no-any-return]


def _ask(plain: Callable[..., Any], way: Way) -> Callable[..., Any]:
    def ask(cast_to: Any, options: Any) -> Any:
        with decoding(way.service):
            return plain(cast_to, _fit(options, way.model))

    return ask


def _ask_async(plain: Callable[..., Any], way: Way) -> Callable[..., Any]:
    async def ask(cast_to: Any, options: Any) -> Any:
        with decoding(way.service):
            return await plain(cast_to, _fit(options, way.model))

    return ask


def _stream(plain: Callable[..., Any], way: Way) -> Callable[..., Any]:
    def stream(cast_to: Any, options: Any, stream_cls: Any, opened: list[Any]) -> Generator[Any, None, None]:
        with decoding(way.service):
            source = plain(cast_to, _fit(options, way.model), stream=True, stream_cls=stream_cls)
            opened[:] = [source]
            if not hasattr(source, "_iterator"):  # a raw response, which the caller reads
                yield _NO_STREAM
                return
            # What the stream itself iterates over.
            yield from _check_for(options.url, way.service).over(source._iterator)  # noqa: SLF001

    return stream


def _stream_async(plain: Callable[..., Any], way: Way) -> Callable[..., Any]:
    async def stream(cast_to: Any, options: Any, stream_cls: Any, opened: list[Any]) -> AsyncGenerator[Any, None]:
        with decoding(way.service):
            source = await plain(cast_to, _fit(options, way.model), stream=True, stream_cls=stream_cls)
            opened[:] = [source]
            if not hasattr(source, "_iterator"):
                yield _NO_STREAM
                return
            async with aclosing(_check_for(options.url, way.service).over_async(source._iterator)) as items:  # noqa: SLF001
                async for item in items:
                    yield item

    return stream


def _fit(options: Any, model: str | None) -> Any:
    """Return the options of a request for a try: for that model, without retries, within the time that is left."""
    changes: dict[str, Any] = {"max_retries": 0}
    if model is not None and _names_model(options):
        changes["json_data"] = {**options.json_data, "model": model}
    left = remaining()
    if left is not None:
        own = options.timeout
        changes["timeout"] = min(own, left) if isinstance(own, int | float) else left
    return options.model_copy(update=changes)


def _open(stream: Callable[..., Any], cast_to: Any, options: Any, stream_cls: Any) -> Any:
    opened: list[Any] = []
    items = stream(cast_to, options, stream_cls, opened)
    first = next(items, _END)
    return opened[0] if first is _NO_STREAM else _carried(opened[0], first, items)


async def _open_async(stream: Callable[..., Any], cast_to: Any, options: Any, stream_cls: Any) -> Any:
    opened: list[Any] = []
    items = stream(cast_to, options, stream_cls, opened)
    first = await anext(items, _END)
    return opened[0] if first is _NO_STREAM else _carried_async(opened[0], first, items)


def _carried(stream: Any, first: Any, items: Generator[Any, None, None]) -> Any:
    """Let a stream of the SDK give what comes through the shield."""

    def close() -> None:
        items.close()
        plainly()

    plainly = stream.close
    whole = items if first is _END else chain((first,), items)
    vars(stream).update({"_iterator": whole, "close": close})
    return stream


def _carried_async(stream: Any, first: Any, items: AsyncGenerator[Any, None]) -> Any:
    async def whole() -> AsyncGenerator[Any, None]:
        if first is not _END:
            yield first
            async for item in items:
                yield item

    async def close() -> None:
        await items.aclose()
        await plainly()

    plainly = stream.close
    vars(stream).update({"_iterator": whole(), "close": close})
    return stream


def _check_for(url: Any, service: str) -> StreamCheck:
    path = str(url).partition("?")[0].rstrip("/")
    if path.endswith("/completions"):
        return ChatStreamCheck(service)
    if path.endswith("/responses"):
        return EventStreamCheck(service, "response.completed", "response.failed", "response.incomplete", "error")
    if path.endswith("/messages"):
        return EventStreamCheck(service, "message_stop")
    return StreamCheck(service)


def _repeatable(client: Any, options: Any) -> Any:
    """Give all tries of a request the same idempotency key, as the SDK does for its own."""
    if options.idempotency_key is None and options.method.lower() != "get":
        return options.model_copy(update={"idempotency_key": client._idempotency_key()})  # noqa: SLF001
    return options


def _names_model(options: Any) -> bool:
    return isinstance(options.json_data, dict) and "model" in options.json_data


def _is_upload(options: Any) -> bool:
    # A file that has been read is at its end and would be sent empty the second time.
    return bool(options.files) or not isinstance(getattr(options, "content", None), bytes | bytearray | None)


def _quiet(client: Any, **options: Any) -> Any:
    """Return an unprotected copy without retries of its own."""
    return type(client).copy(client, **{**options, "max_retries": 0})


def _waits(client: Any) -> bool:
    return inspect.iscoroutinefunction(type(client).request)


def _family(client: Any) -> str:
    owner = next(cls for cls in type(client).__mro__ if "request" in vars(cls))
    return owner.__module__.partition(".")[0]
