"""Doors: so many inside, places adapted to what is borne, small ones not behind large ones, nothing lost."""

import asyncio
import random
from typing import Any

import httpx
import pytest

from bulletproof.errors import OverloadedError
from bulletproof.service import create_app
from bulletproof.service.doors import SMALL, Door, Doors
from bulletproof.settings import Settings


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/process", "uploads"),
        ("POST", "/batches", "batches"),
        ("POST", "/predict", "predictions"),
        ("POST", "/v2/models/iris/infer", "predictions"),
        ("GET", "/results/1", "reads"),
        ("GET", "/batches/1", "reads"),
        ("POST", "/batches/1/pause", None),
        ("GET", "/batches/1/events", "downloads"),
        ("GET", "/health", None),
        ("GET", "/health/ready", None),
        ("GET", "/metrics", None),
        ("GET", "/errors", None),
        ("POST", "/breakers/llm/force-open", None),
    ],
)
def test_each_kind_has_its_door_and_what_operators_need_has_none(method: str, path: str, name: str | None) -> None:
    door = Doors(Settings()).of(method, path)
    assert (door.name if door is not None else None) == name


async def test_no_more_are_let_in_than_there_are_places_and_places_to_wait() -> None:
    door = Door("uploads", places=2, queued=3, sole=frozenset({"local"}))
    for _ in range(5):
        door.admit("local")
    with pytest.raises(OverloadedError, match="all 5 places") as caught:
        door.admit("local")
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    door.leave("local")
    door.admit("local")


async def test_one_of_several_callers_leaves_room_for_the_others() -> None:
    door = Door("uploads", places=4, queued=4)
    for _ in range(6):
        door.admit("flood")
    with pytest.raises(OverloadedError):
        door.admit("flood")
    door.admit("other")


async def test_a_newcomer_takes_the_room_of_the_last_in_the_queue_of_a_flood() -> None:
    door = Door("uploads", places=1, queued=3, sole=frozenset({"flood"}))
    for _ in range(4):
        door.admit("flood")
    taken = await door.enter("flood", 1)
    waiting = [asyncio.create_task(door.enter("flood", 1)) for _ in range(3)]
    await settle()
    door.admit("newcomer")
    await settle()
    assert isinstance(waiting[2].exception(), OverloadedError)
    come = asyncio.create_task(door.enter("newcomer", 1))
    await settle()
    door.give_back("flood", 1, taken, status=200)
    await settle()
    assert waiting[0].done()
    door.give_back("flood", 1, waiting[0].result(), status=200)
    await settle()
    assert come.done()
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)


async def test_a_small_file_does_not_wait_behind_large_ones() -> None:
    door = Door("uploads", places=4, queued=20, sole=frozenset({"local"}))
    large = [asyncio.create_task(door.enter("local", 10 * SMALL)) for _ in range(8)]
    await settle()
    assert sum(task.done() for task in large) == 3
    small = await asyncio.wait_for(door.enter("local", 2000), 1)
    door.give_back("local", 2000, small, status=200)
    await settle()
    assert sum(task.done() for task in large) == 3
    door.give_back("local", 10 * SMALL, large[0].result(), status=200)
    await settle()
    assert sum(task.done() for task in large) == 4
    for task in large:
        task.cancel()
    await asyncio.gather(*large, return_exceptions=True)


async def test_places_become_fewer_when_work_takes_long_and_more_again() -> None:
    now = 0.0
    door = Door("uploads", places=16, queued=64, sole=frozenset({"local"}), clock=lambda: now)
    assert door.turns is not None

    async def round_of(count: int, seconds: float) -> None:
        nonlocal now
        held = [await door.enter("local", 100) for _ in range(min(count, door.turns.max_concurrent))]
        now += seconds
        for began in held:
            door.give_back("local", 100, began, status=200)

    for _ in range(10):
        await round_of(16, 0.01)
    assert door.turns.max_concurrent == 16
    for _ in range(40):
        await round_of(16, 0.5)
    assert door.turns.max_concurrent < 16
    fewest = door.turns.max_concurrent
    assert fewest >= 4
    for _ in range(40):
        await round_of(16, 0.01)
    assert door.turns.max_concurrent > fewest


async def test_no_place_is_lost_whatever_is_cancelled_or_fails() -> None:
    rng = random.Random(3)
    door = Door("uploads", places=3, queued=6)

    async def one(caller: str, size: int) -> None:
        door.admit(caller)
        try:
            began = await door.enter(caller, size)
            try:
                await asyncio.sleep(rng.random() / 500)
            finally:
                door.give_back(caller, size, began, status=rng.choice([200, 422, 503, 504, 0]))
        finally:
            door.leave(caller)

    for _ in range(30):
        tasks = [asyncio.create_task(one(rng.choice("abc"), rng.choice([10, 10 * SMALL]))) for _ in range(15)]
        await asyncio.sleep(rng.random() / 300)
        for task in rng.sample(tasks, 4):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert door.turns is not None
    assert (door.turns.in_use, door.turns.queued, door._total, door._large.in_use) == (0, 0, 0, 0)


@pytest.fixture
async def full(settings: Settings) -> Any:
    app = create_app(settings)
    door = app.state.services.doors.uploads
    for _ in range(door.room):
        door.admit("local")
    async with app.router.lifespan_context(app):
        yield app


async def test_what_is_refused_is_refused_before_its_body_is_read(full: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-length", b"9"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/process", "raw_path": b"/process", "query_string": b"",
             "headers": headers, "client": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}  # fmt: skip
    await full(scope, receive, send)
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
    assert b'"code":"overloaded"' in sent[1]["body"]


async def test_health_metrics_and_other_doors_are_open_while_one_is_full(full: Any, client_of: Any) -> None:
    async with client_of(full) as client:
        refused = await client.post("/process", files={"file": ("t.json", b'["good"]')})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        for path in ("/health/live", "/health/ready", "/metrics", "/models"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.post("/predict", json={"input_data": [5.1, 3.5, 1.4, 0.2]})).status_code == 200


async def test_a_flood_of_refusals_is_one_line_in_the_log(
    full: Any, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(full) as client:
        await asyncio.gather(*(client.post("/process", content=b"x") for _ in range(50)))
    lines = [record for record in caplog.records if "refused" in record.getMessage()]
    assert 1 <= len(lines) <= 3


async def test_whoever_sends_slowly_holds_no_place(app: Any, client_of: Any) -> None:
    door = app.state.services.doors.uploads
    go_on = asyncio.Event()

    async def body() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="t.json"\r\n\r\n["good"]'
        await go_on.wait()
        yield b"\r\n--x--\r\n"

    async with client_of(app) as client:
        slow = asyncio.create_task(
            client.post("/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
        )
        await asyncio.sleep(0.05)
        assert (door._total, door.turns.in_use) == (1, 0)
        go_on.set()
        answer: httpx.Response = await slow
    assert answer.status_code == 200, answer.text
    assert (door._total, door.turns.in_use) == (0, 0)
