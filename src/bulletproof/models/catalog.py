"""What lies in the folder of models, read anew when it changes."""

import os
import time
from collections.abc import Callable, Hashable, Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from bulletproof.errors import AIError, ConfigurationError, ModelLoadError, NotFoundError
from bulletproof.models.files import MANIFEST_FILE, Stamp, read_json, read_version, stamp_of
from bulletproof.models.manifest import NAME, NAMING, VERSION, VERSIONING, Manifest
from bulletproof.models.rollout import ROLLOUT_FILE, Candidate, Rollout

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_BUNDLED = Path(__file__).parent / "bundled"
_RECHECK_SECONDS = 1.0
_TOLD = 20


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version that lies in the registry.

    Args:
        version: As its folder is named.
        manifest: None when it cannot be used.
        problem: Why it cannot be used; empty when it can.
        bundled: Whether it comes with the package.
    """

    version: str
    manifest: Manifest | None
    problem: str = ""
    bundled: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that lies in the registry.

    Args:
        name: As its folder is named.
        active: The version that answers requests that name none; None when that is not known.
        versions: The oldest first.
        candidate: The version that is tried out, if any.
        problem: What is wrong with the model as a whole; empty when nothing is.
    """

    name: str
    active: str | None
    versions: tuple[VersionInfo, ...]
    candidate: Candidate | None = None
    problem: str = ""


@dataclass(slots=True)
class _Sight:
    """By what a change is seen.

    Args:
        files: The files that were looked at, with their stamps.
        soon: Whether these do not tell all, so that it is looked at anew after a while.
    """

    files: dict[str, Stamp | None] = field(default_factory=dict)
    soon: bool = False


@dataclass(frozen=True, slots=True)
class _Known(Generic[V]):
    value: V | AIError
    files: tuple[tuple[str, Stamp | None], ...]
    until: float | None


