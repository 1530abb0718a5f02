"""How often the service is asked, and what is remembered while it is away."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bulletproof.dashboard.client import Reply
from bulletproof.dashboard.sessions import Session, Sessions
from bulletproof.dashboard.watch import Watch
from bulletproof.dashboard.wording import TYPES, chart
from bulletproof.errors import ServiceUnavailableError


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Api:
    """Answers, or fails while it is down."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[tuple[str, Any]] = []

    async def get(self, path: str, *, key: str | None = None, params: Any = None) -> Reply:
        self.asked.append((path, key))
        if self.down:
            raise ServiceUnavailableError("cannot reach the service at http://x")
        return Reply(200, {"status": "healthy"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def watch(api: Api, clock: Clock) -> Watch:
    return Watch(api, Session("k"), clock=clock, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]


async def test_it_asks_with_the_key_of_the_session(watch: Watch, api: Api) -> None:
    await watch.look()
    assert {path for path, _ in api.asked} == {"/health", "/metrics", "/runs", "/kept"}
    assert {key for _, key in api.asked} == {"k"}


async def test_while_the_service_is_away_it_asks_less_and_less_often(watch: Watch, api: Api, clock: Clock) -> None:
    api.down = True
    waits = []
    for _ in range(7):
        await watch.look()
        waits.append(watch.wait)
        clock.at += watch.wait
    assert waits == [4, 8, 16, 30, 30, 30, 30]


async def test_nothing_is_asked_before_it_is_time(watch: Watch, api: Api, clock: Clock) -> None:
    api.down = True
    await watch.look()
    asked = len(api.asked)
    clock.at += watch.wait / 2
    await watch.look()
    assert len(api.asked) == asked


async def test_the_last_picture_stays_while_the_service_is_away(watch: Watch, api: Api, clock: Clock) -> None:
    await watch.look()
    api.down = True
    clock.at += 2
    await watch.look()
    assert watch.picture is not None
    assert watch.trouble is not None
    assert watch.trouble.code == "service_unavailable"


async def test_it_recovers_by_itself(watch: Watch, api: Api, clock: Clock) -> None:
    api.down = True
    await watch.look()
    api.down = False
    clock.at += watch.wait
    await watch.look()
    assert (watch.trouble, watch.failures) == (None, 0)


class TestSessions:
    def test_a_session_ends_after_its_lifetime(self, clock: Clock) -> None:
        sessions = Sessions(lifetime=60, clock=clock)
        token = sessions.open("k")
        session = sessions.find(token)
        assert session is not None
        clock.at += 60
        assert sessions.find(token) is None
        assert (session.alive, session.key) == (False, None)

    def test_their_number_is_bounded(self, clock: Clock) -> None:
        sessions = Sessions(most=2, clock=clock)
        tokens = [sessions.open("k") for _ in range(3)]
        assert [sessions.find(token) is not None for token in tokens] == [False, True, True]

    def test_neither_token_nor_key_shows_in_a_log(self) -> None:
        assert "secret" not in repr(Session("secret"))


class TestChart:
    def test_counts_become_errors_a_minute(self) -> None:
        steps = [{"start": "2026-01-01T00:00:00+00:00", "seconds": 720, "by_type": {"model_error": 24}}]
        series = {row["name"]: row["data"] for row in chart(steps)["series"]}
        assert series["Model"][0][1] == 2

    def test_types_of_others_are_summed_and_never_named(self) -> None:
        hostile = ":renderItem"
        steps = [{"start": "2026-01-01T00:00:00+00:00", "seconds": 60, "by_type": {hostile: 3}}]
        options = chart(steps)
        assert len(options["series"]) == len(TYPES) + 1
        assert options["series"][-1]["data"][0][1] == 3
        assert hostile not in str(options)
