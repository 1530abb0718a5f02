"""The local analyzer in worker processes: same results, no work lost with a worker."""

import os
import signal
from collections.abc import AsyncIterator

import pytest

from bulletproof.analysis import LocalAnalyzer, PooledAnalyzer
from bulletproof.errors import InputValidationError

TEXTS = [f"Review {number}: {'I love it' if number % 2 else 'it broke, awful'}" for number in range(5000)]


@pytest.fixture
async def pooled() -> AsyncIterator[PooledAnalyzer]:
    analyzer = PooledAnalyzer(1)
    yield analyzer
    await analyzer.aclose()


async def up(analyzer: PooledAnalyzer) -> None:
    await analyzer.analyze(TEXTS)
    await analyzer.analyze(TEXTS[:10])
    assert analyzer._warming is not None
    assert await analyzer._warming


async def test_workers_give_the_very_results_of_the_local_analyzer(pooled: PooledAnalyzer) -> None:
    await up(pooled)
    batch = await pooled.analyze(TEXTS[:300])
    assert batch.results == LocalAnalyzer().analyze_batch(TEXTS[:300])
    assert pooled.name == LocalAnalyzer().name


async def test_a_few_texts_start_no_worker(pooled: PooledAnalyzer) -> None:
    await pooled.analyze(TEXTS[:100])
    assert pooled._warming is None


async def test_a_batch_whose_worker_dies_is_analysed_all_the_same(pooled: PooledAnalyzer) -> None:
    await up(pooled)
    os.kill(await pooled._pool.run(os.getpid), signal.SIGKILL)
    batch = await pooled.analyze(TEXTS[:20])
    assert len(batch.results) == 20
    assert len((await pooled.analyze(TEXTS[:20])).results) == 20


async def test_labels_are_refused_as_by_the_local_analyzer(pooled: PooledAnalyzer) -> None:
    with pytest.raises(InputValidationError) as caught:
        await pooled.analyze(["text"], labels=["a", "b"])
    assert caught.value.code == "labels_unavailable"
