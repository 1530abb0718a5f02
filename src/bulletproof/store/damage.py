"""A damaged SQLite file: moved aside and said, so that results are kept again; never replaced in silence."""

import logging
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from bulletproof.errors import StoreError
from bulletproof.store.address import Address

JOBS_FILE = "jobs.db"
"""The jobs of batches, beside the results."""
CHECKED_BYTES = 64 * 2**20
"""Largest file that is looked at as a whole when it is opened."""
Identity = tuple[int, int]

_CORRUPT, _NOT_A_DATABASE = 11, 26  # https://www.sqlite.org/rescode.html
_HEADER = b"SQLite format 3\0"
_MOST_ASIDE = 3  # more than that is a bad disk: another new file would not last
_LEFT_HINT = (
    "Restore {path} from a backup; or move it away, together with the files of the same name that end in -wal and "
    "-shm, and a new one is made. 'sqlite3 {path} .recover' gets out what can still be read."
)
_MOVED_HINT = (
    "'sqlite3 {path} .recover' gets out what can still be read; or restore a backup in place of the new file. Then "
    "remove {path} and its -wal and -shm: until then the service counts as degraded."
)
_log = logging.getLogger("bulletproof.store")


class DamagedError(StoreError):
    """A file that is no database, or not a whole one."""


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite says so of its file."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def damaged(address: Address, details: str) -> DamagedError:
    """Return the error for a damaged file that is where it was."""
    return DamagedError(
        f"{address} is damaged: {details}. Nothing was changed in it",
        retryable=False,
        hint=_LEFT_HINT.format(path=address.path),
    )


def identity_of(path: Path) -> Identity | None:
    """Return what tells a file from another one of the same name; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def set_aside(path: Path, opened: Identity | None, *, named: bool) -> Path | None:
    """Move a damaged database, and what belongs to it, out of the way.

    Args:
        path: The file.
        opened: Which one was found damaged: another one in its place is left alone.
        named: Whether the user named the file; then what does not even look like a database is somebody else's.

    Returns:
        Where it is now, ``NAME.corrupt-TIME``; None when it was left where it was.
    """
    if len(found_aside(path)) >= _MOST_ASIDE or identity_of(path) != opened:
        return None
    target = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    try:
        with path.open("rb") as file:
            if named and file.read(len(_HEADER)) != _HEADER:
                return None
        # Before the connections are closed: SQLite would write into it then, or remove its -wal.
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{target}{suffix}")
        path.rename(target)
    except OSError:
        return None
    return target


def moved(address: Address, target: Path, details: str) -> DamagedError:
    """Return the error for a damaged file that was moved aside."""
    return DamagedError(
        f"{address} is damaged: {details}. It was moved aside, unchanged, to {target}; from now on a new one is used, "
        "without what was stored before",
        hint=_MOVED_HINT.format(path=target),
        retryable=False,
    )


def clear_way(path: Path) -> None:
    """Look at a database before anybody uses it, and move it aside if it is damaged."""
    opened = identity_of(path)
    if opened is None or path.stat().st_size > CHECKED_BYTES:
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error) if is_damage(error) else "ok"
    if found != "ok" and (target := set_aside(path, opened, named=False)) is not None:
        known = moved(Address("sqlite", f"sqlite:///{path}", path), target, found)
        _log.error("%s", known, extra={"code": known.code, "hint": known.hint})


def found_aside(path: Path | None) -> list[Path]:
    """Return the damaged files that were moved aside and that nobody has seen to."""
    if path is None or not path.parent.is_dir():
        return []
    files = (file for file in path.parent.iterdir() if file.name.startswith(f"{path.name}.corrupt-"))
    return sorted(file for file in files if not file.name.endswith(("-wal", "-shm")))


def still_aside(address: Address) -> StoreError | None:
    """Return what an operator has to see to, if there is anything."""
    path = address.path
    found = found_aside(path) + found_aside(path.with_name(JOBS_FILE) if path is not None else None)
    if not found:
        return None
    names = ", ".join(str(file) for file in found)
    return DamagedError(
        f"a database file was damaged and begun anew; what was in it before is in {names}",
        hint=_MOVED_HINT.format(path=found[-1]),
    )
