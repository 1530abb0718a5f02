"""Which errors are the same: everything that differs from one time to the next is taken out of the text."""

import re
from hashlib import blake2b

LOOKED_AT = 500
"""Characters of a message that decide; what follows is cut off first."""
TEMPLATE = 200

_VARYING = re.compile(
    r"""
    (?P<url>\b[a-z][a-z0-9+.-]{1,15}://[^\s'"<>]+)
    | (?P<str>(?<!\w)'[^'\n]*'(?!\w) | "[^"\n]*" | `[^`\n]*` | «[^»\n]*» | “[^”\n]*”)
    | (?P<mail>\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+)
    | (?P<date>\b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?
        | \b\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?\b
        | \b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b
        | \b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w*,?\ )?
          \d{1,2}[\ -](?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\w*[\ -]\d{4}\b)
    | (?P<uuid>\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b)
    | (?P<addr>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b | \[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?
        | (?<![\w:])(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4})\b | (?<![\w:])(?:[0-9a-f]{1,4}:){1,6}:(?:[0-9a-f]{1,4})?
        | \b0x[0-9a-f]+\b)
    | (?P<path>(?<![\w/.])(?:~|\.{1,2})?(?:/[\w.@%+=~-]+)+/? | \b[a-z]:\\[^\s'"<>|]+ | \\\\[\w.$-]+\\[^\s'"<>|]+)
    | (?P<id>\b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{16,}\b | \b(?=\w*\d)(?=\w*[a-z])\w{8,}\b)
    | (?P<num>[+-]?\d+(?:[.,_]\d+)*(?:e[+-]?\d+)?%?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SHOWN = {"uuid": "<id>"}


def template_of(message: str) -> str:
    """Return a message with its varying parts replaced by their kind.

    Example:
        >>> template_of("GET https://api.example.com/v1/x?id=7 timed out after 30.5 s (request 9f8b1c2d3e4f5a6b)")
        'GET <url> timed out after <num> s (request <id>)'
        >>> template_of("can't read '/data/a.csv': line 12")
        "can't read <str>: line <num>"
    """
    text = _VARYING.sub(_kind, message[:LOOKED_AT])
    return " ".join(text.split())[:TEMPLATE]


def _kind(match: re.Match[str]) -> str:
    kind = match.lastgroup or ""
    return _SHOWN.get(kind, f"<{kind}>")


def fingerprint_of(error_type: str, service: str, code: str, template: str) -> str:
    """Return twelve hexadecimal digits that are the same in every process, on every machine.

    Example:
        >>> fingerprint_of("model_error", "ml", "", "out of memory")
        '4b3d39ae484c'
    """
    parts = "\x1f".join((error_type, service, code, template))
    return blake2b(parts.encode("utf-8", "replace"), digest_size=6).hexdigest()
