"""From bytes to text: byte order marks, UTF-8, and what to do when a file is neither."""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from charset_normalizer import from_bytes

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.bytestream import ByteSource
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits

BLOCK = 256 * 1024
_SAMPLE = 16 * 1024

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the other's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜŸ")
_MARKS = frozenset("“”‘’„‚‹›«»–—…€£¥©®™°§·•¡¿½¼¾²³ºª´¨±×\xa0")
_TURKISH = _WESTERN | frozenset("ğĞıİşŞ")
_CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874",
    "cp932", "euc_jp", "gb18030", "big5", "cp949", "mac_roman",
]  # fmt: skip


def bom_of(head: bytes) -> tuple[str, int] | None:
    """Return the encoding that a byte order mark tells, and the length of the mark.

    Example:
        >>> bom_of(b"\\xff\\xfea\\x00")
        ('utf-16-le', 2)
    """
    return next(((name, len(mark)) for mark, name in _BOMS if head.startswith(mark)), None)


class Utf8Source:
    """A UTF-16 or UTF-32 file as UTF-8, so that everything after it meets one encoding.

    Args:
        source: The bytes behind the byte order mark.
        encoding: What the mark told.
        offset: Its length.

    Raises:
        InvalidFileError: ``invalid_encoding``: the bytes are not valid; names the byte.
    """

    def __init__(self, source: ByteSource, encoding: str, offset: int) -> None:
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._count = offset

    def read(self, size: int, /) -> bytes:
        """Return about ``size`` bytes."""
        while True:
            data = self._source.read(max(size // 2, 4))
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                at = self._count + len(data) - len(error.object) + error.start
                raise InvalidFileError(
                    f"The file is not valid {self._encoding.upper()}: {error.reason}", code="invalid_encoding", byte=at
                ) from error
            self._count += len(data)
            if text or not data:
                return text.encode()


def guess_encoding(sample: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8.

    Args:
        sample: Lines that are not ASCII; a few hundred bytes are enough.

    Returns:
        A codec name; ``cp1252`` when nothing fits better, for that is what most such files are.

    Example:
        >>> guess_encoding("Das Gerät ist schön, aber fünf Euro zu teuer".encode("cp1252"))
        'cp1252'
        >>> guess_encoding("Отличный товар, быстрая доставка".encode("koi8_r"))
        'koi8_r'
    """
    if sum(byte > 127 for byte in sample) < 4:
        return "cp1252"  # too little to tell from
    for encoding, letters in (("cp1252", _WESTERN), ("cp1254", _TURKISH)):
        if _reads_well(sample, encoding, letters):
            return encoding
    for encoding in ("cp932", "euc_jp"):
        if _kana_share(sample, encoding) > 0.2:
            return encoding
    best = from_bytes(sample, cp_isolation=_CANDIDATES, enable_fallback=False).best()
    return best.encoding if best is not None and best.encoding in _CANDIDATES else "cp1252"


def _decoded(sample: bytes, encoding: str) -> str:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError as error:
        # The sample may end in the middle of a character.
        return sample[: error.start].decode(encoding) if error.start > len(sample) - 4 else ""


def _reads_well(sample: bytes, encoding: str, letters: frozenset[str]) -> bool:
    text = _decoded(sample, encoding)
    special = [index for index, char in enumerate(text) if char > "\x7f"]
    # Runs of special letters, and signs in the middle of words, are another alphabet read wrongly.
    for index in special:
        before, char, after = text[index - 1 : index], text[index], text[index + 1 : index + 2]
        if char in letters:
            if before in letters and after in letters:
                return False
        elif char not in _MARKS or (char in "²³ºª½¼¾¿¡¥£" and before.isalpha() and after.isalpha()):
            return False
    return 0 < len(special) < 0.4 * len(text)


def _kana_share(sample: bytes, encoding: str) -> float:
    wide = [char for char in _decoded(sample, encoding) if char > "\x7f"]
    return sum("\u3041" <= char <= "\u30fe" for char in wide) / len(wide) if wide else 0.0


class Decoder(Protocol):
    """Turns whole lines into text."""

    def decode(self, data: bytes, line: int) -> str:
        """Return the text of whole lines, of which the first has the number ``line``."""
        ...


class LineDecoder:
    """Decodes whole lines, each on its own when the file is not of one piece.

    A file is UTF-8 until a line is not. If no line with special characters was valid UTF-8 before, the file is in
    another encoding, which is guessed once from the lines at hand. Otherwise only the lines that are not valid are read
    in the encoding guessed. Either way a warning says so and no line is lost.

    Args:
        notes: Where warnings go.
    """

    def __init__(self, notes: Notes) -> None:
        self.encoding = "utf-8"
        self._notes = notes
        self._fallback: str | None = None
        self._seen_utf8 = False

    def decode(self, data: bytes, line: int) -> str:
        """Return the text of whole lines, of which the first has the number ``line``."""
        try:
            text = data.decode(self.encoding)
        except UnicodeDecodeError:
            return self._by_line(data, line)
        self._seen_utf8 = self._seen_utf8 or not data.isascii()
        return text

    def _by_line(self, data: bytes, first: int) -> str:
        lines = data.splitlines(keepends=True)
        if self._fallback is None:
            bad = [line for line in lines if not _is_utf8(line)]
            valid = sum(not line.isascii() for line in lines) - len(bad)
            self._fallback = guess_encoding(b"".join(bad)[:_SAMPLE])
            if not self._seen_utf8 and valid * 4 <= len(bad):
                self.encoding = self._fallback
                self._notes.say(f"The file is not UTF-8; it was read as {self._fallback}, as its content suggests.")
                return self.decode(data, first)
        return "".join(self._one(line, number) for number, line in enumerate(lines, first))

    def _one(self, line: bytes, number: int) -> str:
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError:
            pass
        assert self._fallback is not None
        if self.encoding == "utf-8":
            text = line.decode("utf-8", "replace")
            # A line that is mostly UTF-8 was cut or damaged, not written in another encoding.
            damaged = text.count("\ufffd")
            if sum(char > "\x7f" for char in text) >= 2 * damaged:
                self._warn_damaged(number)
                return text
            text = line.decode(self._fallback, "replace")
            self._notes.count(
                "encoding",
                f"{{n}} line(s) were not valid UTF-8 and were read as {self._fallback}; the first is line {number}.",
            )
            return text
        self._warn_damaged(number)
        return line.decode(self.encoding, "replace")

    def _warn_damaged(self, number: int) -> None:
        self._notes.count(
            "damaged",
            f"{{n}} line(s) hold bytes that are not {self.encoding}, shown as U+FFFD; the first is line {number}.",
        )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class Block(NamedTuple):
    """Some whole lines: their text, the number of the first, and whether this is one line cut at the limit."""

    text: str
    line: int
    overlong: bool = False


def line_blocks(source: ByteSource, decoder: Decoder, limits: IngestLimits, *, returns: bool = True) -> Iterator[Block]:
    """Read a file in blocks that end where a line ends.

    Args:
        source: Bytes of an encoding in which line ends are the bytes LF and CR.
        decoder: Turns lines into text.
        limits: ``max_record_bytes`` bounds a line; of a longer one only the beginning is given.
        returns: Whether CR alone ends a line too.

    Yields:
        The blocks; their borders depend on the content alone, not on how the source hands it out.
    """
    carry, line = b"", 1
    while True:
        data = carry + read_full(source, BLOCK)
        at_end = len(data) - len(carry) < BLOCK
        cut = len(data) if at_end else data.rfind(b"\n") + 1
        if not cut and returns:
            cut = data.rfind(b"\r", 0, len(data) - 1) + 1
        if not cut and len(data) > limits.max_record_bytes:
            yield Block(decoder.decode(data[: limits.max_field_bytes], line) + "\n", line, overlong=True)
            carry = _skip_line(source)
            line += 1
            continue
        if cut:
            text = decoder.decode(data[:cut], line)
            if text:
                yield Block(text, line)
            line += text.count("\n") + text.count("\r") - text.count("\r\n")
        if at_end:
            return
        carry = data[cut:]


def read_full(source: ByteSource, size: int) -> bytes:
    """Read ``size`` bytes, fewer only at the end."""
    parts = []
    while size > 0 and (data := source.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _skip_line(source: ByteSource) -> bytes:
    while data := source.read(BLOCK):
        end = re.search(rb"\r\n|\n|\r", data)
        if end:
            return data[end.end() :]
    return b""
