"""Rate limits and quotas: per key and per address, told in headers, shared by all processes."""

import math
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bulletproof.errors import TooManyRequestsError
from bulletproof.service import create_app
from bulletproof.service.callers import Callers
from bulletproof.service.keys import create_key, key_ring
from bulletproof.service.quota import DAY, MINUTE, Limit, Meter
from bulletproof.settings import Settings
from bulletproof.store import ResultStore, SqlUsage, Used

Clients = Callable[..., httpx.AsyncClient]


class Now:
    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=200),
    st.integers(1, 20),
)
def test_never_more_than_twice_the_quota_in_any_window_and_always_again_after_the_wait(
    pauses: list[float], quota: int
) -> None:
    now = Now()
    meter, admitted = Meter([Limit("requests", quota, MINUTE)], now=now), []
    for pause in pauses:
        now.at += pause
        try:
            meter.admit("alice")
            admitted.append(now.at)
        except TooManyRequestsError as refusal:
            wait = refusal.retry_after or 0
        else:
            wait = None
        if wait is not None:
            assert 0 < wait <= 2 * MINUTE
            later = Meter([Limit("requests", quota, MINUTE)], now=Now(now.at + wait + 1e-6))
            later.learn(meter.counted())
            later.admit("alice")
        last_minute = [at for at in admitted if at > now.at - MINUTE]
        assert len(last_minute) <= 2 * quota


@given(
    st.lists(st.tuples(st.floats(0, 20_000), st.integers(0, 1000)), min_size=1, max_size=50),
    st.integers(1000, 3000),
)
def test_after_the_wait_that_header_and_error_agree_on_the_same_request_is_admitted(
    sent: list[tuple[float, int]], quota: int
) -> None:
    limits, now = [Limit("bytes", quota, DAY), Limit("requests", 3, MINUTE)], Now()
    meter = Meter(limits, now=now)
    for pause, size in sent:
        now.at += pause
        try:
            meter.admit("alice", size=size)
            meter.add("alice", "bytes", size)
        except TooManyRequestsError as refusal:
            wait = refusal.retry_after or 0
            told = [int(part) for part in re.findall(r"t=([0-9]+)", meter.headers("alice", size=size)["RateLimit"])]
            assert math.ceil(wait) in told
            later = Meter(limits, now=Now(now.at + math.ceil(wait)))
            later.learn(meter.counted())
            later.admit("alice", size=size)


def test_a_steady_caller_below_the_limit_is_never_refused() -> None:
    now = Now()
    meter = Meter([Limit("requests", 10, MINUTE)], now=now)
    for _ in range(100):
        meter.admit("alice")
        now.at += 6.7


def test_one_callers_use_is_not_anothers() -> None:
    meter = Meter([Limit("requests", 1, MINUTE)], now=Now())
    meter.admit("alice")
    meter.admit("bob")
    with pytest.raises(TooManyRequestsError):
        meter.admit("alice")


def test_what_would_be_too_much_is_refused_before_it_is_sent() -> None:
    meter = Meter([Limit("bytes", 100, DAY)], now=Now())
    meter.admit("alice", size=100)
    with pytest.raises(TooManyRequestsError, match="100 bytes in 86,400 s"):
        meter.admit("alice", size=101)


def test_headers_tell_the_policy_and_what_is_left() -> None:
    meter = Meter([Limit("requests", 3, MINUTE), Limit("bytes", 1000, DAY)], now=Now(30.0))
    meter.admit("alice")
    meter.add("alice", "bytes", 400)
    assert meter.headers("alice") == {
        "RateLimit-Policy": '"requests";q=3;w=60, "bytes";q=1000;w=86400',
        "RateLimit": '"requests";r=2;t=30, "bytes";r=600;t=86370',
    }


def test_memory_stays_bounded_whoever_comes() -> None:
    now = Now()
    meter = Meter([Limit("requests", 3, MINUTE)], now=now)
    for number in range(60_000):
        meter.admit(f"caller {number}")
    assert len(meter.counted()) <= 50_001
    now.at += 1000
    assert meter.counted() == []


