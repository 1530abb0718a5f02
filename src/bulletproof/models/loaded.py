"""The models that are loaded: each once, the least recently used let go when memory is short."""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bulletproof.errors import (
    AIError,
    CircuitOpenError,
    DeadlineExceededError,
    ModelLoadError,
    NotFoundError,
    OverloadedError,
    classify,
)
from bulletproof.models.manifest import Manifest
from bulletproof.models.runner import Runner
from bulletproof.resilience import BreakerRegistry, CircuitConfig, deadline, remaining
from bulletproof.resilience.deadlines import current

logger = logging.getLogger("bulletproof.models")

Key = tuple[str, str]
T = TypeVar("T")

_LONGEST_RETRY = 30.0  # seconds that are told to those who come while a model is being loaded
# What fails to load fails again until somebody mends it: one failure is enough, and trying again costs a load.
LOADING = CircuitConfig(failure_threshold=1, success_threshold=1, timeout=5, timeout_factor=2, max_timeout=60)


@dataclass(slots=True, eq=False)
class _Place:
    """Where the runner of a manifest is, or will be."""

    manifest: Manifest
    runner: Runner | None = None
    loading: asyncio.Task[Runner] | None = None
    leases: int = 0  # those that wait for it to be loaded included
    outdated: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def bytes(self) -> int:
        return 0 if self.runner is None else self.runner.memory_bytes


