"""What a loader is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bulletproof.models.load_failures import RefusedError
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Predictor


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What is to be loaded.

    Args:
        path: The file or folder.
        stream: The file, opened and at its beginning: what the checksum was computed from; None for a folder.
        format: What its content is, a key of ``formats.FORMATS``.
        checked: Whether its checksum was asked for, so that nothing but this file may be read.
    """

    path: Path
    stream: BinaryIO | None
    format: str
    checked: bool


@dataclass(frozen=True, slots=True)
class Loader:
    """How models of one type are loaded.

    Args:
        load: Returns the library's own object.
        adapt: Makes a ``Predictor`` of that object, for the version that the manifest describes, from the file at the
            path.
        formats: Kinds of files it takes, keys of ``formats.FORMATS``; others are refused.
        folders: Whether it loads folders.
        check: Raises when the object cannot predict.
        takes: Names of its formats for people; empty where the library may know more than we do, so that files of no
            known kind are left to it.
    """

    load: Callable[[ModelFile], Any]
    adapt: Callable[[Any, Manifest, Path], Predictor]
    formats: frozenset[str]
    folders: bool = False
    check: Callable[[Any], None] = lambda _: None
    takes: str = ""


class NoModelError(RefusedError):
    """What was loaded is something else than a model."""

    def __init__(self, found: Any) -> None:
        super().__init__(
            f"what was loaded is a {type(found).__name__}, which cannot predict",
            "Save the fitted model itself, or the whole pipeline that ends in one.",
        )
