"""Batches of URLs: made whole or not at all, saved by whoever may, counted and changed in steps that are allowed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bulletproof.errors import AIError, InputValidationError, NotFoundError
from bulletproof.store import BatchStore, ItemRow, ResultStore


@pytest.fixture
def batches(store: ResultStore, wall: Any) -> BatchStore:
    return BatchStore(store.access, now=wall)


def urls(count: int) -> list[str]:
    return [f"https://host{number % 7}.example/page/{number}" for number in range(count)]


def ended(item: ItemRow, status: str = "success", **more: Any) -> ItemRow:
    item.status, item.stage = status, "done" if status == "success" else "download"
    item.attempts = {"download": sum(item.attempts.values()) + 1}
    for name, value in more.items():
        setattr(item, name, value)
    return item


async def test_a_batch_holds_each_url_once_in_its_order(batches: BatchStore) -> None:
    batch = await batches.create([*urls(5), *urls(3)], owner="ann", options={"labels": ["a"]}, chunk_size=2)
    assert (batch.status, batch.given, batch.total, batch.duplicates, batch.chunks) == ("queued", 8, 5, 3, 4)
    assert (batch.owner, batch.options) == ("ann", {"labels": ["a"]})
    assert [item.url for chunk in range(4) for item in await batches.chunk_items(batch.id, chunk)] == urls(5)
    assert [item.host for item in await batches.items(batch.id, limit=2)] == ["host0.example", "host1.example"]


async def test_urls_may_come_from_an_async_iterator(batches: BatchStore) -> None:
    async def source() -> AsyncIterator[str]:
        for url in urls(4500):
            yield url

    batch = await batches.create(source())
    assert (batch.total, (await batches.counts(batch.id)).by_status["pending"]) == (4500, 4500)


async def test_nobody_sees_a_batch_that_is_being_made(batches: BatchStore) -> None:
    seen: list[int] = []

    async def source() -> AsyncIterator[str]:
        for url in urls(2500):
            yield url
        seen.append(len(await batches.batches()))

    await batches.create(source())
    assert seen == [0]
    assert len(await batches.batches()) == 1


async def test_a_key_leads_to_the_same_batch_and_never_to_another(batches: BatchStore) -> None:
    first = await batches.create(urls(3), owner="ann", key="k1", options={"a": 1})
    assert await batches.create(iter(urls(3)), owner="ann", key="k1", options={"a": 1}) == first
    for other, options in ((urls(4), {"a": 1}), (urls(3), {"a": 2}), (list(reversed(urls(3))), {"a": 1})):
        with pytest.raises(InputValidationError) as caught:
            await batches.create(other, owner="ann", key="k1", options=options)
        assert caught.value.code == "conflict"
    assert (await batches.create(urls(9), owner="bob", key="k1")).id != first.id


async def test_makers_that_race_with_one_key_get_one_batch(batches: BatchStore) -> None:
    made = await asyncio.gather(*(batches.create(urls(2100), key="same") for _ in range(4)))
    assert len({batch.id for batch in made}) == 1
    assert len(await batches.batches()) == 1


async def test_saving_twice_shows_once_and_a_terminal_item_stays_as_it_is(batches: BatchStore) -> None:
    batch = await batches.create(urls(3))
    items = await batches.chunk_items(batch.id, 0)
    done = [ended(item, result={"score": 0.5}, seconds={"download": 0.25}) for item in items[:2]]
    assert await batches.save(batch.id, done) == "queued"
    await batches.save(batch.id, done)
    stale = await batches.items(batch.id, limit=1)
    await batches.save(batch.id, [ended(stale[0], "failed", code="service_timeout", result=None)])
    found = await batches.items(batch.id)
    assert [item.status for item in found] == ["success", "success", "pending"]
    assert found[0].result == {"score": 0.5}
    assert (found[0].seconds, found[0].attempts) == ({"download": 0.25}, {"download": 1})
    assert [item.position for item in await batches.chunk_items(batch.id, 0)] == [2]


async def test_somebody_elses_batch_is_not_found(batches: BatchStore) -> None:
    batch = await batches.create(urls(1), owner="ann")
    assert (await batches.batch(batch.id, owner="ann")).id == batch.id
    for wrong in (batches.batch(batch.id, owner="bob"), batches.counts("nope"), batches.save("nope", [])):
        with pytest.raises(NotFoundError):
            await wrong


async def test_failed_items_are_pending_again_and_old_writers_are_not_heard(batches: BatchStore) -> None:
    batch = await batches.create(urls(4))
    items = await batches.chunk_items(batch.id, 0)
    codes = ["not_found", "service_timeout", "service_timeout"]
    failed = [ended(item, "failed", code=code) for item, code in zip(items, codes, strict=False)]
    await batches.save(batch.id, [*failed, ended(items[3])])
    assert await batches.finish(batch.id)
    assert (await batches.counts(batch.id)).by_code == {"not_found": 1, "service_timeout": 2}
    assert await batches.retry_failed(batch.id, codes=["service_timeout"]) == 2
    assert (await batches.batch(batch.id)).status == "queued"
    assert await batches.open_chunks(batch.id) == [0]
    await batches.save(batch.id, failed)  # of a process that was only slow
    assert [item.status for item in await batches.items(batch.id)] == ["failed", "pending", "pending", "success"]
    again = [ended(item) for item in await batches.chunk_items(batch.id, 0)]
    await batches.save(batch.id, again)
    assert await batches.finish(batch.id)
    assert (await batches.counts(batch.id)).by_status["success"] == 3


async def test_status_changes_only_as_it_may(batches: BatchStore) -> None:
    batch = await batches.create(urls(1))
    for status in ("running", "paused", "paused", "queued", "cancelled", "cancelled"):
        assert (await batches.set_status(batch.id, status)).status == status
    with pytest.raises(AIError) as caught:
        await batches.set_status(batch.id, "running")
    assert caught.value.code == "conflict"
    assert "cancelled" in str(caught.value)


async def test_what_was_half_made_or_deleted_is_swept(batches: BatchStore, wall: Any) -> None:
    async def broken() -> AsyncIterator[str]:
        for url in urls(2500):
            yield url
        raise RuntimeError("the list cannot be read on")

    with pytest.raises(RuntimeError):
        await batches.create(broken())
    kept = await batches.create(urls(6000))
    assert await batches.sweep() == 0
    wall.forward(hours=2)
    assert await batches.sweep() == 1
    await batches.delete(kept.id)
    with pytest.raises(NotFoundError):
        await batches.batch(kept.id)
