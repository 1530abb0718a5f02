"""Bytes from an upload: counted, bounded, unpacked; never more in memory than was asked for."""

import io
import zlib
from typing import BinaryIO, Protocol

from bulletproof.errors import FileTooLargeError, InvalidFileError
from bulletproof.ingest.records import MIB, IngestLimits

GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 64 * 1024


class ByteSource(Protocol):
    """Anything that gives bytes; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""
        ...


class BoundedSource:
    """A file that is refused as soon as it proves larger than allowed.

    Args:
        source: A binary file; read from where it stands.
        max_bytes: Bytes it may hold.

    Raises:
        FileTooLargeError: It holds more; found at once when the source can tell its size.
    """

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self.count = 0
        size = _remaining(source)
        if size is not None and size > max_bytes:
            raise self._too_large(f"{size:,}")

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""
        data = self._source.read(size)
        self.count += len(data)
        if self.count > self._max_bytes:
            raise self._too_large(f"more than {self._max_bytes:,}")
        return data

    def _too_large(self, size: str) -> FileTooLargeError:
        return FileTooLargeError(f"The file has {size} bytes; at most {self._max_bytes:,} are allowed")


def _remaining(source: BinaryIO) -> int | None:
    try:
        start = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(start)
    except (OSError, AttributeError, ValueError):
        return None  # a pipe or a socket: its size shows while reading
    return end - start


class GunzipSource:
    """The content of a gzip file, unpacked as it is read.

    Args:
        source: The packed bytes.
        counter: The file beneath, which counts them.
        limits: Bounds on the size and the ratio of what comes out.

    Raises:
        InvalidFileError: ``invalid_archive``: not gzip, corrupt, or cut off.
        FileTooLargeError: It unpacks to more than the bounds allow.
    """

    def __init__(self, source: ByteSource, counter: BoundedSource, limits: IngestLimits) -> None:
        self._source = source
        self._counter = counter
        self._limits = limits
        self._decoder = zlib.decompressobj(wbits=31)
        self._pending = b""
        self._started = False
        self._unpacked = 0

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""
        while True:
            if self._decoder.eof and not self._next_member():
                return b""
            data = self._decoder.unconsumed_tail or self._pending or self._source.read(_BLOCK)
            self._pending = b""
            if not data:
                if not self._started:
                    raise InvalidFileError("The gzip file is empty", code="empty_file")
                raise InvalidFileError(
                    "The gzip file is cut off before its end", code="invalid_archive", byte=self._counter.count
                )
            self._started = True
            try:
                out = self._decoder.decompress(data, size)
            except zlib.error as error:
                raise InvalidFileError(
                    f"The gzip file is corrupt: {error}", code="invalid_archive", byte=self._counter.count
                ) from error
            if out:
                self._check(len(out))
                return out

    def _next_member(self) -> bool:
        # A gzip file may hold several members one after the other (RFC 1952, section 2.2), and zero padding.
        rest = self._decoder.unused_data
        while True:
            rest = rest.lstrip(b"\0")
            if rest:
                break
            rest = self._source.read(_BLOCK)
            if not rest:
                return False
        self._pending = rest
        self._decoder = zlib.decompressobj(wbits=31)
        return True

    def _check(self, size: int) -> None:
        self._unpacked += size
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


class HeadSource:
    """Bytes whose beginning can be looked at before they are read.

    Args:
        source: Where the bytes come from.

    Example:
        >>> stream = HeadSource(io.BytesIO(b"id,text"))
        >>> stream.peek(2), stream.read(100)
        (b'id', b'id,text')
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._head = b""

    def peek(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end, and leave them to be read."""
        while len(self._head) < size:
            data = self._source.read(max(_BLOCK, size - len(self._head)))
            if not data:
                break
            self._head += data
        return self._head[:size]

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)
