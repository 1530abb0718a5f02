"""The way to one version of a model: so many at the same time, a bounded queue, refusals at once rather than late."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import OverloadedError
from bulletproof.models.batching import Joiner
from bulletproof.models.checking import Answer, answers_of
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs
from bulletproof.models.runner import OnRunaway, Runner
from bulletproof.models.schema import RowReader
from bulletproof.resilience import AdaptiveLimit, remaining

Rows = NDArray[np.float64]
Lease = Callable[[Manifest], AbstractAsyncContextManager[Runner]]

_WEIGHT = 0.2  # of the latest run in the usual time of a run


class Lane:
    """Leads requests to one version of a model.

    Args:
        manifest: Of the version.
        lease: Lends what runs it.
        places: How many may run at the same time.
        clock: Gives monotonic seconds.
    """

    def __init__(
        self, manifest: Manifest, lease: Lease, *, places: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        limits = manifest.limits
        self.manifest = manifest
        self.read = RowReader(manifest.input)
        self.name = f"{manifest.name} {manifest.version}"
        self.limit = AdaptiveLimit(
            self.name, initial=places, max_limit=places, max_queued=limits.max_queued, tolerance=2, clock=clock
        )
        self._lease = lease
        self._clock = clock
        self._waiting = 0
        self._runaways = 0
        self._usual = 0.0
        self._run: Callable[[Rows, OnRunaway], Awaitable[Outputs]] = self._execute
        if limits.batch_rows > 1:
            joiner = Joiner(
                self._execute, name=self.name, most_rows=limits.batch_rows, wait=limits.batch_wait_ms / 1000
            )
            self._run = joiner.ask

    async def predict(self, rows: Rows) -> list[Answer]:
        """Predict rows within the deadline of the context.

        Args:
            rows: As ``read`` gave them.

        Returns:
            One checked answer for each row.

        Raises:
            OverloadedError: No place is free, and none will be in time.
            AIError: The model failed; the code says how.
        """
        self._refuse_what_would_be_late()
        self._waiting += 1
        try:
            entry = await self.limit.enter_async()
        except OverloadedError as error:
            error.retry_after = self._wait_for(self._waiting)
            raise
        finally:
            self._waiting -= 1
        failure: BaseException | None = None
        goes_on: list[asyncio.Future[Outputs]] = []
        try:
            outputs = await self._run(rows, goes_on.append)
            return answers_of(outputs, len(rows), self.manifest.output)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._leave(entry, failure, goes_on)

    def _leave(self, entry: float, failure: BaseException | None, goes_on: list[asyncio.Future[Outputs]]) -> None:
        """Give the place back, once nothing runs in it any more."""
        if not goes_on:
            self.limit.leave(entry, failure)
            return

        def ended(_: object) -> None:
            self._runaways -= 1
            self.limit.leave(entry, failure)

        self._runaways += 1
        goes_on[0].add_done_callback(ended)

    def _refuse_what_would_be_late(self) -> None:
        places = self.limit.limit
        if self.limit.in_use < places and not self._waiting:
            return
        if self._runaways >= places:
            raise OverloadedError(
                f"{self.name}: all {places} places are taken by runs that go on beyond their time",
                retry_after=self._wait_for(1),
            )
        wait, left = self._wait_for(self._waiting + 1), remaining()
        if left is not None and wait > left:
            raise OverloadedError(
                f"{self.name}: a place would be free in about {wait:.2g} s, and this request has {left:.2g} s left",
                retry_after=wait,
            )

    def _wait_for(self, queued: int) -> float:
        """Return in how many seconds the last of so many in the queue will have a place."""
        return max(queued, 1) * self._usual / max(1, self.limit.limit - self._runaways)

    async def _execute(self, rows: Rows, on_runaway: OnRunaway) -> Outputs:
        async with self._lease(self.manifest) as runner:
            left = remaining()
            seconds = self.manifest.limits.timeout_seconds if left is None else left
            began = self._clock()
            try:
                return await runner.run(rows, timeout=seconds, on_runaway=on_runaway)
            finally:
                took = self._clock() - began
                self._usual = took if not self._usual else self._usual + _WEIGHT * (took - self._usual)
