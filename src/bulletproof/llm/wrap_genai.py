"""Protection for clients of google-genai: all requests pass four methods of the object beneath."""

import re
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager
from json import loads
from typing import Any, TypeVar

from bulletproof.errors import BadResponseError
from bulletproof.llm.client import Protection
from bulletproof.llm.failures import decoding
from bulletproof.llm.sink import ErrorSink
from bulletproof.llm.stream_checks import EventStreamCheck, NoCheck, StreamCheck
from bulletproof.llm.ways import PROTECTED, Other, Shield
from bulletproof.resilience import remaining

C = TypeVar("C")

_METHODS = ("request", "request_streamed", "async_request", "async_request_streamed")
_MODEL = re.compile(r"\bmodels/[^/:]+(?=:)")


def is_genai(client: Any) -> bool:
    """Tell whether it is one: ``google.genai.Client`` or its ``aio``."""
    return any(cls.__module__.startswith("google.genai") for cls in type(client).__mro__) and hasattr(
        client, "_api_client"
    )


def protect_genai(
    client: C, policy: Protection | None, fallbacks: Sequence[Any], monitor: ErrorSink | None, service: str | None
) -> C:
    """Protect a client in place; see ``wrap``."""

    def host_of(other: Any) -> str:
        if not is_genai(other):
            raise TypeError(f"only a client of google.genai can stand in for this one, not {other!r:.80}")
        return _host(other)

    shield = Shield.of(service or _host(client), policy, monitor, fallbacks, host_of)
    api = _api(client)
    plain = _plain_methods(api)
    guarded = {name: _guarded(shield, plain, name) for name in _METHODS}
    stream = guarded["async_request_streamed"]

    async def async_request_streamed(*args: Any, **kwargs: Any) -> Any:
        return stream(*args, **kwargs)

    vars(api).update({**guarded, "async_request_streamed": async_request_streamed})
    vars(client)[PROTECTED] = shield
    return client


def _guarded(shield: Shield, plain: dict[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
    return shield.around(lambda other: getattr(_target(plain, shield.service, other), name))


def _target(plain: dict[str, Callable[..., Any]], service: str, other: Other | None) -> "_Target":
    if other is None:
        return _Target(plain, None, service)
    if other.client is None:
        return _Target(plain, other.model, other.service)
    api = _api(other.client)
    methods = _plain_methods(api) if other.policy is not None else {name: getattr(api, name) for name in _METHODS}
    return _Target(methods, other.model, other.service)


class _Target:
    """Where a request can go to.

    Args:
        methods: The unprotected methods of a client, by name.
        model: A model to ask instead of the one in the request.
        service: Names it in errors.
    """

    def __init__(self, methods: dict[str, Callable[..., Any]], model: str | None, service: str) -> None:
        self.methods = methods
        self._model = model
        self._service = service

    def request(self, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        with self._decoding():
            return self._checked(self.methods["request"](*self._fit(http_method, path, request_dict, http_options)))

    async def async_request(self, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        with self._decoding():
            ask = self.methods["async_request"]
            return self._checked(await ask(*self._fit(http_method, path, request_dict, http_options)))

    def request_streamed(
        self, http_method: str, path: str, request_dict: Any, http_options: Any = None
    ) -> Generator[Any, None, None]:
        check = self._check(path)
        with self._decoding():
            for item in self.methods["request_streamed"](*self._fit(http_method, path, request_dict, http_options)):
                check.see(_Piece(item))
                yield item
            check.end()

    async def async_request_streamed(
        self, http_method: str, path: str, request_dict: Any, http_options: Any = None
    ) -> AsyncGenerator[Any, None]:
        check = self._check(path)
        with self._decoding():
            ask = self.methods["async_request_streamed"]
            async for item in await ask(*self._fit(http_method, path, request_dict, http_options)):
                check.see(_Piece(item))
                yield item
            check.end()

    def _fit(self, http_method: str, path: str, request_dict: Any, http_options: Any) -> tuple[Any, ...]:
        if self._model is not None:
            path = _MODEL.sub(f"models/{self._model.removeprefix('models/')}", path)
        return http_method, path, dict(request_dict), _options(http_options)

    def _checked(self, response: Any) -> Any:
        body = getattr(response, "body", None)
        if isinstance(body, str) and body.strip() and body.lstrip()[0] not in "{[":
            raise BadResponseError(f"{self._service} answered something that is not JSON")
        return response

    def _check(self, path: str) -> StreamCheck:
        return EventStreamCheck(self._service, "done") if "streamGenerateContent" in path else NoCheck()

    @contextmanager
    def _decoding(self) -> Any:
        try:
            with decoding(self._service):
                yield
        except ValueError as error:
            if type(error).__name__ != "UnknownApiResponseError":
                raise
            raise BadResponseError(f"{self._service} sent a corrupt piece in the stream of its answer") from error


class _Piece:
    """A piece of a stream as a typed event: ``done`` when it gives the reason for the end."""

    def __init__(self, item: Any) -> None:
        body = loads(item.body)
        self.type: Any = None
        if isinstance(body, dict):
            ended = any(one.get("finishReason") for one in body.get("candidates") or () if isinstance(one, dict))
            blocked = (body.get("promptFeedback") or {}).get("blockReason")
            self.type = "done" if ended or blocked else "piece"


def _plain_methods(api: Any) -> dict[str, Callable[..., Any]]:
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


def _host(client: Any) -> str:
    url = str(_api(client)._http_options.base_url or "google-genai")  # noqa: SLF001
    return url.partition("://")[2].partition("/")[0] or url
