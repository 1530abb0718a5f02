"""The report: figures, a table, JSON, a data frame; and what counts and batches underneath."""

import asyncio
import json
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof import ConfigurationError, StatusReport
from bulletproof.pipeline.batching import Batcher
from bulletproof.pipeline.figures import Figures, Sketch
from bulletproof.pipeline.seen import SeenUrls

Make = Callable[..., Any]


async def test_the_report_says_how_the_batch_went(scripted: Make, urls: Make) -> None:
    given = urls(10)
    script = {
        (given[1], "download"): [ConnectionError("x")],
        (given[2], "extract"): ValueError("a bug"),
        (given[3], "analyze"): TimeoutError("slow"),
    }
    report = await scripted(script).process_batch([*given, "bad"])
    assert (report["total"], report["success"], report["failed"], report["pending"]) == (11, 8, 3, 0)
    assert report["by_status"] == {"pending": 0, "in_progress": 0, "success": 8, "failed": 3, "retrying": 0}
    assert report["by_error_type"] == {"resource_error": 1, "external_service_error": 1, "validation_error": 1}
    assert report["by_code"] == {"internal_error": 1, "service_timeout": 1, "invalid_input": 1}
    assert report["retried_by_code"] == {"service_unavailable": 1, "service_timeout": 3}
    assert report["attempts"] == 11 + 10 + 12 + 8
    assert report["retries"] == 4
    stages = report["by_stage"]
    assert {name: stage["failed"] for name, stage in stages.items()} == {
        "download": 1, "extract": 1, "analyze": 1, "store": 0,
    }  # fmt: skip
    assert all(stage["items"] == 0 for stage in stages.values())
    assert all(stage["p50"] <= stage["p95"] <= stage["p99"] for stage in stages.values())
    assert report["slowest_hosts"][0]["host"] == "example.com"
    assert [(item["url"], item["stage"], item["code"]) for item in report["failed_items"]] == [
        ("bad", "download", "invalid_input"),
        (given[2], "extract", "internal_error"),
        (given[3], "analyze", "service_timeout"),
    ]
    assert all(item["error"] and item["hint"] for item in report["failed_items"])
    assert report["items_per_second"] > 0
    assert report["breakers"]["analyze"]["failures"] == 4


async def test_the_report_can_be_read_sent_and_tabulated(scripted: Make, urls: Make) -> None:
    report = await scripted({(urls(1)[0], "extract"): ValueError("a bug")}).process_batch(urls(4))
    assert json.loads(report.to_json()) == json.loads(json.dumps(report, default=str))
    text = str(report)
    assert text.startswith("4 items: 0 pending, 0 in_progress, 3 success, 1 failed, 0 retrying")
    assert "https://example.com/0" in text
    assert "what to do: Report this" in text
    frame = report.to_dataframe()
    assert list(frame["url"]) == urls(4)
    assert list(frame["status"]) == ["failed", "success", "success", "success"]
    assert list(frame["score"])[1:] == [0.5] * 3
    assert list((await scripted().process_batch([])).to_dataframe().columns)[:2] == ["url", "status"]


def test_a_table_needs_pandas_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigurationError) as caught:
        StatusReport({"total": 0}).to_dataframe()
    assert caught.value.code == "missing_dependency"
    assert "pip install" in caught.value.hint


async def test_the_report_can_be_had_while_the_batch_runs(scripted: Make, urls: Make, time: Any) -> None:
    pipeline = scripted(max_concurrent=2)
    seen: list[StatusReport] = []
    step = pipeline.step

    async def slow(url: str, stage: str) -> None:
        time.seconds += 1
        seen.append(pipeline.get_status_report())
        await step(url, stage)

    pipeline.step = slow
    await pipeline.process_batch(urls(50))
    middle = seen[len(seen) // 2]
    assert middle["total"] == middle["expected"] == 50
    assert 0 < middle["in_progress"] <= 2
    assert 0 < middle["success"] < 50
    assert middle["seconds_left"] == pytest.approx(100, rel=0.3)
    assert seen[-1]["by_stage"]["store"]["items"] <= 2
    assert pipeline.get_status_report()["seconds_left"] is None


@given(st.lists(st.floats(1e-5, 1e4), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_two_percent_off_at_most(values: list[float], share: float) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    exact = sorted(values)[max(1, -(-int(share * 1000) * len(values) // 1000)) - 1]
    assert sketch.quantile(share) == pytest.approx(exact, rel=0.021)


def test_durations_take_little_room_however_many_there_are() -> None:
    sketch, rng = Sketch(), random.Random(1)
    for _ in range(50_000):
        sketch.add(rng.lognormvariate(-3, 3))
    assert len(sketch._buckets) < 800
    assert Sketch().quantile(0.5) is None


def test_only_the_slowest_hosts_are_remembered() -> None:
    figures = Figures(lambda: 0.0)
    for number in range(5000):
        figures.answered(f"host{number}", number / 1000)
    hosts = [host["host"] for host in figures.as_dict()["slowest_hosts"]]
    assert hosts == [f"host{number}" for number in range(4999, 4989, -1)]
    assert len(figures._hosts) <= 1000


@given(st.lists(st.text(max_size=3), max_size=300))
def test_a_url_is_new_once(urls: list[str]) -> None:
    seen, known = SeenUrls(), set()
    for url in urls:
        assert seen.add(url) == (url not in known)
        known.add(url)
    assert len(seen) == len(known)


def test_many_urls_take_few_bytes() -> None:
    seen = SeenUrls()
    assert all(seen.add(f"https://example.com/{number}") for number in range(50_000))
    assert not any(seen.add(f"https://example.com/{number}") for number in range(50_000))
    assert sum(sys.getsizeof(table) for table in seen._tables) < 30 * 50_000


class Doubling:
    """Doubles numbers in batches, and cannot stand some."""

    def __init__(self, bad: Any = ()) -> None:
        self.bad, self.batches = set(bad), []

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(len(numbers))
        await asyncio.sleep(0)
        if self.bad & set(numbers):
            raise ValueError("bad")
        return [2 * number for number in numbers]


@given(st.sets(st.integers(0, 39)), st.integers(1, 50), st.integers(1, 3))
async def test_each_caller_gets_its_own_result_whichever_others_are_bad(
    bad: set[int], size: int, parallel: int
) -> None:
    work = Doubling(bad)
    batcher = Batcher(work, size=size, linger=0, parallel=parallel)
    results = await asyncio.gather(*(batcher.submit(number) for number in range(40)), return_exceptions=True)
    for number, result in enumerate(results):
        assert isinstance(result, ValueError) if number in bad else result == 2 * number
    assert max(work.batches) <= size
    await batcher.aclose()


async def test_an_error_that_may_pass_goes_to_all_callers_at_once() -> None:
    calls = 0

    async def down(numbers: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise ConnectionError("down")

    batcher = Batcher(down, size=10)
    results = await asyncio.gather(*(batcher.submit(number) for number in range(10)), return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionError}
    assert calls == 1


async def test_a_caller_that_gives_up_takes_nobody_along() -> None:
    batcher = Batcher(Doubling(), size=10, linger=0.01)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 4]
    await batcher.aclose()


async def test_too_few_results_are_an_error() -> None:
    async def forgetful(numbers: list[int]) -> list[int]:
        return numbers[1:]

    results = await asyncio.gather(*(Batcher(forgetful).submit(1) for _ in range(2)), return_exceptions=True)
    assert all("1 results were due, and 0 came" in str(result) for result in results)
