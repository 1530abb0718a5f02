"""The local analyzer in worker processes, for a service that must answer others meanwhile."""

import asyncio
import logging
from collections.abc import Sequence

from bulletproof.analysis.analyzer import Analysis, BatchAnalysis
from bulletproof.analysis.local import LocalAnalyzer
from bulletproof.errors import DeadlineExceededError, ResourceError
from bulletproof.workers import WorkerPool

logger = logging.getLogger("bulletproof.analysis")

_ROWS_BEFORE_WORKERS = 4096
_BATCH_SECONDS = 60.0


class PooledAnalyzer:
    """Analyses in worker processes once there is enough to do, in a thread until then.

    A worker takes about a second to start and then leaves the interpreter of the service to everybody else; for the
    odd small file that would be a bad bargain. When workers die the work goes on in threads too.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._local = LocalAnalyzer()
        self._pool = WorkerPool(workers, name="analysis", initializer=_warm)
        self._seen = 0
        self._warming: asyncio.Task[bool] | None = None

    @property
    def name(self) -> str:
        """Name and version of the model."""
        return self._local.name

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        """Analyse a batch; see ``LocalAnalyzer.analyze``."""
        self._seen += len(texts)
        if labels or not self._workers_are_up():
            return await self._local.analyze(texts, labels=labels)
        try:
            rows = await self._pool.run(_analyze, list(texts), timeout=_BATCH_SECONDS)
        except (ResourceError, DeadlineExceededError) as error:
            logger.warning("a worker for the analysis was lost; the batch is analysed here", extra={"code": error.code})
            return await self._local.analyze(texts)
        name = self.name
        return BatchAnalysis([Analysis(*row, name) for row in rows])  # type: ignore[arg-type]  # pickled literals

    def _workers_are_up(self) -> bool:
        if self._warming is None:
            if self._seen >= _ROWS_BEFORE_WORKERS:
                self._warming = asyncio.create_task(self._warm_up())
            return False
        return self._warming.done() and not self._warming.cancelled() and self._warming.result()

    async def _warm_up(self) -> bool:
        try:
            await self._pool.run(_analyze, ["warm"], timeout=_BATCH_SECONDS)
        except (ResourceError, DeadlineExceededError) as error:
            logger.warning(
                "no worker for the analysis could be started; it goes on in threads", extra={"code": error.code}
            )
            return False
        return True

    async def aclose(self) -> None:
        """Stop the workers."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
            self._warming = None
        await self._pool.aclose()


def _warm() -> None:
    LocalAnalyzer()  # which keeps its model for the next


def _analyze(texts: list[str]) -> list[tuple[str, float, float, str]]:
    # Plain tuples: a tenth of the bytes of pickled objects.
    results = LocalAnalyzer().analyze_batch(texts)
    return [(result.sentiment, result.score, result.confidence, result.language) for result in results]
