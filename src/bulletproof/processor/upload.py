"""What can be given to the processor, and the file as it passes the first two stages."""

import asyncio
import inspect
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from bulletproof.errors import FileTooLargeError, InputValidationError
from bulletproof.ingest import Chunk, Cleaner, IngestLimits, ParsedFile, Record
from bulletproof.processor.flow import in_thread

_MEMORY = 2**20
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A readable, seekable file with the name and type its sender gave."""

    stream: BinaryIO
    filename: str | None
    content_type: str | None = None
    owned: bool = False  # whether whoever is done closes the stream

    def close(self) -> None:
        if self.owned:
            self.stream.close()


async def open_source(file: Any, limits: IngestLimits) -> Source:
    """Make a source of an upload (an object with ``filename`` and ``file``, or a ``read``), a path, or bytes.

    A file that can only be read is copied, up to ``max_bytes``.
    """
    if isinstance(file, str | Path):
        return await asyncio.to_thread(_open_path, Path(file), limits)
    if isinstance(file, bytes | bytearray):
        return Source(BytesIO(bytes(file)), None, owned=True)
    filename = getattr(file, "filename", None)
    content_type = getattr(file, "content_type", None)
    stream = getattr(file, "file", None)
    if stream is not None and hasattr(stream, "seek"):
        return Source(cast("BinaryIO", stream), filename, content_type)
    if hasattr(file, "read"):
        return Source(await _copy(file, limits), filename, content_type, owned=True)
    raise InputValidationError(
        f"cannot read a {type(file).__name__}", hint="Give an UploadFile, a path or bytes.", stage="validate"
    )


def _open_path(path: Path, limits: IngestLimits) -> Source:
    try:
        stream = path.open("rb")
        if stream.seekable():
            return Source(stream, path.name, owned=True)
        # A pipe: what follows reads back and forth.
        with stream:
            return Source(_spool(iter(lambda: stream.read(_PIECE), b""), limits), path.name, owned=True)
    except FileNotFoundError as error:
        raise InputValidationError("there is no such file", code="file_not_found", path=str(path)) from error
    except IsADirectoryError as error:
        raise InputValidationError(
            "this is a folder, not a file", hint="Name the files in it, such as folder/*.csv.", path=str(path)
        ) from error
    except PermissionError as error:
        raise InputValidationError("this file may not be read", code="permission_denied", path=str(path)) from error
    except (OSError, ValueError) as error:
        raise InputValidationError(f"this file cannot be opened: {error}", path=str(path)[:200]) from error


async def _copy(file: Any, limits: IngestLimits) -> BinaryIO:
    if not inspect.iscoroutinefunction(file.read):
        return await asyncio.to_thread(_spool, iter(lambda: _bytes(file.read(_PIECE)), b""), limits)
    pieces = []
    size = 0
    while data := _bytes(await file.read(_PIECE)):
        size += len(data)
        if size > limits.max_bytes:
            raise _too_large(limits)
        pieces.append(data)
    return BytesIO(b"".join(pieces))


def _spool(pieces: Iterable[bytes], limits: IngestLimits) -> BinaryIO:
    copy = tempfile.SpooledTemporaryFile(max_size=_MEMORY)  # noqa: SIM115 -- closed by the source
    try:
        for data in pieces:
            if copy.tell() + len(data) > limits.max_bytes:
                raise _too_large(limits)
            copy.write(data)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return cast("BinaryIO", copy)


def _bytes(data: Any) -> bytes:
    if isinstance(data, str):
        raise InputValidationError("the file gives text, not bytes", hint="Open it in binary mode: open(path, 'rb').")
    return bytes(data)


def _too_large(limits: IngestLimits) -> FileTooLargeError:
    return FileTooLargeError(f"the file has more than the {limits.max_bytes:,} bytes allowed")


@dataclass(frozen=True, slots=True)
class ParsedUpload:
    """A file whose format is known; its records are read as they are asked for."""

    parsed: ParsedFile

    def chunks(self) -> AsyncGenerator[Chunk]:
        return in_thread(self.parsed.chunks)


@dataclass(frozen=True, slots=True)
class CleanedUpload:
    """Records with cleaned texts, still read as they are asked for."""

    parsed: ParsedFile
    cleaner: Cleaner

    def chunks(self) -> AsyncGenerator[Chunk]:
        return in_thread(lambda: map(self.cleaner.clean, self.parsed.chunks()))


class TextList:
    """Texts, or things with a ``text``, that a stage of somebody's own returned, as the next stage takes them."""

    parsed = None

    def __init__(self, items: Iterable[Any]) -> None:
        self._chunk = Chunk([Record(row, _text_of(item, row)) for row, item in enumerate(items, start=1)], [])

    async def chunks(self) -> AsyncGenerator[Chunk]:
        yield self._chunk


def _text_of(item: Any, row: int) -> str:
    text = item.get("text") if isinstance(item, Mapping) else getattr(item, "text", item)
    if not isinstance(text, str):
        raise TypeError(f"item {row} of the stage before is a {type(item).__name__} without a text")
    return text
