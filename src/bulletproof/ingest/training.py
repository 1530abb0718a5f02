"""Training data from a JSON file: rows of numbers under ``X``, labels under ``y``."""

import io
import logging
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulletproof.errors import (
    AIError,
    FileTooLargeError,
    InputValidationError,
    InvalidFileError,
    ResourceError,
)
from bulletproof.errors.installing import not_installed
from bulletproof.ingest.encoding import bom_of
from bulletproof.ingest.json_stream import JsonCursor, kind_of
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, listing, shorten
from bulletproof.monitor import AIErrorMonitor, default_monitor

if TYPE_CHECKING:
    import pandas as pd

_SHAPE = 'expected an object such as {"X": [[1, 2], [3, 4]], "y": [0, 1]}'

logger = logging.getLogger("bulletproof.ingest")


def load_training_data(
    file_path: str | os.PathLike[str], *, max_bytes: int | None = None, monitor: AIErrorMonitor | None = None
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
        if max_bytes is None:
            from bulletproof.settings import get_settings

            max_bytes = get_settings().max_training_bytes
        features, labels = _fields(_parse(_read(file_path, max_bytes)))
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
                raise InputValidationError("It is a device or a pipe, not a JSON file", hint="Name a JSON file.")
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


def _parse(data: bytes) -> Any:
    encoding, mark = bom_of(data)
    if encoding != "utf-8":
        raise InvalidFileError(f"The file is {encoding.upper()}; JSON is UTF-8", code="invalid_encoding", byte=0)
    source = io.BytesIO(data)
    source.seek(mark)
    whole = len(data) + 1
    limits = IngestLimits(max_columns=10**6, max_record_bytes=whole)
    cursor = JsonCursor(source, limits, Notes(), offset=mark, block=whole, constants=True)
    if not cursor.peek():
        raise InvalidFileError("The file is empty", code="empty_file")
    value = cursor.value(0)
    if cursor.peek():
        raise cursor.error("There is something behind the end of the document")
    if twice := cursor.decoder.duplicates:
        logger.warning("training data gives the field %s twice; the last counts", shorten(twice[0]))
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
        raise not_installed("pandas is needed to load training data and cannot be imported", "models") from error
    if not isinstance(features, list):
        raise InvalidFileError(f"X is {kind_of(features)}; expected an array of rows", field="X")
    if len(features) != len(labels):
        message = f"X has {len(features):,} rows and y has {len(labels):,} labels; they must be equally many"
        raise InvalidFileError(message, code="shape_mismatch")
    if not features:
        raise InvalidFileError("X has no rows", code="empty_file", field="X")
    first = features[0]
    names = list(first) if isinstance(first, dict) else None
    single = not isinstance(first, dict | list)
    rows = [[value] if single else _values(value, first, row) for row, value in enumerate(features, 1)]
    if not rows[0]:
        raise _misshapen("The first row of X is empty", 1)
    for row, values in enumerate(rows, 1):
        if not {int, float}.issuperset(map(type, values)) or not all(map(math.isfinite, values)):
            raise _not_numeric(values, row, names)
    return pd.DataFrame(rows, columns=names)


def _values(row: Any, first: Any, number: int) -> Any:
    """Return the values of a row in the order of the first, which has to be of the same shape."""
    if type(row) is not type(first):
        raise _misshapen(f"A row of X is {kind_of(row)}, the first is {kind_of(first)}", number)
    if isinstance(row, dict):
        if row.keys() != first.keys():
            odd = listing(sorted(row.keys() ^ first.keys()))
            raise _misshapen(f"A row of X has other fields than the first: {odd}", number)
        return [row[name] for name in first]
    if len(row) != len(first):
        raise _misshapen(f"A row of X has {len(row):,} values, the first has {len(first):,}", number)
    return row


def _misshapen(message: str, row: int) -> InvalidFileError:
    return InvalidFileError(message, code="shape_mismatch", field="X", row=row)


def _not_numeric(values: list[Any], row: int, names: list[str] | None) -> InvalidFileError:
    column, value = next(
        (column, value)
        for column, value in enumerate(values)
        if type(value) not in (int, float) or not math.isfinite(value)
    )
    what = ("NaN" if math.isnan(value) else "infinite") if isinstance(value, float) else kind_of(value)
    return InvalidFileError(
        f"A value of X is {what}; expected a finite number",
        code="not_numeric",
        field="X",
        row=row,
        column=names[column] if names else column + 1,
    )
