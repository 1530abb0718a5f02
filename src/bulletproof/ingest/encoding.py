"""From bytes to text: byte order marks, UTF-8, and what to do when a file is neither."""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


def bom_of(head: bytes) -> tuple[str, int]:
    """Return the encoding that a byte order mark tells, and its length: UTF-8 and 0 when there is none."""
    return next(((name, len(mark)) for mark, name in _BOMS if head.startswith(mark)), ("utf-8", 0))


class Utf8Source:
    """A UTF-16 or UTF-32 file as UTF-8, so that everything after it meets one encoding."""

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
    """Guess the encoding of lines that are not UTF-8: cp1252, as most such files are, when nothing fits better."""
    if sum(byte > 127 for byte in sample) < 4:
        return "cp1252"  # too little to tell from
    for encoding, letters in (("cp1252", _WESTERN), ("cp1254", _TURKISH)):
        if _reads_well(_decoded(sample, encoding), letters):
            return encoding
    for encoding in ("cp932", "euc_jp"):
        wide = [char for char in _decoded(sample, encoding) if char > "\x7f"]
        if sum("\u3041" <= char <= "\u30fe" for char in wide) > 0.2 * len(wide):
            return encoding
    best = from_bytes(sample, cp_isolation=_CANDIDATES, enable_fallback=False).best()
    return best.encoding if best is not None and best.encoding in _CANDIDATES else "cp1252"


def _decoded(sample: bytes, encoding: str) -> str:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError as error:
        # The sample may end in the middle of a character.
        return sample[: error.start].decode(encoding) if error.start > len(sample) - 4 else ""


def _reads_well(text: str, letters: frozenset[str]) -> bool:
    """Say whether no special letters run together or signs stand inside of words, as when read wrongly."""
    special = [index for index, char in enumerate(text) if char > "\x7f"]
    for index in special:
        before, char, after = text[index - 1 : index], text[index], text[index + 1 : index + 2]
        if char in letters:
            if before in letters and after in letters:
                return False
        elif char not in _MARKS or (char in "²³ºª½¼¾¿¡¥£" and before.isalpha() and after.isalpha()):
            return False
    return 0 < len(special) < 0.4 * len(text)


class LineDecoder:
    """Decodes whole lines, each on its own when the file is not of one piece.

    A file is UTF-8 until a line is not. If no line with special characters was valid UTF-8 before, the file is in
    another encoding, which is guessed once from the lines at hand. Otherwise only the lines that are not valid are read
    in the encoding guessed. Either way a warning says so and no line is lost.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._encoding = "utf-8"
        self._fallback: str | None = None
        self._seen_utf8 = False

    def decode(self, data: bytes, line: int) -> str:
        """Return the text of whole lines, of which the first has the number ``line``."""
        try:
            text = data.decode(self._encoding)
        except UnicodeDecodeError:
            return self._by_line(data, line)
        self._seen_utf8 = self._seen_utf8 or not data.isascii()
        return text

    def _by_line(self, data: bytes, first: int) -> str:
        lines = data.splitlines(keepends=True)
        if self._fallback is None:
            bad = [line for line in lines if _strict(line, "utf-8") is None]
            valid = sum(not line.isascii() for line in lines) - len(bad)
            self._fallback = guess_encoding(b"".join(bad)[:_SAMPLE])
            if not self._seen_utf8 and valid * 4 <= len(bad):
                self._encoding = self._notes.encoding = self._fallback
                self._notes.say(f"The file is not UTF-8; it was read as {self._fallback}, as its content suggests.")
                return self.decode(data, first)
        return "".join(self._one(line, number, self._fallback) for number, line in enumerate(lines, first))

    def _one(self, line: bytes, number: int, fallback: str) -> str:
        text = _strict(line, self._encoding)
        if text is not None:
            return text
        text = line.decode(self._encoding, "replace")
        # A line that is mostly UTF-8 was cut or damaged, not written in another encoding.
        if self._encoding != "utf-8" or sum(char > "\x7f" for char in text) >= 2 * text.count("\ufffd"):
            what = f"hold bytes that are not {self._encoding}, shown as U+FFFD"
        else:
            what = f"were not valid UTF-8 and were read as {fallback}"
            text = line.decode(fallback, "replace")
        self._notes.count(what, f"{{n}} line(s) {what}; the first is line {number}.")
        return text


def _strict(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


class Block(NamedTuple):
    """Some whole lines: their text, the number of the first, and whether this is one line cut at the limit."""

    text: str
    line: int
    overlong: bool = False

    def lines(self) -> list[str]:
        """Return the lines with their ends: LF, CRLF or CR."""
        return split_lines(self.text)

    def refuse_nul(self, code: str) -> None:
        if "\0" in self.text:
            before = split_lines(self.text[: self.text.index("\0") + 1])
            raise InvalidFileError(
                "There is a NUL byte in the file; CSV and text files hold none",
                code=code,
                hint="Export the file again as UTF-8: it is damaged, or UTF-16 without a byte order mark.",
                line=self.line + len(before) - 1,
                column=len(before[-1]),
            )


def split_lines(text: str) -> list[str]:
    """Return lines with their ends: LF, CRLF or CR, and none of the others that ``str.splitlines`` knows."""
    return io.StringIO(text, newline="").readlines()


def line_blocks(source: ByteSource, decode: Callable[[bytes, int], str], limits: IngestLimits) -> Iterator[Block]:
    """Read a file in blocks that end where a line ends; of a line over ``max_record_bytes`` only the beginning."""
    carry, line = b"", 1
    while True:
        data = carry + source.read(BLOCK)
        at_end = len(data) - len(carry) < BLOCK
        cut = len(data) if at_end else data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, len(data) - 1) + 1
        if not cut and len(data) > limits.max_record_bytes:
            yield Block(decode(data[: limits.max_field_bytes], line) + "\n", line, overlong=True)
            carry = _skip_line(source)
            line += 1
            continue
        if cut:
            text = decode(data[:cut], line)
            if text:
                yield Block(text, line)
            line += text.count("\n") + text.count("\r") - text.count("\r\n")
        if at_end:
            return
        carry = data[cut:]


def _skip_line(source: ByteSource) -> bytes:
    while data := source.read(BLOCK):
        end = re.search(rb"\r\n|\n|\r", data)
        if end:
            return data[end.end() :]
    return b""
