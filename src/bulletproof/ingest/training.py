"""Training data from a JSON file: rows of numbers under ``X``, labels under ``y``."""

import json
import logging
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bulletproof.errors import (
    AIError,
    ConfigurationError,
    FileTooLargeError,
    InputValidationError,
    InvalidFileError,
    ResourceError,
)
from bulletproof.ingest.encoding import bom_of
from bulletproof.ingest.json_stream import kind_of
from bulletproof.ingest.records import MIB, IngestLimits, listing, shorten
from bulletproof.ingest.strict_json import Flaw, StrictDecoder
from bulletproof.monitor import default_monitor

if TYPE_CHECKING:
    import pandas as pd

# The numbers of a file take about ten times its size in memory while they are checked.
MAX_TRAINING_BYTES = 256 * MIB
_SHAPE = 'expected an object such as {"X": [[1, 2], [3, 4]], "y": [0, 1]}'

logger = logging.getLogger("bulletproof.ingest")


class ErrorListener(Protocol):
    """What takes note of errors, such as an ``AIErrorMonitor``."""

    def record_error(self, error_type: str, service: str, severity: str, message: str, **context: Any) -> None:
        """Take note of one error."""
        ...


def load_training_data(
    file_path: str | os.PathLike[str], *, max_bytes: int | None = None, monitor: ErrorListener | None = None
) -> "tuple[pd.DataFrame, list[Any]] | None":
    """Load training data and never raise: None when it cannot be used.

    Args:
        file_path: A JSON file with ``X`` (rows of numbers, single numbers, or objects with the same fields) and ``y``.
        max_bytes: Size of the largest file that is read; by default what the settings say, 256 MiB.
        monitor: Told about a failure; the monitor of the process by default.

    Returns:
        The features and the labels, or None after one log record (``bulletproof.ingest``) that says what was wrong,
        where, and what to do.

    Example:
        >>> load_training_data("no-such-file.json") is None
        True
    """
    try:
        return read_training_data(file_path, max_bytes=max_bytes)
    except AIError as error:
        failure = error
    except Exception as error:
        logger.debug("unexpected failure while loading training data", exc_info=True)
        failure = ResourceError(f"Training data could not be loaded: {type(error).__name__}", code="internal_error")
        failure.__cause__ = error
    path = shorten(file_path, 300)
    logger.error(
        "training data not loaded: %s [%s] %s",
        failure,
        failure.code,
        failure.hint,
        extra={"code": failure.code, "error_type": str(failure.error_type), "path": path},
    )
    sink = monitor if monitor is not None else default_monitor()
    kind, severity = str(failure.error_type), str(failure.spec.severity)
    try:
        sink.record_error(kind, "training_data", severity, str(failure), code=failure.code, path=path)
    except Exception:
        logger.warning("the monitor could not take note of the failure", exc_info=True)
    return None