class LoadedModels:
    """Keeps models ready to answer.

    A version is loaded once, however many requests wait for it, and kept until others need its memory: then the least
    recently used that no request has in hand is closed. The one used last is always kept, even if it is larger than
    allowed. Memory is what each runner says: the size of its file for a model in this process, what its workers hold
    for an isolated one.

    When the manifest of a version changes, those who come with the new one get a new runner; the old one is closed when
    the last request that has it is done. A version that cannot be loaded has a breaker of its own,
    ``model:<name>:<version>``: while that is open its requests fail at once with the same error.

    Args:
        open_runner: Loads a version; gets its folder and its manifest.
        folder_of: Gives the folder of a version, such as ``ModelRegistry.folder_of``.
        memory_bytes: What all of them together may hold.
        load_seconds: Seconds that loading may take.
        breakers: Keeps the breakers.

    Example:
        >>> import numpy as np
        >>> from bulletproof.models.registry import ModelRegistry
        >>> from bulletproof.models.runners import open_runner
        >>> registry = ModelRegistry(Path("no/such/folder"))
        >>> async def main() -> float:
        ...     models = LoadedModels(open_runner, registry.folder_of, memory_bytes=2**30)
        ...     async with models.lease(registry.manifest("iris")) as runner:
        ...         outputs = await runner.run(np.array([[5.1, 3.5, 1.4, 0.2]]), timeout=10)
        ...     await models.aclose()
        ...     return float(outputs.values[0])
        >>> asyncio.run(main())
        0.0
    """

    def __init__(
        self,
        open_runner: Callable[[Path, Manifest], Awaitable[Runner]],
        folder_of: Callable[[Manifest], Path],
        *,
        memory_bytes: int,
        load_seconds: float = 300.0,
        breakers: BreakerRegistry | None = None,
    ) -> None:
        self._open_runner = open_runner
        self._folder_of = folder_of
        self._limit = memory_bytes
        self._load_seconds = load_seconds
        self.breakers = breakers if breakers is not None else BreakerRegistry(LOADING)
        self._places: OrderedDict[Key, _Place] = OrderedDict()  # the least recently used first
        self._outdated: set[_Place] = set()
        self._replaced: dict[Key, Manifest] = {}
        self._failures: dict[Key, tuple[Manifest, AIError]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def lease(self, manifest: Manifest) -> AsyncIterator[Runner]:
        """Lend the runner of a version for a block of code; loaded first if it is not.

        Args:
            manifest: As ``ModelRegistry.manifest`` gave it for this request.

        Yields:
            The runner.

        Raises:
            ModelLoadError: The version cannot be loaded.
            OverloadedError: Loading takes longer than the request has, and goes on for those to come; or the models
                have been closed.
        """
        place = self._place_of(manifest)
        place.leases += 1
        try:
            yield place.runner if place.runner is not None else await self._wait(place)
        finally:
            self._give_back(place)

    def is_ready(self, manifest: Manifest) -> bool:
        """Tell whether the runner of a version is there: to lend it, nobody has to wait."""
        place = self._places.get(manifest.key)
        return place is not None and place.manifest is manifest and place.runner is not None

    def has_room(self, size: int) -> bool:
        """Tell whether a model of so many bytes would have its place without another being let go."""
        return self._held() + size <= self._limit

    def health(self) -> dict[str, Any]:
        """Return which versions are loaded, being loaded, or cannot be, and why."""
        versions: dict[str, dict[str, Any]] = {}
        for place in self._all():
            state = "loading" if place.runner is None else "closing" if place.outdated else "loaded"
            told = {"state": state, "memory_bytes": place.bytes, "leases": place.leases}
            versions[_label(place.manifest)] = told
        reasons = []
        for key, (manifest, error) in list(self._failures.items()):
            if self._is_gone(manifest):
                del self._failures[key]
                self.breakers.get(_breaker(manifest)).reset()
                continue
            reasons.append(f"{manifest.title} cannot be loaded: {error}")
            retry_after = self.breakers.get(_breaker(manifest)).get_metrics()["retry_after"]
            versions[_label(manifest)] = {
                "state": "failed", "code": error.code, "details": str(error), "hint": error.hint,
                "retry_after": retry_after,
            }  # fmt: skip
        return {
            "status": "degraded" if reasons else "healthy",
            **({"details": "; ".join(reasons)} if reasons else {}),
            "versions": versions,
            "memory_bytes": self._held(),
            "memory_limit_bytes": self._limit,
        }

    async def aclose(self) -> None:
        """Load nothing more, wait for the requests that have a model in hand, and close all."""
        self._closed = True
        for place in self._all():
            if place.loading is not None:
                place.loading.cancel()
        try:
            while any(place.leases for place in self._all()):
                self._returned.clear()
                await self._returned.wait()
        finally:
            for place in self._all():
                self._close(place)
            self._places.clear()
            self._outdated.clear()
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    # Within.

    def _place_of(self, manifest: Manifest) -> _Place:
        if self._closed:
            raise _stopping()
        key = manifest.key
        place = self._places.get(key)
        if place is not None and place.manifest is not manifest:
            place = self._current(place, manifest)
        if place is None:
            place = self._places[key] = _Place(manifest)
            place.loading = self._start(self._load(place))
        self._places.move_to_end(key)
        return place

    def _give_back(self, place: _Place) -> None:
        place.leases -= 1
        if place.leases:
            return
        self._returned.set()
        if place.outdated or self._closed:
            self._close(place)
        else:
            self._trim()

    def _current(self, place: _Place, manifest: Manifest) -> _Place | None:
        """Return the place if it will do for a manifest that is another object; else have it replaced."""
        if manifest is self._replaced.get(manifest.key):
            # A request that began before the change. What it has read stays right while in- and output do.
            if (manifest.input, manifest.output) == (place.manifest.input, place.manifest.output):
                return place
        elif place.manifest == manifest:
            place.manifest = manifest
            return place
        self._replaced[manifest.key] = place.manifest
        del self._places[manifest.key]
        place.outdated = True
        self._outdated.add(place)
        if not place.leases:
            self._close(place)
        return None

    async def _wait(self, place: _Place) -> Runner:
        assert place.loading is not None
        try:
            async with asyncio.timeout(remaining()):
                # Shielded: who gives up waiting leaves the load to the others, and to those who come next.
                return await asyncio.shield(place.loading)
        except TimeoutError as expiry:
            if isinstance(expiry, AIError):
                raise
            name, passed = place.manifest.title, time.monotonic() - place.began
            raise OverloadedError(
                f"{name} is being loaded, for {passed:.2g} s by now; this request has no time left to wait for it",
                hint="Try again as soon as Retry-After says: the model goes on being loaded.",
                retry_after=min(max(1.0, passed), _LONGEST_RETRY),  # nobody knows better than: as long again
            ) from expiry
        except AIError as error:
            raise copy(error) from error.__cause__  # each request its own: they are raised in many tasks

    async def _load(self, place: _Place) -> Runner:
        current.set(None)  # the deadline of the request that happens to be first is not that of the others
        manifest = place.manifest
        failed = self._failures.get(manifest.key)
        if failed is not None and failed[0] != manifest:
            self.breakers.get(_breaker(manifest)).reset()  # somebody has mended it, perhaps
        try:
            runner = place.runner = await self._open_guarded(manifest)
        except BaseException as error:
            self._forget(place)
            if place.outdated:
                self.breakers.get(_breaker(manifest)).reset()  # what was replaced says nothing of what replaced it
            failure = self._failure(place, error)
            if failure is error:
                raise
            raise failure from error
        finally:
            place.loading = None
        self._failures.pop(manifest.key, None)
        logger.info("model loaded", extra=_facts(manifest, runner))
        if (place.outdated or self._closed) and not place.leases:
            self._close(place)
        for other in list(self._places.values()):
            if other.runner is not None and not other.leases and self._is_gone(other.manifest):
                self._close(other)
        self._trim()
        return runner

    async def _open_guarded(self, manifest: Manifest) -> Runner:
        """Open a runner by way of its breaker, which a version has from its first failure on."""
        name = _breaker(manifest)
        if name in self.breakers:
            return await self.breakers.get(name).call(self._open, manifest)
        try:
            return await self._open(manifest)
        except Exception as error:  # noqa: BLE001 -- raised again through the breaker
            failure = error

        async def fail() -> Runner:
            raise failure

        return await self.breakers.get(name).call(fail)

    async def _open(self, manifest: Manifest) -> Runner:
        folder = self._folder_of(manifest)
        try:
            async with deadline(self._load_seconds):
                return await self._open_runner(folder, manifest)
        except DeadlineExceededError as expiry:
            raise ModelLoadError(f"{manifest.title} was not loaded within {self._load_seconds:g} s") from expiry
        except Exception as error:
            self._folder_of(manifest)  # it may have been removed meanwhile: then there is no such version, and no fault
            if not isinstance(error, AIError):
                raise ModelLoadError(f"{manifest.title} cannot be loaded: {classify(error).details}") from error
            # Callers are told what is wrong, not where our files are.
            error.where.pop("path", None)
            error.message = error.message.replace(f"{folder}{os.sep}", "")
            raise

    def _failure(self, place: _Place, error: BaseException) -> BaseException:
        """Return what those who wait are told, and keep it for those who come while the circuit is open."""
        if isinstance(error, asyncio.CancelledError) and self._closed:
            return _stopping()
        manifest = place.manifest
        if isinstance(error, CircuitOpenError) and manifest.key in self._failures:
            known = copy(self._failures[manifest.key][1])
            known.retry_after = error.retry_after
            return known
        if isinstance(error, AIError) and not isinstance(error, CircuitOpenError | NotFoundError):
            if not place.outdated:
                self._failures[manifest.key] = (manifest, error)
            logger.error(
                "a model cannot be loaded: %s", error,
                extra={"model": manifest.name, "version": manifest.version, "code": error.code, "hint": error.hint},
            )  # fmt: skip
        return error

    def _trim(self) -> None:
        """Close what was used least recently until the rest fits."""
        over = self._held() - self._limit
        if over <= 0:
            return
        for place in list(self._places.values())[:-1]:
            if over > 0 and place.runner is not None and not place.leases:
                over -= place.bytes
                self._close(place)

    def _all(self) -> list[_Place]:
        return [*self._outdated, *self._places.values()]

    def _held(self) -> int:
        return sum(place.bytes for place in self._all())

    def _close(self, place: _Place) -> None:
        """Close a runner that nobody has in hand; one that is still being loaded is closed when it is there."""
        runner, place.runner = place.runner, None
        if runner is not None:
            self._forget(place)
            self._start(self._close_runner(place.manifest, runner))

    def _forget(self, place: _Place) -> None:
        if self._places.get(place.manifest.key) is place:
            del self._places[place.manifest.key]
        self._outdated.discard(place)

    async def _close_runner(self, manifest: Manifest, runner: Runner) -> None:
        facts = _facts(manifest, runner)
        try:
            await runner.aclose()
        except Exception:
            logger.exception("a model could not be closed cleanly", extra=facts)
        else:
            logger.info("model unloaded", extra=facts)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain when nobody waited for it any more

    def _is_gone(self, manifest: Manifest) -> bool:
        try:
            self._folder_of(manifest)
        except NotFoundError:
            return True
        return False


def _label(manifest: Manifest) -> str:
    return f"{manifest.name}:{manifest.version}"


def _breaker(manifest: Manifest) -> str:
    return f"model:{_label(manifest)}"


def _facts(manifest: Manifest, runner: Runner) -> dict[str, Any]:
    return {"model": manifest.name, "version": manifest.version, "memory_bytes": runner.memory_bytes}


def _stopping() -> OverloadedError:
    return OverloadedError("the service is stopping: no model is loaded any more", retry_after=5.0)
