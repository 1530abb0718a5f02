"""Lists of URLs in files: one a line, in whatever encoding a file of texts may have."""

from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from bulletproof.errors import InputValidationError
from bulletproof.ingest.bytestream import HeadSource
from bulletproof.ingest.encoding import LineDecoder, Utf8Source, bom_of, line_blocks
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits


def listed_urls(source: BinaryIO | Path, notes: Notes) -> Generator[list[str]]:
    """Read a list of URLs a block at a time; empty lines and those that begin with ``#`` are left out.

    Args:
        source: A binary file, which stays open, or the path of one. Reading blocks: do it in a thread.
        notes: Is told the encoding, and what the user should know when it had to be guessed.

    Yields:
        The URLs of some lines, maybe none.

    Raises:
        InputValidationError: There is no such file, or it may not be read.
        InvalidFileError: It is no text (``invalid_encoding``).

    Example:
        >>> import io
        >>> file = io.BytesIO("# pages\\nhttps://example.com/café\\n".encode("utf-16"))
        >>> list(listed_urls(file, Notes()))
        [['https://example.com/café']]
    """
    if isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            code = "file_not_found" if isinstance(error, FileNotFoundError) else "permission_denied"
            message = f"the file of URLs {str(source)!r} cannot be read: {error.strerror}"
            raise InputValidationError(message, code=code) from error
        with file:
            yield from listed_urls(file, notes)
        return
    stream = HeadSource(source)
    notes.encoding, offset = bom_of(stream.peek(4))
    stream.read(offset)
    if notes.encoding != "utf-8":
        stream = HeadSource(Utf8Source(stream, notes.encoding, offset))
    for block in line_blocks(stream, LineDecoder(notes).decode, IngestLimits()):
        block.refuse_nul("invalid_encoding")
        yield [url for line in block.lines() if (url := line.strip()) and not url.startswith("#")]