def read_training_data(
    file_path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> "tuple[pd.DataFrame, list[Any]]":
    """Load training data, or raise the error that says why not.

    Args:
        file_path: A JSON file with ``X`` and ``y``, as in ``load_training_data``.
        max_bytes: Size of the largest file that is read; by default what the settings say, 256 MiB.

    Returns:
        The features as a table, and the labels as they are in the file.

    Raises:
        InputValidationError: There is no such file, it is no regular file, or it may not be read.
        FileTooLargeError: It is larger than ``max_bytes``; it was not read then.
        InvalidFileError: Its content is not usable; says where.
        ConfigurationError: pandas is not installed.
        ResourceError: The memory or the disk failed.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w+", suffix=".json") as file:
        ...     _ = file.write('{"X": [[1, 2], [3, 4]], "y": ["a", "b"]}')
        ...     _ = file.seek(0)
        ...     features, labels = read_training_data(file.name)
        >>> features.shape, labels
        ((2, 2), ['a', 'b'])
    """
    try:
        features, labels = _fields(_parse(_decode(_read(file_path, _max_bytes() if max_bytes is None else max_bytes))))
        return _table(features, labels), labels
    except AIError as error:
        error.at(path=shorten(file_path, 300))
        raise
    except MemoryError as error:
        raise ResourceError("There is not enough memory for the training data", code="out_of_memory") from error


def _read(file_path: str | os.PathLike[str], max_bytes: int) -> bytes:
    try:
        path = Path(file_path)
    except TypeError as error:
        raise InputValidationError(f"A path is needed, got {type(file_path).__name__}") from error
    try:
        # Not blocking: a named pipe must not hang the program before it is refused.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                what = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
                raise InputValidationError(f"It is {what}, not a JSON file", hint="Name a JSON file.")
            # A file can grow after its size was taken.
            data = file.read(max_bytes + 1) if status.st_size <= max_bytes else None
    except FileNotFoundError as error:
        raise InputValidationError("There is no such file", code="file_not_found") from error
    except PermissionError as error:
        raise InputValidationError("The file may not be read by this user", code="permission_denied") from error
    except IsADirectoryError as error:
        raise InputValidationError("It is a directory, not a JSON file", hint="Name a JSON file.") from error
    except ValueError as error:
        raise InputValidationError(f"The path is not valid: {error}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResourceError(f"The file cannot be read: {reason}", code="io_error") from error
    if data is None or len(data) > max_bytes:
        raise FileTooLargeError(
            f"The file has {max(status.st_size, max_bytes + 1):,} bytes; at most {max_bytes:,} are read",
            hint="Split the file, or pass a larger max_bytes if the memory suffices.",
        )
    return data


def _decode(data: bytes) -> str:
    mark = bom_of(data)
    if mark and mark[0] != "utf-8":
        raise InvalidFileError(f"The file is {mark[0].upper()}; JSON is UTF-8", code="invalid_encoding", byte=0)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidFileError(
            f"A byte is not valid UTF-8 ({error.reason})", code="invalid_encoding", line=line, byte=error.start
        ) from error
    if not text.strip():
        raise InvalidFileError("The file is empty", code="empty_file")
    return text


def _parse(text: str) -> Any:
    decoder = StrictDecoder(IngestLimits(max_columns=10**6), constants=True)
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = decoder.decode(text, start)
        rest = text[end:].lstrip(" \t\r\n")
        if rest:
            raise Flaw("There is something behind the end of the document", len(text) - len(rest), len(text))
    except Flaw as flaw:
        place = json.JSONDecodeError("", text, flaw.pos)
        raise InvalidFileError(
            f"The file is not JSON: {flaw.message}",
            code="invalid_json",
            line=place.lineno,
            column=place.colno,
            byte=len(text[: flaw.pos].encode()),
        ) from None
    if decoder.duplicates:
        logger.warning("training data gives the field %s twice; the last counts", shorten(decoder.duplicates[0]))
    return value


def _fields(data: Any) -> tuple[Any, list[Any]]:
    if not isinstance(data, dict):
        raise InvalidFileError(f"The top level is {kind_of(data)}; {_SHAPE}")
    missing = [name for name in ("X", "y") if name not in data]
    if missing:
        found = listing(list(data)) or "none"
        raise InvalidFileError(
            f"The file lacks {' and '.join(missing)}; its fields are {found}; {_SHAPE}",
            code="missing_field",
            field=missing[0],
        )
    labels = data["y"]
    if not isinstance(labels, list):
        raise InvalidFileError(f"y is {kind_of(labels)}; expected an array with one label for each row", field="y")
    for row, label in enumerate(labels, 1):
        if isinstance(label, float) and not math.isfinite(label):
            raise InvalidFileError("A label is not a finite number", code="not_numeric", field="y", row=row)
        if label is None or isinstance(label, dict | list):
            raise InvalidFileError(f"A label is {kind_of(label)}; expected a number or a text", field="y", row=row)
    return data["X"], labels


def _table(features: Any, labels: Sequence[Any]) -> "pd.DataFrame":
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigurationError(
            "pandas is needed to load training data and cannot be imported",
            code="missing_dependency",
            hint="Install it: pip install 'bulletproof-ai[models]'.",
        ) from error
    if not isinstance(features, list):
        raise InvalidFileError(f"X is {kind_of(features)}; expected an array of rows", field="X")
    if len(features) != len(labels):
        raise InvalidFileError(
            f"X has {len(features):,} rows and y has {len(labels):,} labels; they must be equally many",
            code="shape_mismatch",
        )
    if not features:
        raise InvalidFileError("X has no rows", code="empty_file", field="X")
    kind, names = type(features[0]), None
    if kind is dict:
        names = list(features[0])
        rows = [_values(row, names, number) for number, row in enumerate(features, 1)]
    elif kind is list:
        rows = features
    else:
        rows = [[value] for value in features]
    width = len(rows[0])
    if not width:
        raise InvalidFileError("The first row of X is empty", code="shape_mismatch", field="X", row=1)
    for number, row in enumerate(rows, 1):
        _check_row(row, width, number, names)
    return pd.DataFrame(rows, columns=names)


def _values(row: Any, names: list[str], number: int) -> list[Any]:
    if not isinstance(row, dict):
        raise InvalidFileError(
            f"A row of X is {kind_of(row)}, the first is an object", code="shape_mismatch", field="X", row=number
        )
    if row.keys() != set(names):
        odd = sorted(set(names) ^ row.keys())
        raise InvalidFileError(
            f"A row of X has other fields than the first: {listing(odd)}", code="shape_mismatch", field="X", row=number
        )
    return [row[name] for name in names]


def _check_row(row: Any, width: int, number: int, names: list[str] | None) -> None:
    if not isinstance(row, list):
        raise InvalidFileError(
            f"A row of X is {kind_of(row)}, the first is an array", code="shape_mismatch", field="X", row=number
        )
    if len(row) != width:
        raise InvalidFileError(
            f"A row of X has {len(row):,} values, the first has {width:,}",
            code="shape_mismatch",
            field="X",
            row=number,
        )
    if {int, float}.issuperset(map(type, row)) and all(map(math.isfinite, row)):
        return
    for column, value in enumerate(row, 1):
        if type(value) not in (int, float):
            what = kind_of(value)
        elif not math.isfinite(value):
            what = "NaN" if math.isnan(value) else "infinite"
        else:
            continue
        raise InvalidFileError(
            f"A value of X is {what}; expected a finite number",
            code="not_numeric",
            field="X",
            row=number,
            column=column if names is None else names[column - 1],
        )


def _max_bytes() -> int:
    from bulletproof.settings import get_settings

    return int(getattr(get_settings(), "max_training_bytes", MAX_TRAINING_BYTES))
