"""Texts made fit for analysis: normal form, no invisible characters, single blanks."""

import re
import unicodedata
from dataclasses import dataclass

from bulletproof.ingest.records import Chunk, IngestLimits, Record, Rejection

# Distinct texts remembered to count duplicates; about 20 MB.
_REMEMBERED = 200_000

# Letters and marks of scripts in which the joiners change the word (Unicode 16, sections 9.2, 12 and 23.2).
_JOINING = (
    r"\u0600-\u06ff\u0750-\u077f\u0870-\u08ff\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u18af"
    r"\ufb50-\ufdff\ufe70-\ufefc"
)
_VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u17d2"
_PICTURES = "\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u20e3\U0001f000-\U0001faff"
_EMOJI = _PICTURES + "\ufe0f"
_STYLED = _PICTURES + "0-9#*\xa9\xae\u203c\u2049\u2122\u2139\u3030\u303d\u3297\u3299"
_JOINERS_KEPT = (
    f"(?<=[{_JOINING}])\u200c(?=[{_JOINING}])|(?<=[{_JOINING}])\u200d(?=[{_JOINING}])"
    f"|(?<=[{_VIRAMAS}])[\u200c\u200d]|(?<=[{_EMOJI}])\u200d(?=[{_EMOJI}])"
)
_JOINER_RUN = re.compile("([\u200c\u200d])[\u200c\u200d]+")
_JOINER = re.compile(f"({_JOINERS_KEPT})|[\u200c\u200d]")
# The flags of England, Scotland and Wales are a black flag with tag characters; any other tag hides something.
_UNSEEN = (
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "]|[\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_INVISIBLE = re.compile(
    f"(\U0001f3f4[\U000e0030-\U000e007a]{{1,8}}\U000e007f)|{_UNSEEN}|(?<![{_STYLED}])[\ufe0e\ufe0f]"
)
# Ten times as fast as the above, for the many texts that have nothing to remove.
_SUSPECT = re.compile(f"{_UNSEEN}|[\ufe0e\ufe0f]")
_MARK_RUN = re.compile(r"[^\x00-\u02ff\w\s]{31,}")
# UAX #15, section 13 (Stream-Safe Text Format): no language needs more marks than this on one letter.
_MOST_MARKS = 30


@dataclass(slots=True)
class CleaningCounts:
    """What a ``Cleaner`` did so far; duplicates are equal to one of the last 200,000 distinct texts."""

    texts: int = 0
    changed: int = 0
    empty: int = 0
    too_long: int = 0
    duplicates: int = 0


class Cleaner:
    """Cleans the texts of one file.

    Control and zero-width characters are removed, bidirectional controls, soft hyphens and hidden tags included. The
    joiners U+200C and U+200D stay where they change what is written: between letters of scripts that need them, such
    as Persian or Hindi, and inside emoji. Unicode is brought into normal form C, whitespace folded into single blanks.

    Args:
        limits: ``max_text_chars`` bounds a cleaned text.

    Example:
        >>> cleaner = Cleaner(IngestLimits())
        >>> cleaner.clean(Chunk([Record(1, "So\\u200b  good!\\n"), Record(2, " ")], []))
        Chunk(records=[Record(row=1, text='So good!')], rejections=[Rejection(row=2, code='empty_text', ...)])
        >>> cleaner.counts.empty
        1
    """

    def __init__(self, limits: IngestLimits) -> None:
        self._limits = limits
        self._seen: dict[int, None] = {}
        self.counts = CleaningCounts()

    def clean(self, chunk: Chunk) -> Chunk:
        """Return the chunk with clean texts; those that are empty or too long become rejections."""
        counts, most = self.counts, self._limits.max_text_chars
        records: list[Record] = []
        rejections = list(chunk.rejections)
        for record in chunk.records:
            counts.texts += 1
            text = clean_text(record.text)
            if not text:
                counts.empty += 1
                rejections.append(Rejection(record.row, "empty_text", "the text is empty"))
                continue
            if len(text) > most:
                counts.too_long += 1
                details = f"the text has {len(text):,} characters; at most {most:,} are allowed"
                rejections.append(Rejection(record.row, "text_too_long", details))
                continue
            self._remember(text)
            if text == record.text:
                records.append(record)
            else:
                counts.changed += 1
                records.append(Record(record.row, text))
        if len(rejections) > len(chunk.rejections):
            rejections.sort()
        return Chunk(records, rejections)

    def _remember(self, text: str) -> None:
        key = hash(text)
        if key in self._seen:
            self.counts.duplicates += 1
            return
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]


def clean_text(text: str) -> str:
    """Return one text cleaned; cleaning twice changes nothing more.

    Example:
        >>> clean_text("Cafe\\u0301\\t is\\x00 nice")
        'Café is nice'
    """
    if not text.isascii():
        if _SUSPECT.search(text):
            text = _INVISIBLE.sub(r"\1", text)
        if "\u200c" in text or "\u200d" in text:
            text = _JOINER.sub(r"\1", _JOINER_RUN.sub(r"\1", text))
        text = unicodedata.normalize("NFC", _MARK_RUN.sub(_bounded_marks, text))
    elif not text.isprintable():
        text = _INVISIBLE.sub("", text)
    return " ".join(text.split())


def _bounded_marks(run: re.Match[str]) -> str:
    # Sorting an endless run of marks, as the normal form asks, takes quadratic time.
    kept, marks = [], 0
    for char in run[0]:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)
