"""Answers predictions: validated, admitted, in time, checked, and typed when it cannot be."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from bulletproof.errors import (
    AIError,
    ErrorType,
    InputValidationError,
    NotFoundError,
    OverloadedError,
    classify,
)
from bulletproof.models.checking import Answer
from bulletproof.models.isolated import places_of
from bulletproof.models.lane import Lane
from bulletproof.models.loaded import LoadedModels
from bulletproof.models.manifest import Manifest
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.runners import open_runner
from bulletproof.models.trial import Trial, Trials
from bulletproof.monitor import AIErrorMonitor, default_monitor
from bulletproof.resilience import AdaptiveLimit, deadline

logger = logging.getLogger("bulletproof.models")

_LANES = 256
_FRESH_SECONDS = 0.001
_WARMED, _WARM_SECONDS = 16, 60.0  # models that are loaded ahead of time, and how long the others wait for one of them
_MEMORY_BYTES = 2 * 2**30  # of the models of a server that is given none


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered.

    Args:
        predictions: One for each row.
        model: Name of the model.
        model_version: The version that answered.
        single: Whether one row was sent, not a list of rows.
    """

    predictions: list[Answer]
    model: str
    model_version: str
    single: bool


class ModelServer:
    """Answers predictions from the models of a registry.

    Args:
        registry: The models there are.
        loaded: Those that are loaded; by default its own, which ``aclose`` closes.
        monitor: Where errors and successes are counted, under ``model:NAME``.
        default_model: Answers when no model is named; None for the registry's default.
        clock: Gives monotonic seconds.
        rng: Draws which requests a candidate version gets; a ``random.Random``.

    Example:
        >>> from pathlib import Path
        >>> async def main():
        ...     server = ModelServer(ModelRegistry(Path("no/such/folder")))
        ...     try:
        ...         answer = await server.predict([5.1, 3.5, 1.4, 0.2])
        ...         return answer.predictions[0].label, answer.model_version
        ...     finally:
        ...         await server.aclose()
        >>> asyncio.run(main())
        ('setosa', 'v1.0')
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        loaded: LoadedModels | None = None,
        monitor: AIErrorMonitor | None = None,
        default_model: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Any = random,
    ) -> None:
        self.registry = registry
        self.loaded = (
            loaded if loaded is not None else LoadedModels(open_runner, registry.folder_of, memory_bytes=_MEMORY_BYTES)
        )
        self.monitor = monitor if monitor is not None else default_monitor()
        self.default_model = default_model if default_model is not None else registry.default
        self._owns_loaded = loaded is None
        self._clock = clock
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._trials = Trials(
            lambda name, version: self._lane(self.registry.manifest(name, version)),
            on_failure=self._failed_beside, draw=rng.random, clock=clock,
        )  # fmt: skip
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._warming: asyncio.Task[None] | None = None
        self._told_of_load = -math.inf
        self._asked: tuple[tuple[str, str | None], float, Manifest | None] = (("", None), 0.0, None)

    async def predict(
        self,
        input_data: object,
        *,
        model: str | None = None,
        version: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Predict one row, or a list of rows.

        Args:
            input_data: A list of numbers, or a list of such lists, as a JSON parser gives it.
            model: Name of the model; None for the default one.
            version: As in ``v1.0``; None for the active one.
            timeout: Seconds for all of it, loading the model included. Once that is loaded, a prediction has at most
                what the model's limits allow, which is the default.

        Returns:
            The checked answer.

        Raises:
            InputValidationError: The input, the name or the time is not valid.
            NotFoundError: There is no such model or version; lists what there is.
            OverloadedError: No place is free, and none will be in time, or the model is being loaded; ``retry_after``
                says when.
            PredictionTimeoutError: The model did not answer in time.
            DeadlineExceededError: The time was over before the model was asked.
            ModelError: It cannot be loaded, failed, crashed, or answered rubbish.
            ResourceError: It ran out of memory.
            ExternalServiceError: The server of a remote model failed.
        """
        name = self.default_model if model is None else model
        began = self._clock()
        self._under_way += 1
        self._idle.clear()
        try:
            if self._draining:
                raise OverloadedError("this server is about to stop", hint="Ask another one, or later.", retry_after=5)
            prediction = await self._predict(input_data, name, version, timeout)
        except Exception as error:
            self._report(error, name)
            raise
        else:
            self.monitor.record_success(f"model:{prediction.model}", self._clock() - began)
            return prediction
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def warm(self) -> None:
        """Load the versions that answer by default, in the background, so that no request has to wait for that.

        The default model first, then the others, one after the other, as far as they have room; remote ones are left.
        One that cannot be loaded is told of by the log and by ``loaded.health``, as ever. ``aclose`` breaks it off.
        """
        if self._warming is None:
            self._warming = asyncio.create_task(self._warm(), context=Context())

    async def _warm(self) -> None:
        models = await asyncio.to_thread(self.registry.models)
        for model in sorted(models, key=lambda model: model.name != self.default_model)[:_WARMED]:
            try:
                manifest = self.registry.manifest(model.name)
                file = self.registry.folder_of(manifest) / manifest.file
                if manifest.type == "remote" or not self.loaded.has_room(file.stat().st_size):
                    continue
                with deadline(_WARM_SECONDS):
                    async with self.loaded.lease(manifest):
                        pass
            except (AIError, OSError) as error:
                logger.info("%s is not loaded ahead of time: %s", model.name, error)

    def reports(self) -> list[dict[str, Any]]:
        """Return how each candidate does beside its active version; see ``Trial.report``."""
        return [trial.report() for trial in self._trials.known.values()]

    def queues(self) -> dict[str, AdaptiveLimit]:
        """Return where requests wait, by ``model:NAME:VERSION``."""
        return {f"model:{name}:{version}": lane.limit for (name, version), lane in self._lanes.items()}

    async def drain(self, timeout: float) -> bool:
        """Take no more requests, and wait for those under way.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether all were answered in time.
        """
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d predictions are still under way", self._under_way)
            return False
        return True

    async def aclose(self) -> None:
        """Stop: comparisons are broken off, and models that were loaded here are let go."""
        self._draining = True
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        await self._trials.aclose()
        if self._owns_loaded:
            await self.loaded.aclose()

    def _manifest(self, name: str, version: str | None) -> Manifest:
        """Return what the registry says, which looks at the disk; under load that is a millisecond old at most."""
        now = time.monotonic()
        asked, until, known = self._asked
        if known is not None and now < until and asked == (name, version):
            return known
        manifest = self.registry.manifest(name, version)
        self._asked = ((name, version), now + _FRESH_SECONDS, manifest)
        return manifest

    async def _predict(self, data: object, name: str, version: str | None, timeout: float | None) -> Prediction:
        if not isinstance(name, str) or not (version is None or isinstance(version, str)):
            raise InputValidationError("model and model_version must be strings", field="model")
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise InputValidationError(f"timeout must be above 0 seconds, not {timeout!r}", field="timeout")
        lane = self._lane(self._manifest(name, version))
        rows, single = lane.read(data)
        rule = self.registry.rollout(name).candidate if version is None else None
        # What the limits allow begins once the model is loaded; what the client gives is for all of it.
        with deadline(timeout, clock=self._clock):
            if rule is None:
                return Prediction(await lane.predict(rows), name, lane.manifest.version, single)
            answered_by, answers = await self._trials.predict(lane, rule, rows, data)
            return Prediction(answers, name, answered_by, single)

    def _lane(self, manifest: Manifest) -> Lane:
        key = manifest.key
        lane = self._lanes.get(key)
        if lane is None or lane.manifest is not manifest:
            if len(self._lanes) >= _LANES:
                del self._lanes[next(iter(self._lanes))]
            limits = manifest.limits
            alone = manifest.isolated and limits.batch_rows == 1
            places = places_of(manifest) if alone else limits.max_concurrent
            lane = self._lanes[key] = Lane(
                manifest,
                self.loaded.lease,
                is_ready=self.loaded.is_ready,
                places=places,
                fixed=alone,
                usual=0.0 if lane is None else lane.usual,
                clock=self._clock,
            )
        return lane

    def _report(self, error: Exception, name: str) -> None:
        """Tell the monitor and the log, once."""
        found = classify(error)
        # Names come from callers: those that mean nothing are not counted one by one.
        service = "models" if isinstance(error, NotFoundError) or not isinstance(name, str) else f"model:{name}"
        self.monitor.record_exception(error, service)
        if found.error_type is ErrorType.VALIDATION:
            return
        if found.code == "overloaded":
            if self._clock() - self._told_of_load < 1:
                return  # a flood must not become one of log lines
            self._told_of_load = self._clock()
        notes = getattr(error, "__notes__", ())  # what the model said, which is not for callers
        bug = found.code in ("internal_error", "prediction_failed")
        logger.log(
            logging.ERROR if bug else logging.WARNING,
            "prediction of %s failed: %s: %s", name, found.code, found.details,
            exc_info=error if bug else None,
            extra={"code": found.code, "model": name} | ({"said": "; ".join(notes)} if notes else {}),
        )  # fmt: skip

    def _failed_beside(self, trial: Trial, error: Exception) -> None:
        """Report what no caller noticed: for whoever looks, but no ground for an alarm."""
        found = classify(error)
        context = {"code": found.code, "candidate_version": trial.rule.version, "mode": trial.rule.mode}
        self.monitor.record_error(str(found.error_type), f"candidate:{trial.model}", "low", found.details, **context)
        logger.info("a candidate of %s failed: %s", trial.model, found.details, extra=context)
