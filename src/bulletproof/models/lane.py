"""The way to one version of a model: so many at the same time, a bounded queue, refusals at once rather than late."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import DeadlineExceededError, OverloadedError, PredictionTimeoutError
from bulletproof.models.batching import Joiner
from bulletproof.models.checking import Answer, answers_of
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs
from bulletproof.models.runner import OnRunaway, Runner
from bulletproof.models.schema import RowReader
from bulletproof.resilience import AdaptiveLimit, deadline, remaining

Rows = NDArray[np.float64]
Lease = Callable[[Manifest], AbstractAsyncContextManager[Runner]]

_WEIGHT = 0.2  # of the latest run in the usual time of a run
_LOAD_PATIENCE = 60.0  # seconds that a request without a time of its own waits for its model to be loaded
_UNKNOWN = 16  # requests for each place of an isolated model that wait for it to be loaded the first time
_WORSE = 1.3  # times the wait for a place that was reckoned with, from which the queue is looked at again
_SURE = 0.75  # of the time of a request that the wait may take as it is reckoned: better refused at once than late


class Lane:
    """Leads requests to one version of a model.

    They wait for the model to be loaded, then for a place. When it turns out that places become free more slowly than
    was reckoned, those in the queue who would not have one in time are sent away at once.

    Args:
        manifest: Of the version.
        lease: Lends what runs it.
        is_ready: Tells whether it is loaded.
        places: How many may run at the same time.
        fixed: Whether that is not adapted: processes of their own do not slow each other down.
        usual: Seconds that a run usually takes, where that is known; 0 where not.
        clock: Gives monotonic seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        lease: Lease,
        *,
        is_ready: Callable[[Manifest], bool] = lambda _: True,
        places: int,
        fixed: bool = False,
        usual: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = manifest.limits
        self.manifest = manifest
        self.read = RowReader(manifest.input)
        self.name = f"{manifest.name} {manifest.version}"
        self.limit = AdaptiveLimit(
            self.name,
            initial=places,
            min_limit=places if fixed else 1,
            max_limit=places,
            max_queued=limits.max_queued,
            tolerance=2,
            clock=clock,
        )
        self._seconds = limits.timeout_seconds
        self._lease = lease
        self._is_ready = is_ready
        self._fixed = fixed
        self._clock = clock
        self._loading = 0  # requests that wait for the model
        self._queue: OrderedDict[object, tuple[asyncio.Timeout, float]] = OrderedDict()  # until when each may wait
        self._reckoned = 0.0  # seconds for each place in the queue, when it was last looked at
        self._runaways = 0
        self.usual = usual
        self._late = 0  # runs past their time, one after the other
        self._run: Callable[[Rows, OnRunaway], Awaitable[Outputs]] = self._execute
        if limits.batch_rows > 1:
            joiner = Joiner(
                self._execute, name=self.name, most_rows=limits.batch_rows, wait=limits.batch_wait_ms / 1000
            )
            self._run = joiner.ask

    async def predict(self, rows: Rows) -> list[Answer]:
        """Predict rows within the deadline of the context, and what the model's limits allow once it is loaded.

        Args:
            rows: As ``read`` gave them.

        Returns:
            One checked answer for each row.

        Raises:
            OverloadedError: No place is free, and none will be in time; or the model is being loaded.
            AIError: The model failed; the code says how.
        """
        if not self._is_ready(self.manifest):
            await self._load()
        with deadline(self._seconds, clock=self._clock):
            return await self._predict(rows)

    async def _load(self) -> None:
        """Wait for the model; those that would not find a place in the queue afterwards need not."""
        room = self.limit.max_limit + self.manifest.limits.max_queued
        if self._fixed and not self.usual:  # a few processes, and nobody knows yet how long a run takes
            room = min(room, _UNKNOWN * self.limit.max_limit)
        if self._loading >= room:
            raise OverloadedError(
                f"{self.name} is being loaded, and {room} requests wait for it already",
                retry_after=max(1.0, self._wait_for(room)),
            )
        self._loading += 1
        try:
            with deadline(_LOAD_PATIENCE, clock=self._clock):
                async with self._lease(self.manifest):
                    pass
        finally:
            self._loading -= 1

    async def _predict(self, rows: Rows) -> list[Answer]:
        self._refuse_what_would_be_late()
        entry = await self._enter()
        failure: BaseException | None = None
        goes_on: list[asyncio.Future[Outputs]] = []
        try:
            self._leave_to_others()
            outputs = await self._run(rows, goes_on.append)
            return answers_of(outputs, len(rows), self.manifest.output)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._leave(entry, failure, goes_on)

    async def _enter(self) -> float:
        """Take a place, waiting for it as long as there is hope."""
        left = remaining()
        if left is None or self.limit.in_use < self.limit.limit:
            return await self.limit.enter_async()
        me = object()
        try:
            async with asyncio.timeout(None) as patience:
                self._queue[me] = patience, self._clock() + left
                return await self.limit.enter_async()
        except (DeadlineExceededError, TimeoutError) as expiry:
            wait = self._wait_for(len(self._queue))
            raise OverloadedError(
                f"{self.name}: no place is free in the time that this request has", retry_after=wait
            ) from expiry
        except OverloadedError as error:
            error.retry_after = self._wait_for(len(self._queue))
            raise
        finally:
            self._queue.pop(me, None)

    def _look_at_queue(self) -> None:
        """Send those away who would not have a place in time, as soon as that is known."""
        each, reckoned = self._wait_for(1), self._reckoned
        if not self._queue or reckoned * _WORSE >= each > reckoned / _WORSE:
            return
        self._reckoned = each
        if each < reckoned:
            return
        now, ahead = self._clock(), 0
        loop = asyncio.get_running_loop()
        for patience, until in self._queue.values():
            if now + (ahead + 1) * each > until:
                patience.reschedule(loop.time())
            else:
                ahead += 1

    def _leave(self, entry: float, failure: BaseException | None, goes_on: list[asyncio.Future[Outputs]]) -> None:
        """Give the place back, once nothing runs in it any more."""
        late = isinstance(failure, PredictionTimeoutError) and self._clock() - entry < _SURE * self._seconds
        if isinstance(failure, OverloadedError) or late:
            # The model was not asked, or its caller had little time: no sign that it has too much to do.
            failure = asyncio.CancelledError()
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
        if self.limit.in_use < places and not self._queue:
            return
        if self._runaways >= places:
            raise OverloadedError(
                f"{self.name}: all {places} places are taken by runs that go on beyond their time",
                retry_after=self._wait_for(1),
            )
        wait, left = self._wait_for(len(self._queue) + 1), remaining()
        if left is not None and (wait > _SURE * left or wait + self.usual > left):
            raise OverloadedError(
                f"{self.name}: a place would be free in about {wait:.2g} s, and this request has {left:.2g} s left",
                retry_after=wait,
            )

    def _leave_to_others(self) -> None:
        """Give the place up when the time left is too short for a run, and others wait who have more."""
        left = remaining()
        if self._queue and left is not None and left < self.usual:
            raise OverloadedError(
                f"{self.name}: a place was free too late for this request", retry_after=self._wait_for(len(self._queue))
            )

    def _wait_for(self, queued: int) -> float:
        """Return in how many seconds the last of so many in the queue will have a place."""
        return max(queued, 1) * self.usual / max(1, self.limit.limit - self._runaways)

    async def _execute(self, rows: Rows, on_runaway: OnRunaway) -> Outputs:
        async with self._lease(self.manifest) as runner:
            left = remaining()
            seconds = self._seconds if left is None else left
            began = self._clock()
            try:
                outputs = await runner.run(rows, timeout=seconds, on_runaway=on_runaway)
            except PredictionTimeoutError:
                self._late += 1
                if self._late >= self.limit.max_limit:  # no longer one bad row, but the usual
                    self._took(self._clock() - began)
                raise
            self._late = 0
            self._took(self._clock() - began)
            return outputs

    def _took(self, seconds: float) -> None:
        """Learn how long a run takes; one that crashed or overflowed says nothing of others."""
        self.usual = seconds if not self.usual else self.usual + _WEIGHT * (seconds - self.usual)
        self._look_at_queue()
