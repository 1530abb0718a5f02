"""Files and folders of the registry: written whole or not at all, read with care."""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from bulletproof.errors import InputValidationError, ModelLoadError
from bulletproof.models.checksums import sha256_of
from bulletproof.models.manifest import Manifest
from bulletproof.models.sources import fetch_model

fcntl: Any = import_module("fcntl") if os.name == "posix" else None

MANIFEST_FILE = "manifest.json"
M = TypeVar("M", bound=BaseModel)
Stamp = tuple[int, int, int]

_LARGEST_JSON = 16 * 2**20
_PROBLEMS_TOLD = 3
_FORGOTTEN_SECONDS = 86_400.0
_HELD = ".part-held-" if fcntl is not None else ".part-"
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,16}){1,2}")


def stamp_of(path: str) -> Stamp | None:
    """Return what changes whenever a file is replaced or written; None when there is none."""
    try:
        facts = os.stat(path)  # noqa: PTH116 -- asked for each request: half the cost of Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return 0, 0, 0  # there may be one: whoever reads it is told what is the matter
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def read_json(path: Path, kind: type[M], hint: str | None = None) -> M:
    """Read a small JSON file strictly; ``hint`` says what to do when it is broken.

    Raises:
        ModelLoadError: It cannot be read, is too large, or holds something else.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_JSON + 1)
    except OSError as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST_JSON:
        raise ModelLoadError(f"{path.name} is larger than {_LARGEST_JSON // 2**20} MiB")
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise ModelLoadError(f"{path.name}: {problems_of(error)}", hint=hint) from error


def problems_of(error: ValidationError) -> str:
    """Return in a line what is wrong, without the values."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    told = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in found[:_PROBLEMS_TOLD]]
    more = f"; and {len(found) - len(told)} more" if len(found) > len(told) else ""
    return "; ".join(told) + more


def read_version(root: Path, name: str, version: str) -> Manifest:
    """Read a version folder, whose content is not trusted, and out of which nothing may lead.

    Returns:
        Its manifest, which fits the folder, and whose file is there.

    Raises:
        ModelLoadError: Something is wrong with it; says what.
    """
    folder = root / name / version
    _inside(root, folder / MANIFEST_FILE)
    manifest = read_json(folder / MANIFEST_FILE, Manifest, "Correct the manifest, or remove the version.")
    if manifest.key != (name, version):
        raise ModelLoadError(
            f"{MANIFEST_FILE} is that of {manifest.title}, but lies in {name}/{version}",
            hint="Correct name and version in the manifest, or move the folder.",
        )
    if manifest.file:
        _inside(root, folder / manifest.file)
    return manifest


def _inside(root: Path, path: Path) -> None:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelLoadError(f"{path.name} is missing", hint="Put the file back, or remove the version.") from error
    if not real.is_relative_to(root.resolve()):
        raise ModelLoadError(
            f"{path.name} leads out of the folder of models by a link", hint="Put the file itself there."
        )
    if not real.is_file() and (path.name == MANIFEST_FILE or not real.is_dir()):
        raise ModelLoadError(f"{path.name} is no file")


def write_json(path: Path, value: BaseModel) -> None:
    """Write a small JSON file: others see the old one or the new one, whatever happens."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with part.open("wb") as file:
            file.write(value.model_dump_json(indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries outlive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_in(source: str | Path, folder: Path, sha256: str | None = None) -> tuple[str, str]:
    """Bring a model file, or folder, or the file at an address, into a folder.

    Returns:
        Its name there, which keeps the ending, and its SHA-256.

    Raises:
        InputValidationError: It is not there, or is empty.
        ModelLoadError: It cannot be fetched, or has another checksum.
    """
    address = str(source)
    path = Path(urlsplit(address).path if "://" in address else address)
    ending = next((end for end in ("".join(path.suffixes[-2:]), path.suffix) if _ENDING.fullmatch(end)), "")
    target = folder / f"model{ending}"
    if "://" in address:
        path = fetch_model(address, target, sha256=sha256)
    if path != target:
        if not path.exists():
            raise InputValidationError(f"there is no file {path}", code="file_not_found")
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
    files = [file for file in (target, *target.rglob("*")) if file.is_file()]
    if not any(file.stat().st_size for file in files):
        raise InputValidationError(f"{path.name} is empty", code="empty_file")
    for file in files:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    digest = sha256_of(target)  # of what was written: the source may have changed meanwhile
    if sha256 is not None and digest != sha256.strip().lower():
        raise ModelLoadError(f"the SHA-256 of {path.name} is {digest}, not {sha256}", code="model_tampered")
    return target.name, digest


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Lend a folder beside the models that nobody lists; what processes left that were killed is removed."""
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob(".part-*"):
        with suppress(OSError):  # somebody else removes it this moment
            if time.time() - old.lstat().st_mtime > _FORGOTTEN_SECONDS or _is_forsaken(old):
                discard(old)
    folder = root / f"{_HELD}{secrets.token_hex(8)}"
    # The lock goes with the process, however that ends; it is there before the name by which others look for folders.
    with _held(root / f".new{folder.name}") as new:
        try:
            new.rename(folder)
            yield folder
        finally:
            discard(folder)


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """Make a folder and keep a lock on it, where the system has such."""
    folder.mkdir()
    if fcntl is None:
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def _is_forsaken(folder: Path) -> bool:
    """Tell whether nobody holds a scratch folder any more that was held."""
    if fcntl is None or folder.is_symlink() or not folder.name.startswith(_HELD):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or this file system has no locks
        return False
    finally:
        os.close(descriptor)
    return True


def discard(folder: Path) -> None:
    """Remove a folder, or the link that leads to one."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes from changing the registry meanwhile; readers need no lock."""
    root.mkdir(parents=True, exist_ok=True)
    if fcntl is None:  # each change is still whole by itself
        yield
        return
    with (root / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
