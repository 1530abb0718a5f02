"""Whatever a server does, the answer is one of our errors that says whether another try makes sense."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors import (
    AccessDeniedError,
    AIError,
    BadResponseError,
    ConfigurationError,
    DeadlineExceededError,
    FileTooLargeError,
    InputValidationError,
    NotFoundError,
    RateLimitedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    UnsupportedFormatError,
    classify,
)
from bulletproof.fetch import Fetcher, FetchLimits, Page
from bulletproof.resilience import deadline
from support.web import Answer, Site


async def failure(fetcher: Fetcher, url: str, kind: type[AIError]) -> AIError:
    with pytest.raises(kind) as caught:
        await fetcher.get(url)
    assert type(caught.value) is kind, repr(caught.value)
    assert caught.value.where["url"]
    assert classify(caught.value).retryable is caught.value.retryable
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (400, InputValidationError, "invalid_input", False),
        (401, AccessDeniedError, "unauthorized", False),
        (402, InputValidationError, "invalid_input", False),
        (403, AccessDeniedError, "forbidden", False),
        (404, NotFoundError, "not_found", False),
        (405, InputValidationError, "invalid_input", False),
        (408, ServiceTimeoutError, "service_timeout", True),
        (409, ServiceUnavailableError, "service_unavailable", True),
        (410, NotFoundError, "not_found", False),
        (418, InputValidationError, "invalid_input", False),
        (425, ServiceUnavailableError, "service_unavailable", True),
        (429, RateLimitedError, "rate_limited", True),
        (451, InputValidationError, "invalid_input", False),
        (500, ServiceUnavailableError, "service_unavailable", True),
        (501, ServiceUnavailableError, "service_unavailable", False),
        (502, ServiceUnavailableError, "service_unavailable", True),
        (503, ServiceUnavailableError, "service_unavailable", True),
        (504, ServiceTimeoutError, "service_timeout", True),
        (520, ServiceUnavailableError, "service_unavailable", True),
        (300, BadResponseError, "bad_response", False),
        (305, BadResponseError, "bad_response", False),
    ],
)
async def test_each_status_means_one_thing(
    web: Site, fetcher: Fetcher, status: int, kind: type[AIError], code: str, retryable: bool
) -> None:
    error = await failure(fetcher, web.url(f"/status/{status}"), kind)
    assert error.code == code
    assert error.retryable is retryable
    assert error.where["http_status"] == status
    assert f"HTTP {status}" in error.message
    assert retryable or "again" not in error.hint.lower()
    assert classify(error).counts_as_failure is not isinstance(error, InputValidationError)


@pytest.mark.parametrize("status", [429, 503])
async def test_the_time_to_wait_is_kept(web: Site, new_fetcher: Callable[..., Fetcher], status: int) -> None:
    fetcher = new_fetcher(now=lambda: datetime(2015, 10, 21, 7, 27, tzinfo=UTC))
    for said, seconds in (("7", 7.0), ("Wed,+21+Oct+2015+07:28:00+GMT", 60.0), ("-1", None), ("soon", None)):
        with pytest.raises(AIError) as caught:
            await fetcher.get(web.url(f"/status/{status}?retry_after={said}"))
        assert caught.value.retry_after == seconds
        assert classify(caught.value).retry_after == seconds


@pytest.mark.parametrize(
    ("path", "kind", "retryable", "says"),
    [
        ("/reset", BadResponseError, True, "not completed"),
        ("/short", BadResponseError, True, "received 500 of 5000 bytes"),
        ("/cut-chunks", BadResponseError, True, "not completed"),
        ("/close", ServiceUnavailableError, True, "disconnected"),
        ("/garbage", BadResponseError, True, "no HTTP"),
        ("/huge-header", BadResponseError, False, "too large or too many"),
        ("/many-headers", BadResponseError, False, "too large or too many"),
        ("/not-gzip", BadResponseError, True, "cannot be unpacked"),
        ("/encoded/gzip?cut=10", BadResponseError, True, "some of it is missing"),
        ("/encoded/deflate?cut=10", BadResponseError, True, "some of it is missing"),
        ("/encoded/br?cut=10", BadResponseError, True, "some of it is missing"),
        ("/encoded/twice", UnsupportedFormatError, False, "packed as 'gzip, gzip'"),
        ("/loop", BadResponseError, False, "in a circle"),
        ("/spiral", BadResponseError, False, "more than 10 times"),
        ("/status/302", BadResponseError, False, "without saying where"),
        ("/never", ServiceTimeoutError, True, "imeout"),
        ("/stall", ServiceTimeoutError, True, "imeout"),
        ("/drip", ServiceTimeoutError, True, "less than 100 bytes per second"),
        ("/drip?pause=0.0001", FileTooLargeError, False, "more than the 50 bytes"),
        ("/endless", FileTooLargeError, False, "more than the"),
        ("/png", UnsupportedFormatError, False, "image/png"),
        ("/lie", UnsupportedFormatError, False, "text/html"),
        ("/untyped-png", UnsupportedFormatError, False, "binary"),
    ],
)
async def test_each_misbehaviour_has_its_error(
    web: Site, new_fetcher: Callable[..., Fetcher], quick: FetchLimits, path: str, kind: type[AIError], retryable: bool,
    says: str,
) -> None:  # fmt: skip
    limits = replace(quick, max_bytes=50) if "pause=0.0001" in path else quick
    error = await failure(new_fetcher(limits=limits), web.url(path), kind)
    assert error.retryable is classify(error).retryable is retryable
    assert says in str(error)
    assert len(str(error)) < 600
    assert retryable or "again" not in error.hint.lower(), error.hint


async def test_nothing_new_is_no_answer_to_who_knows_nothing_yet(web: Site, fetcher: Fetcher) -> None:
    url = web.put("/unasked", lambda _: Answer(b"", 304, None))
    assert "not asked" in str(await failure(fetcher, url, BadResponseError))


async def test_a_length_that_is_too_small_does_not_spoil_the_next_answer(web: Site, fetcher: Fetcher) -> None:
    for _ in range(3):
        with suppress(BadResponseError):  # or cut off where it should end
            assert len((await fetcher.get(web.url("/long"))).body) == 500
        assert b"Report 1" in (await fetcher.get(web.url("/page/1"))).body


@pytest.mark.parametrize("kind", ["untrusted", "expired", "wrong_host"])
async def test_a_certificate_that_is_not_right_is_final(new_web: Any, new_fetcher: Any, kind: str) -> None:
    site = new_web(tls=kind)
    error = await failure(new_fetcher(tls=site.client_context()), site.url("/page/1"), ServiceUnavailableError)
    assert not error.retryable
    assert "certificate" in str(error).lower()
    assert "try again" not in error.hint.lower()
    assert not site.hits


async def test_tls_where_there_is_none_is_an_error_of_the_site(web: Site, fetcher: Fetcher) -> None:
    error = await failure(fetcher, web.url("/").replace("http:", "https:"), ServiceUnavailableError)
    assert error.retryable


async def test_a_site_that_does_not_finish_connecting_is_given_up(new_fetcher: Any, quick: FetchLimits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and says nothing
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        fetcher = new_fetcher(limits=replace(quick, connect_timeout=0.2, read_timeout=60, total_timeout=60))
        assert (await failure(fetcher, url, ServiceTimeoutError)).retryable


async def test_a_good_certificate_is_taken(new_web: Any, new_fetcher: Any) -> None:
    site = new_web(tls="good")
    assert (await new_fetcher(tls=site.client_context()).get(site.url("/page/1"))).status == 200


async def test_nobody_listening_is_worth_another_try(web: Site, fetcher: Fetcher) -> None:
    web.stop()
    error = await failure(fetcher, web.url("/"), ServiceUnavailableError)
    assert error.retryable
    assert "refused" in str(error)


@pytest.mark.parametrize(
    ("number", "kind", "retryable"),
    [
        (socket.EAI_NONAME, NotFoundError, False),
        (socket.EAI_AGAIN, ServiceUnavailableError, True),
        (socket.EAI_FAIL, ServiceUnavailableError, True),
    ],
)
async def test_a_name_that_does_not_exist_is_final_and_one_that_cannot_be_looked_up_is_not(
    new_fetcher: Any, number: int, kind: type[AIError], retryable: bool
) -> None:
    class Resolver:
        async def resolve(self, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(number, "as told")

        async def close(self) -> None:
            pass

    error = await failure(new_fetcher(resolver=Resolver()), "http://some.example/", kind)
    assert error.retryable is retryable
    assert "some.example" in str(error)
    assert error.where["url"] == "http://some.example/"


async def test_the_whole_time_is_bounded(web: Site, new_fetcher: Callable[..., Fetcher], quick: FetchLimits) -> None:
    fetcher = new_fetcher(limits=replace(quick, total_timeout=0.3, min_rate=0))
    started = time.monotonic()
    await failure(fetcher, web.url("/drip?pause=0.01"), ServiceTimeoutError)
    assert time.monotonic() - started < 1.5


async def test_the_deadline_of_the_caller_goes_before(web: Site, fetcher: Fetcher) -> None:
    with pytest.raises(DeadlineExceededError):
        async with deadline(0.1):
            await fetcher.get(web.url("/never"))
    with pytest.raises(DeadlineExceededError), deadline(0.1):
        await fetcher.get(web.url("/never"))
    over = iter([0.0, 0.0, 100.0])
    with pytest.raises(DeadlineExceededError), deadline(5, clock=lambda: next(over, 100.0)):
        await fetcher.get(web.url("/page/1"))
        await fetcher.get(web.url("/page/1"))


async def test_a_cancelled_download_ends_at_once_and_lets_go_of_its_connection(web: Site, fetcher: Fetcher) -> None:
    task = asyncio.create_task(fetcher.get(web.url("/drip?pause=0.01")))
    while not web.active:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(200):
        if not web.active:
            break
        await asyncio.sleep(0.01)
    assert not web.active
    assert (await fetcher.get(web.url("/page/1"))).status == 200


async def test_no_socket_is_left_behind_whatever_happens(web: Site, new_fetcher: Any, quick: FetchLimits) -> None:
    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    fetcher = new_fetcher(limits=replace(quick, read_timeout=0.1, total_timeout=0.5), per_host=0)
    whole = ["/page/1", "/loop", "/png", "/status/404", "/bomb/gzip", "/endless"]
    broken = ["/reset", "/short", "/close", "/never", "/stall", "/garbage"]
    before = handles()
    for _ in range(3):
        urls = [web.url(path) for path in (*whole, *broken)] * 3
        found = await asyncio.gather(*map(fetcher.get, urls), return_exceptions=True)
        assert all(isinstance(each, Page | AIError) for each in found)
    await fetcher.aclose()
    for _ in range(100):
        if not web.active:
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    assert handles() <= before + 2


async def test_a_burst_of_failures_is_over_for_who_tries_again(web: Site, fetcher: Fetcher) -> None:
    url = web.url("/burst/x?fail=2&retry_after=3")
    for _ in range(2):
        assert (await failure(fetcher, url, ServiceUnavailableError)).retry_after == 3
    assert (await fetcher.get(url)).status == 200


async def test_without_aiohttp_the_error_says_what_to_install(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(ConfigurationError) as caught:
        await fetcher.get("http://127.0.0.1/")
    assert caught.value.code == "missing_dependency"
    assert caught.value.hint == "pip install 'bulletproof-ai[pipeline]'"


@pytest.mark.parametrize("agent", ["", "two\r\nlines", "käse"])
def test_a_user_agent_that_cannot_be_sent_is_refused(agent: str) -> None:
    with pytest.raises(ConfigurationError, match="user_agent"):
        Fetcher(user_agent=agent)


@pytest.mark.parametrize("field", ["max_bytes", "total_timeout", "rate_window"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        FetchLimits(**{field: 0})
    FetchLimits(max_redirects=0, min_rate=0)
