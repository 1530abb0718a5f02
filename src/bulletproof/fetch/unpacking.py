"""Unpack a body as it comes, a bounded piece at a time: a bomb is found out while it is still small."""

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from bulletproof.errors import BadResponseError, UnsupportedFormatError

PIECE = 64 * 1024
_MAX_PARTS = 1000
_ZSTD_WINDOW_LOG = 23  # 8 MiB, all that a browser takes (RFC 9659)


def _library(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_brotli = _library("brotli", "brotlicffi")
_zstd = _library("compression.zstd", "backports.zstd")


class _BrotliStream:
    unused_data = unconsumed_tail = b""

    def __init__(self) -> None:
        self._stream = _brotli.Decompressor()

    def decompress(self, data: bytes, size: int) -> Any:
        return self._stream.process(data, output_buffer_limit=size)

    @property
    def eof(self) -> Any:
        return self._stream.is_finished()


def _zlib_stream(data: bytes) -> Any:
    # Some servers leave out the header that "deflate" has.
    return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)


def _zstd_stream(_data: bytes) -> Any:
    return _zstd.ZstdDecompressor(options={_zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


# How to read each, given the first bytes; and how a further part begins where several may follow each other.
_CODECS: dict[str, tuple[Callable[[bytes], Any], bytes | None]] = {
    "gzip": (lambda _: zlib.decompressobj(16 + zlib.MAX_WBITS), b"\x1f\x8b"),
    "deflate": (_zlib_stream, None),
}
_BROKEN: tuple[type[Exception], ...] = (zlib.error, EOFError)
if _brotli is not None:
    _CODECS["br"] = (lambda _: _BrotliStream(), None)
    _BROKEN = (*_BROKEN, _brotli.error)
if _zstd is not None:
    _CODECS["zstd"] = (_zstd_stream, b"\x28\xb5\x2f\xfd")
    _BROKEN = (*_BROKEN, _zstd.ZstdError)

ACCEPTED = ", ".join(_CODECS)
"""Value of ``Accept-Encoding``: what can be unpacked with the libraries at hand."""


class Unpacker:
    """Unpacks what a ``Content-Encoding`` header says; refuses one that was not asked for.

    Only one compression at a time: of two, one inside the other, the inner one's input would have no limit.
    """

    def __init__(self, header: str | None) -> None:
        name = (header or "").strip().lower().removeprefix("x-")
        if name not in (*_CODECS, "", "identity"):
            raise UnsupportedFormatError(
                f"the page is packed as {name[:80]!r}; it was asked for in one of {ACCEPTED}",
                hint="Ask the site for the page without this compression.",
            )
        self._codec = _CODECS.get(name)
        self._parts = 0
        self._stream: Any = None
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack the next bytes, in pieces of about 64 KiB at most; ``BadResponseError`` when they are rubbish."""
        if self._codec is None:
            yield data
            return
        try:
            yield from self._unpack(self._held + data, *self._codec)
        except _BROKEN as error:
            raise BadResponseError(f"the body cannot be unpacked: {error}") from error

    def finish(self) -> None:
        """Say that the body has ended; ``BadResponseError`` when some of it is missing."""
        if self._stream is not None:
            raise BadResponseError("the body ended before all of it was unpacked: some of it is missing")

    def _unpack(self, data: bytes, new: Callable[[bytes], Any], magic: bytes | None) -> Iterator[bytes]:
        self._held = b""
        while data or self._stream is not None:
            if self._stream is None:
                if self._parts and (magic is None or not data.startswith(magic)):
                    if magic is not None and magic.startswith(data):
                        self._held = data  # the beginning of another part, maybe
                    return  # padding
                self._parts += 1
                if self._parts > _MAX_PARTS:
                    message = f"the body is packed in more than {_MAX_PARTS} parts"
                    raise BadResponseError(message, hint="Leave the page out.", retryable=False)
                self._stream = new(data)
            piece = self._stream.decompress(data, PIECE)
            if piece:
                yield piece
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, None
            elif len(piece) < PIECE:
                return
            else:
                data = getattr(self._stream, "unconsumed_tail", b"")  # zstd keeps it itself
