"""Writers of a batch may die, be slow or be many: every item ends as it should, and shows once."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bulletproof.errors import AIError
from bulletproof.store import BatchStore, ItemRow, ResultStore
from bulletproof.store.batch_records import NEXT, STATUSES, TERMINAL

Make = Callable[..., ResultStore]

WRITER = """
import asyncio, sys
from bulletproof.store import BatchStore, ResultStore

async def main(url, folder, batch_id, name):
    results = ResultStore(url or None, data_dir=folder)
    store = BatchStore(results.access)
    print("ready", flush=True)
    for chunk in range(20):
        for item in await store.chunk_items(batch_id, chunk):
            item.status, item.stage, item.result = "success", "done", {"by": name, "url": item.url}
            item.attempts = {"download": 1}
            await store.save(batch_id, [item])
            print(item.position, flush=True)
    await results.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def start(place: Any, batch_id: str, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, place.url or "", str(place.data_dir), batch_id, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_writers_that_are_killed_lose_and_repeat_nothing(store: ResultStore, place: Any) -> None:
    batches = BatchStore(store.access)
    batch = await batches.create([f"https://example.com/{number}" for number in range(200)], chunk_size=10)
    chance = random.Random(7)
    said: dict[int, str] = {}
    for turn in range(4):
        with start(place, batch.id, f"w{turn}") as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            for _ in range(chance.randrange(5, 40)):
                said.setdefault(int(writer.stdout.readline()), f"w{turn}")
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                said.setdefault(int(line), f"w{turn}")
    done = await batches.items(batch.id, status="success", limit=1000)
    assert {item.position for item in done} >= set(said)
    assert len(done) <= len(said) + 4  # one for each that died between saving and saying so
    for item in done:
        assert item.result is not None
        assert item.result["by"] == said.get(item.position, item.result["by"])
    writers = [start(place, batch.id, f"last{number}") for number in range(2)]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    counts = await batches.counts(batch.id)
    assert (counts.by_status["success"], counts.done, sum(counts.by_status.values())) == (200, 200, 200)
    again = {item.position: item for item in await batches.items(batch.id, limit=1000)}
    assert all(again[item.position].result == item.result for item in done)
    assert await batches.finish(batch.id)


async def test_many_writers_of_the_same_items_at_once_agree(store: ResultStore, place: Any, new_store: Make) -> None:
    batches = BatchStore(store.access)
    batch = await batches.create([f"https://example.com/{number}" for number in range(50)])
    others = [BatchStore(new_store(**place.arguments()).access) for _ in range(3)]

    async def write(writer: BatchStore, name: int) -> None:
        items = await writer.chunk_items(batch.id, 0)
        random.Random(name).shuffle(items)
        for first in range(0, len(items), 7):
            for item in items[first : first + 7]:
                item.status, item.attempts, item.result = "success", {"download": 1}, {"by": name}
            await writer.save(batch.id, items[first : first + 7])

    await asyncio.gather(*(write(writer, name) for name, writer in enumerate([batches, *others])))
    once = [item.result for item in await batches.items(batch.id)]
    await asyncio.gather(*(write(writer, name) for name, writer in enumerate(others)))
    assert [item.result for item in await batches.items(batch.id)] == once
    assert (await batches.counts(batch.id)).by_status["success"] == 50


async def test_the_last_of_several_writers_finishes_the_batch(store: ResultStore) -> None:
    batches = BatchStore(store.access)
    batch = await batches.create([f"https://example.com/{number}" for number in range(40)], chunk_size=10)

    async def work(chunk: int) -> bool:
        items = await batches.chunk_items(batch.id, chunk)
        for item in items:
            item.status = "failed" if item.position % 2 else "success"
        await batches.save(batch.id, items)
        return await batches.finish(batch.id)

    assert any(await asyncio.gather(*map(work, range(4))))
    found = await batches.batch(batch.id)
    assert found.status == "complete"
    assert found.finished_at is not None


class Model(RuleBasedStateMachine):
    """A batch of one chunk and its model, under any order of saves (stale ones too) and changes of status."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.results = ResultStore(data_dir=self.folder.name)
        self.store = BatchStore(self.results.access)
        self.id = self.run(self.store.create(["https://a.example/", "https://b.example/"])).id
        self.status = "queued"
        self.rows = [("pending", 0, 0)] * 2  # status, round, attempts
        self.seen: list[ItemRow] = self.run(self.store.items(self.id))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @rule(which=st.integers(0, 50), status=st.sampled_from(STATUSES), more=st.integers(0, 2))
    def save(self, which: int, status: str, more: int) -> None:
        item = self.seen[which % len(self.seen)]
        saved = ItemRow(
            position=item.position, url=item.url, round=item.round, status=status,
            attempts={"download": item.attempts.get("download", 0) + more},
            code="service_timeout" if status == "failed" else None,
        )  # fmt: skip
        self.seen.append(saved)
        assert self.run(self.store.save(self.id, [saved])) == self.status
        there, round_, tries = self.rows[item.position]
        new = saved.attempts["download"]
        if saved.round > round_ or (saved.round == round_ and there not in TERMINAL and new >= tries):
            self.rows[item.position] = (status, saved.round, new)

    @rule()
    def look(self) -> None:
        self.seen += self.run(self.store.items(self.id))

    @rule(status=st.sampled_from(sorted(NEXT)))
    def change(self, status: str) -> None:
        if status == self.status or status in NEXT[self.status]:
            assert self.run(self.store.set_status(self.id, status)).status == status
            self.status = status
        else:
            with pytest.raises(AIError) as caught:
                self.run(self.store.set_status(self.id, status))
            assert caught.value.code == "conflict"

    @rule()
    def retry(self) -> None:
        failed = sum(row[0] == "failed" for row in self.rows)
        if self.status == "cancelled":
            with pytest.raises(AIError):
                self.run(self.store.retry_failed(self.id))
            return
        assert self.run(self.store.retry_failed(self.id)) == failed
        self.rows = [("pending", row[1] + 1, row[2]) if row[0] == "failed" else row for row in self.rows]
        if failed and self.status == "complete":
            self.status = "queued"

    @rule()
    def finish(self) -> None:
        if all(row[0] in TERMINAL for row in self.rows) and self.status in ("queued", "running"):
            self.status = "complete"
        assert self.run(self.store.finish(self.id)) == (self.status == "complete")

    @invariant()
    def agrees(self) -> None:
        assert self.run(self.store.batch(self.id)).status == self.status
        rows = self.run(self.store.items(self.id))
        assert [(row.status, row.round, row.attempts.get("download", 0)) for row in rows] == self.rows
        counts = self.run(self.store.counts(self.id))
        assert counts.by_status == {status: sum(row[0] == status for row in self.rows) for status in STATUSES}

    def teardown(self) -> None:
        self.run(self.results.aclose())
        self.runner.close()
        self.folder.cleanup()


Model.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_any_order_of_saves_and_changes_leads_where_it_should = Model.TestCase