async def test_processes_add_up_their_counts(tmp_path: Any) -> None:
    store = ResultStore(data_dir=tmp_path)
    one, other = (SqlUsage(store.access, name) for name in ("one", "other"))
    await one.exchange([Used("alice", "requests", 60.0, 3), Used("bob", "requests", 60.0, 1)], {"alice"}, now=30)
    await one.exchange([Used("alice", "requests", 60.0, 4)], {"alice"}, now=30)
    assert await other.exchange([], {"alice"}, now=30) == [Used("alice", "requests", 60.0, 4)]
    assert await one.exchange([], {"alice"}, now=30) == []
    await other.exchange([Used("alice", "requests", 100_060.0, 1)], {"alice"}, now=100_000)
    assert await one.exchange([], {"alice"}, now=100_000) == [Used("alice", "requests", 100_060.0, 1)]
    await store.aclose()


async def predict(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post("/predict", json={"input_data": [5.1, 3.5, 1.4, 0.2]}, headers=headers)


@pytest.mark.usefixtures("mid_minute")
async def test_a_caller_above_its_rate_is_told_when_to_come_again(settings: Settings, client_of: Clients) -> None:
    settings.requests_per_minute = 2
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        first = await predict(client)
        assert (first.status_code, first.headers["RateLimit-Policy"]) == (200, '"requests";q=2;w=60')
        assert first.headers["RateLimit"].startswith('"requests";r=1;t=')
        await predict(client)
        refused = await predict(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await client.get("/health")).status_code == 200


@pytest.mark.usefixtures("mid_minute")
async def test_limits_hold_for_each_key_and_over_a_restart(settings: Settings, client_of: Clients) -> None:
    settings.requests_per_minute, settings.api_keys = 2, (SecretStr("one"), SecretStr("two"))
    for expected in (200, 429):
        app = create_app(settings)
        async with app.router.lifespan_context(app), client_of(app, peer="192.0.2.7") as client:
            for _ in range(2):
                last = await predict(client, **{"X-API-Key": "one"})
            assert last.status_code == expected
            assert (await client.get("/models", headers={"X-API-Key": "one"})).status_code == 200
    async with client_of(create_app(settings)) as client:
        assert (await predict(client, **{"X-API-Key": "two"})).status_code == 200


async def test_records_are_counted_when_they_are_analysed(settings: Settings, client_of: Clients) -> None:
    settings.records_per_day = 3
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        files = {"file": ("a.json", b'["good", "bad", "fine"]')}
        assert (await client.post("/process", files=files)).status_code == 200
        refused = await client.post("/process", files=files)
        told = int(refused.headers["RateLimit"].partition("t=")[2])
        assert abs(int(refused.headers["Retry-After"]) - told) <= 1  # a second may begin between the two
        assert refused.status_code == 429
        assert "3 records" in refused.json()["details"]


async def test_an_address_that_guesses_keys_is_kept_off(settings: Settings, client_of: Clients) -> None:
    settings.api_keys = (SecretStr("right"),)
    app = create_app(settings)
    async with client_of(app, peer="192.0.2.7") as client, client_of(app, peer="192.0.2.8") as other:
        statuses = [(await client.get("/runs", headers={"X-API-Key": f"wrong {n}"})).status_code for n in range(61)]
        assert statuses == [401] * 60 + [429]
        assert (await client.get("/runs", headers={"X-API-Key": "right"})).status_code == 429
        assert (await other.get("/breakers", headers={"X-API-Key": "right"})).status_code == 200


async def test_wrong_keys_from_one_address_lock_nobody_out_who_has_a_long_one(
    settings: Settings, client_of: Clients
) -> None:
    """Behind a proxy all have its address."""
    _, secret = create_key(settings.keys_path, "shop")
    async with client_of(create_app(settings), peer="192.0.2.7") as client:
        for number in range(61):
            refused = await client.get("/breakers", headers={"X-API-Key": f"a wrong key of some length {number}"})
        assert refused.status_code == 429
        assert (await client.get("/breakers", headers={"X-API-Key": secret})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "bounded"),
    [
        ("POST", "/batches", True),
        ("POST", "/batches/x/retry", True),
        ("POST", "/batches/x/pause", False),
        ("POST", "/batches/x/cancel", False),
        ("DELETE", "/results/x", False),
    ],
)
def test_who_has_used_all_up_may_still_delete_and_cancel(
    settings: Settings, method: str, path: str, bounded: bool
) -> None:
    callers = Callers(key_ring(settings), Meter([Limit("requests", 1, MINUTE)]))
    assert callers.bounds({"method": method, "path": path}) is bounded
