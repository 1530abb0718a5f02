"""Texts of exceptions made fit to show: bounded, on one line, without secrets."""

import re
from functools import lru_cache

LIMIT = 400
"""Most characters of one message that are kept."""
_SCANNED = 2000
_MASK = "***"

_SECRETS = re.compile(
    r"""
    (?P<url>[a-z][a-z0-9+.-]{0,20}://)[^\s/?\#"'<>]+@                 # credentials before the host
    | (?P<scheme>\bbearer\s+|\bauthorization["']?\s*[:=]\s*["']?(?:\w+\s+)?)[^\s"',;)}\]]+
    | (?P<key>(?:\b|_)(?:api[\s_-]?key(?:\s+provided)?|passwd|password|pwd|secret(?:[\s_-]?(?:access[\s_-]?)?key)?
        |(?:access|refresh|auth|session|id)[_-]?token|client[_-]?secret|private[_-]?key|credentials?|signature
        )["']?\s*[:=]\s*["']?)[^\s"',;&)}\]]+
    | (?P<token>\b(?:token|sig|key)=)[^\s"',;&)}\]]+
    | \b(?:sk|pk|rk)[-_][\w*-]{8,}                                    # OpenAI, Anthropic, Stripe
    | \bAIza[\w-]{20,} | \bya29\.[\w-]+                               # Google
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}                                    # AWS
    | \bgh[pousr]_\w{16,} | \bgithub_pat_\w{16,} | \bglpat-[\w-]{16,} # code hosts
    | \bxox[abeprs]-[\w-]{8,}                                         # Slack
    | \b(?:hf|gsk|r8|xai|tvly|pplx)[_-]\w{16,}                        # model hosts
    | \beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?                             # JSON web tokens
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\([^()]*\)|\{[^{}]*\}""")


def _mask(match: re.Match[str]) -> str:
    return (match["url"] or match["scheme"] or match["key"] or match["token"] or "") + (
        f"{_MASK}@" if match["url"] else _MASK
    )


def redact(text: str) -> str:
    """Replace what looks like a key, token, password or URL credential.

    Args:
        text: Any text; the time taken grows linearly with its length.

    Returns:
        The same text with each secret replaced by ``***``.

    Example:
        >>> redact("GET https://bob:hunter2@example.com failed with Authorization: Bearer abc.def")
        'GET https://***@example.com failed with Authorization: Bearer ***'
        >>> redact("Incorrect API key provided: sk-abcdefghijkl")
        'Incorrect API key provided: ***'
    """
    return _SECRETS.sub(_mask, text)


def one_line(text: str, *, limit: int = LIMIT) -> str:
    """Return the first line that says something: bounded, redacted, printable, encodable.

    Example:
        >>> one_line("\\n  disk is full\\nDETAIL: ...")
        'disk is full'
    """
    return brief(text) if len(text) <= LIMIT == limit else _shorten(text, limit)


@lru_cache(maxsize=2048)
def brief(text: str) -> str:
    """Do as ``one_line`` for texts of up to ``LIMIT`` characters: the same few come again and again in an outage."""
    return _shorten(text, LIMIT)


def _shorten(text: str, limit: int) -> str:
    line = next((line for line in text[: 4 * _SCANNED].splitlines() if line.strip()), "").strip()
    if len(line) > _SCANNED:
        line = line[:_SCANNED]
    if not line.isprintable():
        line = _UNSHOWN.sub(" ", line).strip()
        line = line.encode("utf-8", "replace").decode("utf-8")
    line = redact(line)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def without_values(text: str) -> str:
    """Return the first line with everything quoted or in brackets left out.

    Database drivers and parsers quote the caller's data in their messages.

    Example:
        >>> without_values("invalid input syntax for type integer: 'secret'")
        "invalid input syntax for type integer: '...'"
    """
    return one_line(_QUOTED.sub(lambda match: f"{match[0][0]}...{match[0][-1]}", text[:_SCANNED]))
