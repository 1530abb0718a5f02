"""The models there are: a folder of versions, each described by a manifest."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bulletproof.errors import AIError, InputValidationError, ModelLoadError
from bulletproof.models.catalog import ModelCatalog, VersionInfo
from bulletproof.models.files import MANIFEST_FILE, copy_in, locked, problems_of, scratch, sync_folder, write_json
from bulletproof.models.formats import FORMATS, sniff
from bulletproof.models.manifest import NAME, NAMING, VERSION, VERSIONING, InputSchema, Limits, Manifest, OutputSchema
from bulletproof.models.rollout import ROLLOUT_FILE, Candidate, Rollout
from bulletproof.models.verify import LOAD_SECONDS, Verification, probe, verify_version


class ModelRegistry(ModelCatalog):
    """The versions in ``folder/<name>/<version>/``, and those that come with the package.

    What lies in the folder is not trusted: one broken version is listed with what is wrong and hinders no other.
    Changes are made whole or not at all, so that any number of processes may read and change it; each sees them at
    once.

    Args:
        folder: The folder; it need not exist. A version in it goes before one of the package.
        bundled: Whether the models of the package are there too.
        default: The model that is meant when none is named.
        clock: Gives monotonic seconds.
        now: Gives the present moment (aware UTC).

    Example:
        >>> registry = ModelRegistry(Path("no/such/folder"))
        >>> registry.manifest().name, registry.manifest().version
        ('iris', 'v1.0')
        >>> registry.manifest("iris", "v9.9")
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.NotFoundError: there is no version 'v9.9' of iris: there are v1.0, v1.1
    """

    def verify(
        self, name: str | None = None, version: str | None = None, *, load_seconds: float = LOAD_SECONDS
    ) -> list[Verification]:
        """Try versions out: read the manifest, compare the checksum, load the model, predict a row.

        Loading a model runs its code where its format allows that.

        Args:
            name: The model; None for all.
            version: The version; None for all.
            load_seconds: Seconds that loading each may take.

        Returns:
            What was found, for each version.

        Raises:
            NotFoundError: There is nothing of that name.
        """
        rows = []
        for model in self.models():
            if name not in (None, model.name):
                continue
            if model.problem:
                rows.append(Verification(model.name, "", "failed", code="model_load_failed", problem=model.problem))
            for item in model.versions:
                if version in (None, item.version):
                    find = partial(self._located, model.name, item)
                    rows.append(verify_version(model.name, item.version, find, load_seconds=load_seconds))
        if not any(row.version for row in rows) and (version is not None or (name is not None and not rows)):
            self._raise_unknown(name or self.default, version or "")
        return rows

    # Changing.

    def add(
        self,
        name: str,
        version: str,
        source: str | Path,
        *,
        input: InputSchema,  # noqa: A002 -- as in the manifest
        output: OutputSchema,
        type: str | None = None,  # noqa: A002
        limits: Limits = Limits(),  # noqa: B008 -- frozen
        isolated: bool = False,
        description: str = "",
        sha256: str | None = None,
        verify: bool = False,
        load_seconds: float = LOAD_SECONDS,
    ) -> Manifest:
        """Add a version. The first one of a model becomes its active one.

        Args:
            name: The model.
            version: As in ``v1.0``; must not be there yet.
            source: The file, which is copied, or its address, which is fetched; of a ``remote`` model its address.
            input: What goes in.
            output: What comes out.
            type: Loader, such as ``onnx``; None to tell by what is in the file.
            limits: What a prediction may take.
            isolated: Whether it runs in a worker process that can be killed alone.
            description: For people.
            sha256: What the checksum must be; None when it is not known.
            verify: Whether to load it and predict a row before anybody else sees it.
            load_seconds: Seconds that this may take to load it.

        Returns:
            Its manifest.

        Raises:
            InputValidationError: Name, version or something else is not allowed, or the version is there already.
            ModelLoadError: The checksum differs, or it does not stand the test.
        """
        check_names(name, version)
        self._refuse_present(name, version)
        with scratch(self.folder) as part:
            home = part / version
            home.mkdir()
            file, digest, url = "", "", ""
            if type == "remote":
                url = str(source)
            else:
                file, digest = copy_in(source, home, sha256)
            try:
                manifest = Manifest(
                    name=name, version=version, type=type or _type_of(home / file), file=file, sha256=digest, url=url,
                    input=input, output=output, limits=limits, isolated=isolated, description=description,
                    created=self._now(),
                )  # fmt: skip
            except ValidationError as error:
                raise InputValidationError(f"this is no valid manifest: {problems_of(error)}") from error
            write_json(home / MANIFEST_FILE, manifest)
            if verify:
                try:
                    probe(home, manifest, load_seconds=load_seconds)
                except AIError as error:
                    error.where.pop("path", None)  # that of the scratch folder, which is gone when this is read
                    raise
            self._take_in(home, manifest)
        return manifest

    def activate(self, name: str, version: str) -> None:
        """Have a version answer the requests that name none; a candidate that becomes active is none any more.

        Raises:
            NotFoundError: There is no such version.
            ModelLoadError: It is broken.
        """
        with locked(self.folder):
            self.manifest(name, version)
            candidate = self._candidate(name)
            keep = candidate if candidate is not None and candidate.version != version else None
            self._write(name, Rollout(active=version, candidate=keep))

    def remove(self, name: str, version: str) -> None:
        """Remove a version; if it is tried out that ends.

        Raises:
            NotFoundError: There is no such version.
            InputValidationError: It is the active one and not the last, or it comes with the package.
        """
        with locked(self.folder):
            item = next((item for item in self._describe(name).versions if item.version == version), None)
            if item is None:
                self._raise_unknown(name, version)
            elif item.bundled:
                raise InputValidationError(
                    f"{version} of {name} comes with bulletproof and cannot be removed",
                    hint="Activate another version, or set BULLETPROOF_DEFAULT_MODEL to another model.",
                )
            self._take_out(name, version)

    def canary(self, name: str, version: str, share: float) -> None:
        """Have a share of the requests that name no version answered by a candidate.

        Args:
            name: The model.
            version: The candidate; takes and gives the same as the active version.
            share: In (0, 1].

        Raises:
            NotFoundError: There is no such version.
            InputValidationError: The share is none, or the candidate cannot stand in for the active version.
        """
        self._try_out(name, version, share, "canary")

    def shadow(self, name: str, version: str, share: float) -> None:
        """Ask a candidate too, and only compare what it answers; arguments and errors are those of ``canary``."""
        self._try_out(name, version, share, "shadow")

    def stop_rollout(self, name: str) -> None:
        """End the trial of a candidate; nothing happens when there is none.

        Raises:
            NotFoundError: There is no such model.
        """
        with locked(self.folder):
            rollout = self.rollout(name)
            if rollout.candidate is not None:
                self._write(name, Rollout(active=rollout.active))

    # Within.

    def _located(self, name: str, item: VersionInfo) -> tuple[Path, Manifest]:
        if not VERSION.fullmatch(item.version):
            raise ModelLoadError(item.problem, hint="Rename the folder, or move it out of the registry.")
        manifest = self.manifest(name, item.version)
        return self.folder_of(manifest), manifest

    def _refuse_present(self, name: str, version: str) -> None:
        if version in [item.version for item in self._versions_of(name)]:
            raise InputValidationError(
                f"{name} {version} is there already: a version is never overwritten",
                hint="Choose the next version, or remove this one first.",
            )

    def _take_in(self, part: Path, manifest: Manifest) -> None:
        """Give a finished folder its name."""
        home = self.folder / manifest.name
        with locked(self.folder):
            self._refuse_present(manifest.name, manifest.version)
            active = None
            if not any((root / manifest.name / ROLLOUT_FILE).exists() for root in self._roots):
                # Written down, so that no other version becomes active by merely being there.
                there = any(item.manifest is not None for item in self._versions_of(manifest.name))
                active = self.rollout(manifest.name).active if there else manifest.version
            home.mkdir(exist_ok=True)
            part.rename(home / manifest.version)
            for folder in (home, self.folder):
                sync_folder(folder)
            if active is not None:
                self._write(manifest.name, Rollout(active=active))

    def _take_out(self, name: str, version: str) -> None:
        left = [item for item in self._versions_of(name) if item.version != version]
        if left:
            rollout = self.rollout(name)
            if rollout.active == version:
                others = ", ".join(item.version for item in left)
                raise InputValidationError(
                    f"{version} is the active version of {name}",
                    hint=f"Activate another first ({others}): bulletproof models activate {name} VERSION",
                )
            if rollout.candidate is not None and rollout.candidate.version == version:
                self._write(name, Rollout(active=rollout.active))
        home = self.folder / name
        with scratch(self.folder) as part:
            (home / version).rename(part / version)
        if not left:
            (home / ROLLOUT_FILE).unlink(missing_ok=True)
            with suppress(OSError):  # somebody keeps other files there
                home.rmdir()

    def _try_out(self, name: str, version: str, share: float, mode: Literal["canary", "shadow"]) -> None:
        with locked(self.folder):
            candidate, active = self.manifest(name, version), self.manifest(name)
            if candidate.version == active.version:
                raise InputValidationError(f"{version} is the active version of {name} already")
            if _shape(candidate) != _shape(active):
                raise InputValidationError(
                    f"{version} takes or gives something else than the active {active.version} of {name}",
                    hint="Only versions with as many features and the same output can be tried out beside each other.",
                )
            try:
                trial = Candidate(version=version, share=share, mode=mode)
            except ValidationError as error:
                raise InputValidationError(f"share must be above 0 and at most 1, not {share!r}") from error
            self._write(name, Rollout(active=active.version, candidate=trial))

    def _candidate(self, name: str) -> Candidate | None:
        try:
            return self.rollout(name).candidate
        except ModelLoadError:
            return None  # activating a version is how a broken rollout.json is mended

    def _write(self, name: str, rollout: Rollout) -> None:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / ROLLOUT_FILE, rollout)


def _type_of(path: Path) -> str:
    found = FORMATS[sniff(path)]
    if not found.model_type:
        raise InputValidationError(f"this is {found.label}", hint=found.hint or "Say its type, or convert it to ONNX.")
    return found.model_type


def _shape(manifest: Manifest) -> tuple[object, ...]:
    return len(manifest.input.features), manifest.output.kind, manifest.output.classes


def check_names(name: str, version: str) -> None:
    """Refuse what cannot be the name of a model, or a version.

    Raises:
        InputValidationError: Says what is expected.
    """
    if not NAME.fullmatch(name):
        raise InputValidationError(f"{name[:64]!r} cannot be the name of a model: expected {NAMING}")
    if not VERSION.fullmatch(version):
        raise InputValidationError(f"{version[:64]!r} cannot be a version: expected {VERSIONING}")
