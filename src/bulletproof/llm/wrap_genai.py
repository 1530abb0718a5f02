"""Protection for clients of google-genai: all requests pass four methods of the object beneath."""

import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from json import loads
from typing import Any

from bulletproof.errors import BadResponseError
from bulletproof.llm.failures import decoding
from bulletproof.llm.stream_checks import StreamCheck
from bulletproof.llm.ways import PROTECTED, Shield, Way
from bulletproof.resilience import remaining

_Methods = dict[str, Callable[..., Any]]

_METHODS = ("request", "request_streamed", "async_request", "async_request_streamed")
_MODEL = re.compile(r"\bmodels/[^/:]+(?=:)")


def is_client(client: Any) -> bool:
    """Tell whether it is one: ``google.genai.Client`` or its ``aio``."""
    ours = any(cls.__module__.startswith("google.genai") for cls in type(client).__mro__)
    return ours and hasattr(client, "_api_client")


def host_of(client: Any) -> str:
    url = str(_api(client)._http_options.base_url or "google-genai")  # noqa: SLF001
    return url.partition("://")[2].partition("/")[0] or url


def host_of_another(client: Any, other: Any) -> str:  # noqa: ARG001
    """Return the host of a client that can stand in for another one; raise ``TypeError`` when it cannot."""
    if not is_client(other):
        raise TypeError(f"only a client of google.genai can stand in for this one, not {other!r:.80}")
    return host_of(other)


def protect(client: Any, shield: Shield) -> Any:
    """Protect a client in place."""
    api = _api(client)
    plain = _plain_methods(api)

    def guarded_call(name: str) -> Callable[..., Any]:
        return shield.around(lambda way: _calls(_target(plain, way), way)[name])

    guarded = {name: guarded_call(name) for name in _METHODS}
    stream = guarded["async_request_streamed"]

    async def async_request_streamed(*args: Any, **kwargs: Any) -> Any:
        return stream(*args, **kwargs)

    vars(api).update({**guarded, "async_request_streamed": async_request_streamed})
    vars(client)[PROTECTED] = shield
    return client


def _target(plain: _Methods, way: Way) -> _Methods:
    if way.client is None:
        return plain
    api = _api(way.client)
    return {name: getattr(api, name) for name in _METHODS} if way.policy is None else _plain_methods(api)


# The SDK passes some of the arguments of these by name.
def _calls(methods: _Methods, way: Way) -> _Methods:
    service = way.service

    def fit(http_method: str, path: str, request_dict: Any, http_options: Any = None) -> tuple[Any, ...]:
        if way.model is not None:
            path = _MODEL.sub(f"models/{way.model.removeprefix('models/')}", path)
        return http_method, path, dict(request_dict), _options(http_options)

    def request(*args: Any, **kwargs: Any) -> Any:
        with _decoding(service):
            return _checked(methods["request"](*fit(*args, **kwargs)), service)

    async def async_request(*args: Any, **kwargs: Any) -> Any:
        with _decoding(service):
            return _checked(await methods["async_request"](*fit(*args, **kwargs)), service)

    def request_streamed(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        with _decoding(service):
            asked = fit(*args, **kwargs)
            yield from _check_for(asked[1], service).over(methods["request_streamed"](*asked))

    async def async_request_streamed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        with _decoding(service):
            asked = fit(*args, **kwargs)
            items = await methods["async_request_streamed"](*asked)
            async with aclosing(_check_for(asked[1], service).over_async(items)) as checked:
                async for item in checked:
                    yield item

    return {
        "request": request,
        "request_streamed": request_streamed,
        "async_request": async_request,
        "async_request_streamed": async_request_streamed,
    }


def _checked(response: Any, service: str) -> Any:
    body = getattr(response, "body", None)
    if isinstance(body, str) and body.strip() and body.lstrip()[0] not in "{[":
        raise BadResponseError(f"{service} answered something that is not JSON")
    return response


def _check_for(path: str, service: str) -> StreamCheck:
    return _ContentCheck(service) if "streamGenerateContent" in path else StreamCheck(service)


@contextmanager
def _decoding(service: str) -> Iterator[None]:
    try:
        with decoding(service):
            yield
    except ValueError as error:
        if type(error).__name__ != "UnknownApiResponseError":
            raise
        raise BadResponseError(f"{service} sent a corrupt piece in the stream of its answer") from error


class _ContentCheck(StreamCheck):
    """Checks a stream of contents: a piece has to give the reason for the end."""

    _done = False

    def see(self, item: Any) -> None:
        body = loads(item.body)
        self._count(isinstance(body, dict))
        ended = any(one.get("finishReason") for one in body.get("candidates") or () if isinstance(one, dict))
        self._done = self._done or bool(ended or (body.get("promptFeedback") or {}).get("blockReason"))

    def end(self) -> None:
        self._finish(self._done)


def _plain_methods(api: Any) -> _Methods:
    return {name: getattr(type(api), name).__get__(api) for name in _METHODS}


def _options(given: Any) -> dict[str, Any]:
    """Return the options of one request: without retries, within the time that is left."""
    options = dict(given) if isinstance(given, dict) else given.model_dump(exclude_none=True) if given else {}
    for name in ("retryOptions", "retry_options"):
        options.pop(name, None)
    left = remaining()
    if left is not None:
        milliseconds = max(1, int(left * 1000))
        options["timeout"] = min(options.get("timeout") or milliseconds, milliseconds)
    # An explicit "one attempt" also stops the retry after an error of aiohttp, which none does not.
    return {**options, "retry_options": {"attempts": 1}}


def _api(client: Any) -> Any:
    return client._api_client  # noqa: SLF001
