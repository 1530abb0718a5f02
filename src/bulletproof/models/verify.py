"""Versions tried out: does the file fit its checksum, does it load, does it predict?"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bulletproof.errors import ConfigurationError, ModelLoadError, classify
from bulletproof.models.checking import answers_of
from bulletproof.models.checksums import sha256_of
from bulletproof.models.manifest import Feature, Manifest
from bulletproof.workers import WorkerPool

Mark = Literal["ok", "failed", "skipped"]
_LOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a version.

    Args:
        name: The model.
        version: The version.
        manifest: Whether its manifest is valid and its files are there.
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

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


def verify_version(name: str, version: str, find: Callable[[], tuple[Path, Manifest]]) -> Verification:
    """Try a version out.

    Args:
        name: The model.
        version: The version.
        find: Gives its folder and its manifest.

    Returns:
        What was found; nothing is raised for what is wrong with it.
    """
    marks: dict[str, Mark] = {}
    stage = "manifest"
    try:
        folder, manifest = find()
        marks[stage], stage = "ok", "checksum"
        if manifest.file:
            check_file(folder, manifest)
            marks[stage] = "ok"
        stage = "loads"
        probe(folder, manifest)
    except Exception as error:  # noqa: BLE001 -- a model may raise anything; what it was is the answer
        diagnosis = classify(error)
        if stage == "loads" and not isinstance(error, ModelLoadError | ConfigurationError):
            marks[stage], stage = "ok", "predicts"
        marks[stage] = "failed"
        return Verification(name, version, **marks, code=diagnosis.code, problem=diagnosis.details, hint=diagnosis.hint)
    return Verification(name, version, **marks, loads="ok", predicts="ok")


def check_file(folder: Path, manifest: Manifest) -> None:
    """Compare the checksum of a version's file.

    Raises:
        ModelLoadError: ``model_tampered``, or the file cannot be read.
    """
    try:
        digest = sha256_of(folder / manifest.file)
    except OSError as error:
        raise ModelLoadError(f"{manifest.file} cannot be read: {error.strerror}") from error
    if digest != manifest.sha256:
        raise ModelLoadError(
            f"the SHA-256 of {manifest.file} is {digest}, not {manifest.sha256} as in the manifest",
            code="model_tampered",
        )


def probe(folder: Path, manifest: Manifest) -> None:
    """Load a version and have it predict a row; an isolated one in a worker process of its own.

    Raises:
        AIError: It cannot be loaded, cannot predict, or answers something else than its schema says.
    """
    if not manifest.isolated:
        predict_a_row(folder, manifest)
        return

    async def apart() -> None:
        pool = WorkerPool(1, name=f"{manifest.name} {manifest.version}")
        try:
            await pool.run(predict_a_row, folder, manifest, timeout=_LOAD_SECONDS)
        finally:
            await pool.aclose()

    # In a thread, as there may be an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, apart()).result()


def predict_a_row(folder: Path, manifest: Manifest) -> None:
    """Load a version and have it predict a row from the middle of what it takes."""
    from bulletproof.models.loading import open_predictor

    predictor = open_predictor(folder, manifest)
    row = [[_middle(feature) for feature in manifest.input.features]]
    answers_of(predictor.predict(np.array(row, dtype=np.float64)), 1, manifest.output)


def _middle(feature: Feature) -> float:
    least, greatest = feature.minimum, feature.maximum
    if least is not None and greatest is not None:
        middle = least + (greatest - least) / 2
        return float(np.floor(middle)) if feature.type == "int" and np.floor(middle) >= least else middle
    return next((bound for bound in (least, greatest) if bound is not None), 0.0)
