"""Versions tried out: does the file fit its checksum, does it load, does it predict?"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bulletproof.errors import AIError, ModelLoadError, classify
from bulletproof.models.checking import answers_of
from bulletproof.models.checksums import sha256_of
from bulletproof.models.manifest import Feature, Manifest
from bulletproof.models.runner import Runner
from bulletproof.models.runners import open_runner

Mark = Literal["ok", "failed", "skipped"]
Tell = Callable[[str], None]

LOAD_SECONDS = 60.0
"""Seconds that loading may take when a version is tried out."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a version.

    Args:
        name: The model.
        version: The version; empty for what is wrong with the model as a whole.
        manifest: Whether its manifest is valid and its file is there.
        checksum: Whether the file fits its checksum; skipped for a remote model.
        loads: Whether it can be loaded.
        predicts: Whether it answers a row that its schema allows with what its schema says.
        code: Of the error; empty when nothing is wrong.
        problem: What is wrong; empty when nothing is.
        hint: What to do about it.
    """

    name: str
    version: str
    manifest: Mark = "skipped"
    checksum: Mark = "skipped"
    loads: Mark = "skipped"
    predicts: Mark = "skipped"
    code: str = ""
    problem: str = ""
    hint: str = ""


def verify_version(
    name: str, version: str, find: Callable[[], tuple[Path, Manifest]], *, load_seconds: float = LOAD_SECONDS
) -> Verification:
    """Try a version out; nothing is raised for what is wrong with it."""
    marks: dict[str, Mark] = {}
    stages = ["manifest"]
    try:
        folder, manifest = find()
        stages.append("checksum")
        check_file(folder, manifest)
        probe(folder, manifest, stages.append, load_seconds=load_seconds)
    except Exception as error:  # noqa: BLE001 -- a model may raise anything; what it was is the answer
        found = classify(error)
        marks[stages.pop()] = "failed"
        marks |= dict.fromkeys(stages, "ok")
        return Verification(name, version, **marks, code=found.code, problem=found.details, hint=found.hint)
    return Verification(name, version, "ok", "ok" if manifest.file else "skipped", "ok", "ok")


def check_file(folder: Path, manifest: Manifest) -> None:
    """Compare the checksum of a version's file, if it has one.

    Raises:
        ModelLoadError: ``model_tampered``, or the file cannot be read.
    """
    if not manifest.file:
        return
    try:
        found = sha256_of(folder / manifest.file)
    except OSError as error:
        raise ModelLoadError(f"{manifest.file} cannot be read: {error.strerror}") from error
    if found != manifest.sha256:
        raise ModelLoadError(
            f"{manifest.file} has the checksum {found[:16]}..., and its manifest says {manifest.sha256[:16]}...",
            code="model_tampered",
        )


def probe(folder: Path, manifest: Manifest, tell: Tell = lambda _: None, *, load_seconds: float = LOAD_SECONDS) -> None:
    """Load a version as the service would and have it predict a row from the middle of what it takes.

    Args:
        folder: Where it lies.
        manifest: What is known of it.
        tell: Gets each stage when it begins.
        load_seconds: Seconds that loading it may take; a thread that goes on beyond them ends with this process.

    Raises:
        AIError: It cannot be loaded, or not in time, cannot predict, or answers something else than its schema says.
    """

    async def attempt() -> None:
        tell("loads")
        runner = await _opened(folder, manifest, load_seconds)
        try:
            tell("predicts")
            row = np.array([[_middle(feature) for feature in manifest.input.features]], dtype=np.float64)
            answers_of(await runner.run(row, timeout=manifest.limits.timeout_seconds), 1, manifest.output)
        finally:
            await runner.aclose()

    _run(attempt)


async def _opened(folder: Path, manifest: Manifest, seconds: float) -> Runner:
    try:
        async with asyncio.timeout(seconds):
            return await open_runner(folder, manifest)
    except TimeoutError as expiry:
        if isinstance(expiry, AIError):
            raise
        raise ModelLoadError(
            f"{manifest.title} was not loaded within {seconds:g} s",
            hint="Look at what it does while it is loaded, or allow it more time: --load-timeout SECONDS.",
        ) from expiry


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine here; where an event loop runs already, in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
    else:
        with ThreadPoolExecutor(1, "bulletproof-verify") as thread:
            thread.submit(asyncio.run, work()).result()


def _middle(feature: Feature) -> float:
    least, greatest = feature.minimum, feature.maximum
    if least is None or greatest is None:
        least = greatest = next((bound for bound in (least, greatest) if bound is not None), 0.0)
    middle = least / 2 + greatest / 2  # their difference may be too large for a number
    if feature.type == "float":
        return middle
    return float(np.ceil(least) if feature.minimum is not None else np.floor(middle))
