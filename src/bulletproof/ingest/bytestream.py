"""Bytes from an upload: counted, bounded, unpacked; never more in memory than was asked for."""

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from bulletproof.errors import FileTooLargeError, InvalidFileError
from bulletproof.ingest.records import MIB, IngestLimits

GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 64 * 1024
_FEW = 100_000  # records that any file may hold


class ByteSource(Protocol):
    """Anything that gives at most ``size`` bytes at a time; an empty answer is the end."""

    def read(self, size: int, /) -> bytes: ...


class BoundedSource:
    """A file that is refused as soon as it proves larger than allowed, at once when it can tell its size."""

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self.count = 0
        try:
            start = source.tell()
            size = source.seek(0, io.SEEK_END) - start
            source.seek(start)
        except (OSError, AttributeError, ValueError):
            size = 0  # a pipe or a socket: its size shows while reading
        self.size = size
        self._check(size)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        self.size = max(self.size, self.count)
        self._check(self.count)
        return data

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise FileTooLargeError(f"The file has at least {size:,} bytes; at most {self._max_bytes:,} are allowed")


class GunzipSource:
    """The content of a gzip file, refused when it is broken or unpacks to more than allowed."""

    def __init__(self, source: ByteSource, counter: BoundedSource, limits: IngestLimits) -> None:
        self._file = gzip.GzipFile(mode="rb", fileobj=cast("BinaryIO", source))
        self._counter = counter
        self._limits = limits
        self._unpacked = 0

    def read(self, size: int, /) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except EOFError as error:
            raise self._broken("The gzip file is cut off before its end") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._broken("The file is corrupt, or not gzip at all") from error
        self._unpacked += len(data)
        limits = self._limits
        if self._unpacked > limits.max_decompressed_bytes:
            raise FileTooLargeError(
                f"The file unpacks to more than the {limits.max_decompressed_bytes:,} bytes allowed"
            )
        if self._unpacked > MIB and self._unpacked > self._counter.count * limits.max_compression_ratio:
            raise FileTooLargeError(
                f"The file unpacks to more than {limits.max_compression_ratio:g} times its size, "
                "which only a compression bomb does",
                hint="Send the file uncompressed.",
            )
        return data

    def _broken(self, message: str) -> InvalidFileError:
        return InvalidFileError(message, code="invalid_archive", byte=self._counter.count)


@dataclass(frozen=True, slots=True)
class RecordLimit:
    """Refuses a file of too many records; in a packed one, of more than honest texts of its size would be.

    Millions of tiny records pack into a few kilobytes, and each of them costs as much as a long one.
    """

    limits: IngestLimits
    packed: BoundedSource | None

    def check(self, count: int) -> None:
        """Let pass so many records, of the part of the file that was read."""
        limits, packed = self.limits, self.packed
        if count > limits.max_records:
            raise FileTooLargeError(
                f"The file has more than the {limits.max_records:,} records allowed",
                hint="Split the file, or raise BULLETPROOF_MAX_RECORDS.",
            )
        if packed is None:
            return
        most = max(_FEW, int(packed.size * limits.max_records_per_packed_byte))
        if count > most:
            raise FileTooLargeError(
                f"The file packs more than {most:,} records into {packed.size:,} bytes, which no real texts do",
                hint="Send the file uncompressed.",
            )


class HeadSource:
    """Bytes that can be looked at before they are read; a read is short only at the end."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._head = b""

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them to be read."""
        while len(self._head) < size and (data := self._source.read(max(_BLOCK, size - len(self._head)))):
            self._head += data
        return self._head[:size]

    def read(self, size: int, /) -> bytes:
        data = self.peek(size)
        self._head = self._head[size:]
        return data
