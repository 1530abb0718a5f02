"""Batches of URLs: made whole or not at all, saved by whoever may, counted and changed in steps that are allowed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bulletproof.errors import AIError, InputValidationError, NotFoundError
from bulletproof.store import BatchStore, ItemRow, ResultStore
from bulletproof.store.tables import batch_made


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


async def test_urls_with_one_spelling_are_one_item_that_is_saved_as_such(batches: BatchStore) -> None:
    batch = await batches.create(["A", "b", "a"], spelling=str.lower)
    assert (batch.total, batch.duplicates) == (2, 1)
    items = await batches.chunk_items(batch.id, 0)
    await batches.save(batch.id, [ended(item) for item in items])
    saved = await batches.items(batch.id)
    assert [(item.position, item.url, item.status) for item in saved] == [(0, "A", "success"), (1, "b", "success")]


async def test_nobody_sees_a_batch_that_is_being_made_of_an_async_iterator(batches: BatchStore) -> None:
    seen: list[int] = []

    async def source() -> AsyncIterator[str]:
        for url in urls(2500):
            yield url
        seen.append(len(await batches.batches()))

    batch = await batches.create(source())
    assert seen == [0]
    assert [one.id for one in await batches.batches()] == [batch.id]
    assert (batch.total, (await batches.counts(batch.id)).by_status["pending"]) == (2500, 2500)


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


async def test_items_come_in_pages_by_status_and_code(batches: BatchStore) -> None:
    batch = await batches.create(urls(30), chunk_size=10)
    items = await batches.items(batch.id)
    failed = [ended(item, "failed", code=("not_found", "service_timeout")[item.position % 2]) for item in items[:20]]
    waiting = [ended(item, "retrying", code="rate_limited", stage="analyze") for item in items[20:22]]
    await batches.save(batch.id, [*failed, *waiting])
    page = await batches.items(batch.id, status="failed", code="not_found", limit=4)
    assert [item.position for item in page] == [0, 2, 4, 6]
    page = await batches.items(batch.id, status="failed", code="not_found", after=page[-1].position, limit=100)
    assert [item.position for item in page] == [8, 10, 12, 14, 16, 18]
    counts = await batches.counts(batch.id)
    assert counts.by_status == {"pending": 8, "in_progress": 0, "retrying": 2, "success": 0, "failed": 20}
    assert (counts.by_stage, counts.by_code) == (
        {"download": 28, "analyze": 2}, {"not_found": 10, "service_timeout": 10}
    )  # fmt: skip
    assert counts.retrying_by_code == {"rate_limited": 2}
    assert await batches.open_chunks(batch.id) == [2]
    assert len([item async for item in batches.stream_results(batch.id)]) == 30
    for wrong in ({"status": "lost"}, {"limit": 0}):
        with pytest.raises(InputValidationError):
            await batches.items(batch.id, **wrong)


async def test_batches_are_listed_by_owner_and_status(batches: BatchStore) -> None:
    made = [await batches.create(urls(1), owner=owner) for owner in ("ann", "bob", "ann")]
    await batches.set_status(made[0].id, "cancelled")
    assert [batch.id for batch in await batches.batches(owner="ann")] == [made[2].id, made[0].id]
    assert [batch.id for batch in await batches.batches(status="queued", limit=1, offset=1)] == [made[1].id]


async def test_any_text_may_stand_for_a_url_and_comes_back(batches: BatchStore) -> None:
    odd = ["", "not a url", "https://e.com/" + "x" * 20_000, "https://e.com/\0", "https://e.com/\ud800", "http://[::1"]
    batch = await batches.create(odd)
    items = await batches.items(batch.id)
    assert [item.url for item in items[:3]] == odd[:3]
    assert batch.total == 6
    done = [ended(item, "failed", code="blocked_url", error="half \ud800 and \0 NUL", result=None) for item in items]
    await batches.save(batch.id, done)
    assert await batches.finish(batch.id)
    assert (await batches.items(batch.id))[0].error == "half ? and \ufffd NUL"


async def test_moments_and_numbers_come_back_as_they_were(batches: BatchStore, wall: Any) -> None:
    batch = await batches.create(urls(1))
    item = (await batches.items(batch.id))[0]
    item.status, item.not_before, item.priority, item.retry_count = "retrying", wall() + timedelta(seconds=90), 7, 2
    item.attempts, item.seconds = {"download": 2, "extract": 1}, {"download": 1.5}
    item.result = {"score": float("nan"), "when": wall(), "list": [1, "two"]}
    wall.forward(seconds=5)
    await batches.save(batch.id, [item])
    found = (await batches.items(batch.id))[0]
    assert (found.not_before, found.updated_at) == (item.not_before, wall())
    assert (found.priority, found.retry_count, found.attempts, found.seconds) == (7, 2, item.attempts, item.seconds)
    assert found.result == {"score": None, "when": "2030-01-01T00:00:00+00:00", "list": [1, "two"]}


async def test_what_is_known_of_a_page_is_found_by_its_owner_alone(batches: BatchStore, wall: Any) -> None:
    batch = await batches.create(urls(2), owner="ann")
    items = await batches.items(batch.id)
    await batches.save(
        batch.id, [ended(items[0], result={"etag": '"1"', "score": 1}), ended(items[1], result={"a": 1})]
    )
    assert await batches.earlier_results(urls(3), owner="ann") == {urls(1)[0]: {"etag": '"1"', "score": 1}}
    assert await batches.earlier_results(urls(3), owner="bob") == await batches.earlier_results([]) == {}
    later = await batches.create(urls(1), owner="ann")
    await batches.save(later.id, [ended((await batches.items(later.id))[0], result={"etag": '"2"'})])
    assert (await batches.earlier_results(urls(1), owner="ann"))[urls(1)[0]] == {"etag": '"2"'}
    wall.forward(days=40)
    await batches.sweep(retention=timedelta(days=30))
    assert await batches.earlier_results(urls(3), owner="ann") == {}


async def test_finished_batches_are_swept_after_their_time_and_their_key_is_free(
    batches: BatchStore, wall: Any
) -> None:
    done, open_ = await batches.create(urls(1), key="a"), await batches.create(urls(1), key="b")
    await batches.save(done.id, [ended((await batches.items(done.id))[0])])
    assert await batches.finish(done.id)
    wall.forward(days=31)
    assert await batches.sweep() == 0
    assert await batches.sweep(retention=timedelta(days=30)) == 1
    assert [batch.id for batch in await batches.batches()] == [open_.id]
    assert (await batches.create(urls(2), key="a")).total == 2
    await batches.delete(open_.id)
    assert (await batches.create(urls(3), key="b")).total == 3


async def test_items_may_be_added_to_a_batch_that_was_made_empty(batches: BatchStore) -> None:
    batch = await batches.create([])
    await batches.save(batch.id, [ended(ItemRow(position=number, url=url)) for number, url in enumerate(urls(3))])
    await batches.save(batch.id, [ended(ItemRow(position=9, url=urls(1)[0]))])
    assert await batches.finish(batch.id)
    found = await batches.batch(batch.id)
    assert (found.given, found.total, found.status) == (3, 3, "complete")


async def test_a_batch_without_urls_is_complete_at_once(batches: BatchStore) -> None:
    batch = await batches.create([])
    assert (batch.total, batch.chunks) == (0, 0)
    assert await batches.finish(batch.id)


async def test_nothing_is_complete_while_it_is_paused_or_has_items_left(batches: BatchStore) -> None:
    batch = await batches.create(urls(1))
    assert not await batches.finish(batch.id)
    await batches.set_status(batch.id, "paused")
    assert await batches.save(batch.id, [ended((await batches.items(batch.id))[0])]) == "paused"
    assert not await batches.finish(batch.id)
    await batches.set_status(batch.id, "queued")
    assert await batches.finish(batch.id)


async def test_a_batch_of_any_size_is_counted_in_parts(batches: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulletproof.store.batches._PART", 7)
    batch = await batches.create([*urls(30), *urls(5)], chunk_size=10)
    items = await batches.items(batch.id, limit=12)
    await batches.save(batch.id, [ended(item) for item in items])
    counts = await batches.counts(batch.id)
    assert (counts.by_status["success"], counts.by_status["pending"], counts.done) == (12, 18, 12)
    assert await batches.open_chunks(batch.id) == [1, 2]


async def test_what_stages_made_is_kept_until_the_item_succeeds(batches: BatchStore) -> None:
    batch = await batches.create(urls(3))
    rows = await batches.items(batch.id)
    text = {"stage": "analyze", "text": "Grüße \ud800 and \0" * 1000, "known": {"title": None, "bytes": 7}}
    for row in rows[:2]:
        row.made = text
    await batches.save(batch.id, [ended(row, "failed", stage="analyze", code="x") for row in rows[:2]])
    (first, second, third) = await batches.made(batch.id, rows)
    assert first == second == text | {"text": "Grüße ? and \ufffd" * 1000}
    assert third is None
    assert await batches.retry_failed(batch.id) == 2
    assert [row.stage for row in await batches.items(batch.id)] == ["analyze", "analyze", "download"]
    again = await batches.chunk_items(batch.id, 0)
    assert await batches.made(batch.id, again) == [first, second, None]
    await batches.save(batch.id, [ended(again[0], made={}), ended(again[1], "retrying", stage="store", made=None)])
    assert await batches.made(batch.id, again) == [None, second, None]
    again[1].made = {"stage": "store", "result": {"score": 1}}
    await batches.save(batch.id, again[1:2])
    assert (await batches.made(batch.id, again))[1] == {"stage": "store", "result": {"score": 1}}
    await batches.delete(batch.id)

    async def left(connection: Any) -> int:
        return int(await connection.scalar(sa.select(sa.func.count()).select_from(batch_made)))

    assert await batches.access.read("count in", left) == 0


async def test_what_a_slow_writer_made_is_not_heard(batches: BatchStore) -> None:
    batch = await batches.create(urls(1))
    (slow,) = await batches.items(batch.id)
    (quick,) = await batches.items(batch.id)
    await batches.save(batch.id, [ended(quick, "failed", code="x", stage="analyze", made={"stage": "analyze", "n": 1})])
    await batches.retry_failed(batch.id)
    await batches.save(batch.id, [ended(slow, "failed", code="x", stage="store", made={"stage": "store"})])
    await batches.save(batch.id, [ended(slow, made={})])
    (row,) = await batches.items(batch.id)
    assert (row.status, row.stage, await batches.made(batch.id, [row])) == (
        "pending", "analyze", [{"stage": "analyze", "n": 1}]
    )  # fmt: skip


async def test_released_items_are_pending_and_others_stay(batches: BatchStore) -> None:
    batch = await batches.create(urls(4))
    items = await batches.items(batch.id)
    states = ("in_progress", "retrying", "success")
    await batches.save(batch.id, [ended(item, state) for item, state in zip(items, states, strict=False)])
    await batches.release(batch.id)
    assert [item.status for item in await batches.items(batch.id)] == ["pending", "retrying", "success", "pending"]


async def test_figures_of_each_process_are_replaced_by_its_later_ones(batches: BatchStore, wall: Any) -> None:
    batch = await batches.create(urls(1))
    await batches.save_figures(batch.id, "one", {"n": 1})
    await batches.save_figures(batch.id, "two", {"n": 5, "odd": "\ud800"})
    wall.forward(seconds=3)
    await batches.save_figures(batch.id, "one", {"n": 2})
    wall.forward(seconds=1)
    found = {source: (age, said) for source, age, said in await batches.figures(batch.id)}
    assert found == {"one": (1.0, {"n": 2}), "two": (4.0, {"n": 5, "odd": "?"})}
    await batches.delete(batch.id)
    with pytest.raises(NotFoundError):
        await batches.figures(batch.id)
