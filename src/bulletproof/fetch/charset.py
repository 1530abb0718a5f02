"""In which encoding a page is written: byte order mark, header, meta element, then the bytes themselves."""

import codecs
import re
from functools import lru_cache

SAMPLE = 32 * 1024
_META_BYTES = 4096

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with the other's
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META = re.compile(
    rb"""<meta[^>]{0,200}?charset\s{0,20}=\s{0,20}["']?\s{0,20}([\w.:-]{1,40})|<\?xml[^>]{0,80}?encoding\s{0,20}=\s{0,20}["']([\w.:-]{1,40})""",
    re.IGNORECASE,
)
_TAG = re.compile(rb"<[^<>]{0,1000}>")
# Single letters and marks between ASCII; three in a row are another alphabet.
_WESTERN = re.compile(
    "(?:[àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜŸ“”‘’„‚«»–—…€°§·¡¿\xa0]{0,2}[\x00-\x7f])*.?"
)
# What pages call these they mean as the larger encoding (https://encoding.spec.whatwg.org/#names-and-labels).
_MEANT = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "utf-16": "utf-16-le",
}  # fmt: skip
_NEVER = frozenset({"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})


@lru_cache(maxsize=512)
def known(label: str) -> str | None:
    """Return Python's name of the encoding that a page means by a label; None when there is none.

    Example:
        >>> known("ISO-8859-1"), known("x-sjis"), known("klingon"), known("zip")
        ('cp1252', 'cp932', None, None)
    """
    name = label.strip().strip("\"'").lower()
    try:
        found = codecs.lookup(name.removeprefix("x-")).name
        bytes(4).decode(found)  # a LookupError for what is no encoding of text, such as zip
    except (LookupError, ValueError):
        return None
    return None if found in _NEVER else _MEANT.get(found, found)


def declared(body: bytes, label: str | None) -> str | None:
    """Return the encoding that a page, or the ``charset`` of its ``Content-Type``, says, when it can be read in it."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return name
    meta = _META.search(body[:_META_BYTES])
    inside = known((meta[1] or meta[2]).decode("ascii")) if meta else None
    if inside is not None and inside.startswith("utf-16"):
        inside = "utf-8"  # it was read as ASCII just now
    for choice in dict.fromkeys((known(label) if label else None, inside, "utf-8")):
        if choice is not None and _readable(body, choice):
            return choice
    return None


def guess(body: bytes) -> str:
    """Guess the encoding of a page that says none it is in, from its first bytes; Western when nothing fits."""
    from charset_normalizer import from_bytes

    sample = _TAG.sub(b" ", body[:SAMPLE])
    if _WESTERN.fullmatch(sample.decode("cp1252", "replace")):
        return "cp1252"
    best = from_bytes(sample, enable_fallback=False).best()
    found = known(best.encoding) if best is not None else None
    return found if found is not None else "cp1252"


def _readable(body: bytes, name: str) -> bool:
    """Whether slips are rare: at most one for each ten characters beyond ASCII that are right."""
    sample = body[: 16 * SAMPLE]
    if sample.isascii() and b"\0" not in sample:
        return not name.startswith(("utf-16", "utf-32"))
    text = sample.decode(name, "replace")
    slips = text.count("\ufffd") - (len(sample) < len(body))  # the sample may end inside of a character
    return slips <= 0 or 10 * slips <= sum(char > "\x7f" for char in text) - slips