class ModelCatalog:
    """What ``ModelRegistry`` reads from; see there."""

    def __init__(
        self,
        folder: Path,
        *,
        bundled: bool = True,
        default: str = "iris",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.default = default
        self._clock = clock
        self._now = now
        self._roots: tuple[Path, ...] = (folder, _BUNDLED) if bundled else (folder,)
        self._manifests: dict[tuple[str, str | None], _Known[Manifest]] = {}
        self._rollouts: dict[str, _Known[Rollout]] = {}

    def models(self) -> list[ModelInfo]:
        """Return everything there is, the broken with what is wrong.

        Raises:
            ConfigurationError: The folder itself cannot be read.
        """
        try:
            names = {name for root in self._roots for name in _subfolders(root)}
        except OSError as error:
            raise ConfigurationError(f"the folder of models cannot be read: {error}") from error
        found = [self._describe(name) for name in sorted(names)]
        return [model for model in found if model.versions or model.problem]

    def manifest(self, name: str | None = None, version: str | None = None) -> Manifest:
        """Return the manifest of a version; cheap enough for each request.

        Args:
            name: The model; None for the default one.
            version: The version; None for the active one.

        Returns:
            Its manifest as it is now.

        Raises:
            NotFoundError: ``unknown_model`` or ``unknown_model_version``; lists what there is.
            ModelLoadError: It is there but broken.
        """
        name = self.default if name is None else name
        found = self._look(name, version)
        return found if found is not None else self._raise_unknown(name, version)

    def rollout(self, name: str | None = None) -> Rollout:
        """Return which version of a model answers and which is tried out; cheap enough for each request.

        Without a ``rollout.json`` the oldest version that is not broken answers: none becomes active by being there.

        Raises:
            NotFoundError: There is no such model.
            ModelLoadError: Its ``rollout.json`` is broken, or all its versions are.
        """
        name = self.default if name is None else name
        found = self._recall(self._rollouts, name, partial(self._find_rollout, name))
        return found if found is not None else self._raise_unknown(name)

    def folder_of(self, manifest: Manifest) -> Path:
        """Return the folder in which a version lies."""
        places = [root / manifest.name / manifest.version for root in self._roots]
        found = next((place for place in places if (place / MANIFEST_FILE).exists()), None)
        return found if found is not None else self._raise_unknown(manifest.name, manifest.version)

    # Within.

    def _look(self, name: str, version: str | None) -> Manifest | None:
        return self._recall(self._manifests, (name, version), partial(self._find, name, version))

    def _recall(self, memory: dict[K, _Known[V]], key: K, find: Callable[[_Sight], V | None]) -> V | None:
        """Return what was found when a file of it was last changed; this is asked for each request."""
        known = memory.get(key)
        if known is None or not self._holds(known):
            sight = _Sight()
            value: V | AIError | None
            try:
                value = find(sight)
            except AIError as error:
                value, sight.soon = error, True  # what is wrong may be mended in another file
            if value is None:
                return None  # names come from callers: nothing is kept of those that are not there
            until = self._clock() + _RECHECK_SECONDS if sight.soon else None
            known = memory[key] = _Known(value, tuple(sight.files.items()), until)
        if isinstance(known.value, AIError):
            raise copy(known.value) from known.value.__cause__  # one raised again and again collects tracebacks
        return known.value

    def _holds(self, known: _Known[V]) -> bool:
        for path, stamp in known.files:
            if os.access(path, os.F_OK) if stamp is None else stamp_of(path) != stamp:
                return False
        return known.until is None or self._clock() < known.until

    def _present(self, sight: _Sight, name: str, *parts: str) -> Iterator[tuple[Path, Path]]:
        """Yield the files of this name that there are, each after the root it is under; note by what that is seen."""
        for root in self._roots:
            home = f"{root}/{name}"
            path = "/".join((home, *parts))
            stamp = stamp_of(path)
            if root is self.folder:  # those of the package do not change
                sight.files[path if stamp is not None or os.access(home, os.F_OK) else home] = stamp
            if stamp is not None:
                yield root, Path(path)

    def _find(self, name: str, version: str | None, sight: _Sight) -> Manifest | None:
        if version is None:
            return self._find_active(name, sight)
        if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
            return None
        for root, _ in self._present(sight, name, version, MANIFEST_FILE):
            return read_version(root, name, version)
        for root in self._roots:
            if (root / name / version).is_dir():
                return read_version(root, name, version)  # says what is missing
        return None

    def _find_active(self, name: str, sight: _Sight) -> Manifest | None:
        rollout = self._find_rollout(name, sight)
        if rollout is None:
            return None
        manifest = self._find(name, rollout.active, sight)
        if manifest is None:
            # Between the two looks another may have been activated, and this one removed.
            again = self._find_rollout(name, sight) or rollout
            manifest = self._find(name, again.active, sight)
        if manifest is None:
            raise ModelLoadError(
                f"version {rollout.active} of {name} is the active one, but it is gone",
                hint=f"Activate another: bulletproof models activate {name} VERSION",
            )
        return manifest

    def _find_rollout(self, name: str, sight: _Sight) -> Rollout | None:
        if not NAME.fullmatch(name):
            return None
        for _, path in self._present(sight, name, ROLLOUT_FILE):
            return read_json(path, Rollout, f"Activate a version: bulletproof models activate {name} VERSION")
        sight.soon = True
        versions = self._versions_of(name)
        usable = [item.version for item in versions if item.manifest is not None]
        if versions and not usable:
            raise ModelLoadError(f"no version of {name} can be used: {versions[-1].version}: {versions[-1].problem}")
        return Rollout(active=usable[0]) if usable else None

    def _describe(self, name: str) -> ModelInfo:
        if not NAME.fullmatch(name):
            return ModelInfo(_printable(name), None, (), problem=f"no name of a model: {NAMING}")
        versions: tuple[VersionInfo, ...] = ()
        try:
            versions = self._versions_of(name)
            if not versions:
                return ModelInfo(name, None, ())
            rollout = self.rollout(name)
            if rollout.active not in [item.version for item in versions]:
                versions = self._versions_of(name)  # it may have come and been activated since
        except AIError as error:
            return ModelInfo(name, None, versions, problem=str(error))
        there = rollout.active in [item.version for item in versions]
        problem = "" if there else f"the active version {rollout.active} is gone: activate another"
        return ModelInfo(name, rollout.active, versions, rollout.candidate, problem)

    def _versions_of(self, name: str) -> tuple[VersionInfo, ...]:
        try:
            own, *others = (_subfolders(root / name) for root in self._roots)
        except OSError as error:
            raise ModelLoadError(f"the folder of {name} cannot be read: {error.strerror}") from error
        names = sorted({*own, *chain.from_iterable(others)}, key=_age)
        found = [self._version(name, version, bundled=version not in own) for version in names]
        return tuple(item for item in found if item is not None)

    def _version(self, name: str, version: str, *, bundled: bool) -> VersionInfo | None:
        if not VERSION.fullmatch(version):
            return VersionInfo(_printable(version), None, f"no version: {VERSIONING}", bundled)
        try:
            manifest = self._look(name, version)
        except AIError as error:
            return VersionInfo(version, None, str(error), bundled)
        return VersionInfo(version, manifest, "", bundled) if manifest is not None else None  # it has just gone

    def _raise_unknown(self, name: str, version: str | None = None) -> NoReturn:
        there = [item.version for item in self._versions_of(name)] if NAME.fullmatch(name) else []
        if there and version is not None:
            raise NotFoundError(
                f"there is no version {version[:64]!r} of {name}: {_listed(there)}", code="unknown_model_version"
            )
        there = [model.name for model in self.models() if model.versions]
        raise NotFoundError(f"there is no model {name[:64]!r}: {_listed(there)}", code="unknown_model")


def _subfolders(folder: Path) -> list[str]:
    """Return what may be a model or a version; hidden ones are work under way or what a crash left."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.name[:1] != "." and _leads_to_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _age(version: str) -> tuple[bool, list[int], str]:
    fits = VERSION.fullmatch(version) is not None
    return fits, [int(part) for part in version[1:].split(".")] if fits else [], version


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()[:128]


def _listed(names: list[str]) -> str:
    if not names:
        return "there is none"
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_TOLD])}{more}"
