"""Words from text: where tokens begin and end, the form in which they are counted, and what they do to others."""

import html
import re
from contextlib import suppress

LONGEST = 62  # characters of a word that count
# Letters of scripts that need combining marks, which Python's \w leaves out.
_LETTER = r"(?:[^\W\d_]|[\u0300-\u036f\u064b-\u065f\u0670\u0900-\u0963\u0970-\u0dff\u0e30-\u0e4e\u1000-\u109f])"
END = "\x00"
TOKEN = re.compile(
    rf"{END}"
    r"|(?:https?://|www\.)[^\s\x00]+"
    r"|@\w+"
    r"|[<>]?[:;=8xX][-o*']?[)\](\[dDpP/\\|]+(?!\w)|[)\](\[dD/\\|][-o*']?[:;=](?!\w)|<3+|\^_*\^|-_+-"
    rf"|{_LETTER}{{1,32}}(?:'{_LETTER}{{1,16}})*"
    r"|\d[\d.,:/]*%?"
    r"|[!?]+|\.\.+|[^\w\s]"
)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,80}>")
# Corpora that were cut into words before have "did n't" and "it 's".
_SPLIT = re.compile(r"(?<=[A-Za-z]) (?=(?:n't|'(?:s|re|ve|ll|d|m))\b)", re.IGNORECASE)
_ELONGATED = re.compile(r"(.)\1{2,}")
# Skin tones, joiners and variation selectors split one emoji into many; typographic quotes split words.
_FOLD: dict[int, str | None] = {ord(c): None for c in "\x00\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad"}
_FOLD |= dict.fromkeys(range(0x1F3FB, 0x1F400))
_FOLD |= {ord(c): "'" for c in "\u2018\u2019\u02bc\u00b4`"} | {ord(c): '"' for c in "\u201c\u201d\u201e\u00ab\u00bb"}
_FOLD |= {ord("\u2026"): ".."}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATORS = _words(
    "not no never none nobody nothing nowhere neither nor without cannot cant wont dont doesnt didnt isnt arent wasnt "
    "werent hasnt havent hadnt couldnt wouldnt shouldnt aint hardly barely scarcely rarely seldom lacks lacking "
    "nicht kein keine keinen keiner nie niemals ohne pas jamais sans non mai senza sin nunca tampoco nao não sem "
    "ne नहीं मत لا لم لن ليس"
)
_STOPS = frozenset(".,;:!?()") | {"..", "but", "though", "although", "however", "aber", "mais", "pero", "mas", "ma"}
_BUTS = frozenset(["but", "however", "yet", "aber", "mais", "pero", "mas", "ma"])
_BOOSTERS = _words(
    "absolutely amazingly awfully completely considerably deeply enormously entirely especially exceptionally "
    "extremely fully greatly highly hugely incredibly insanely intensely particularly perfectly purely quite really "
    "remarkably so super such thoroughly totally tremendously truly unbelievably utterly very way too"
)
_MARKS = _words("@ # http")  # what posts in social media have and reviews have not
_DAMPENERS = _words("almost kinda less little marginally occasionally partly slightly somewhat sorta")

NEG, STOP, BUT, BOOST, DAMP, BANG, ASK, CAPS, MARK = (1 << i for i in range(9))


def clean(text: str) -> str:
    """Entities, markup, invisible marks and the cuts of tokenised corpora undone."""
    if "&" in text:
        # Numbers of thousands of digits are more than Python reads.
        with suppress(ValueError):
            text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = text.translate(_FOLD)
    return _SPLIT.sub("", text) if " '" in text or " n'" in text else text


def normal(token: str) -> str:
    """The form in which a token is counted: lower case, long drawls cut, numbers, links and names made alike.

    Example:
        >>> normal("Soooooo"), normal("2,50"), normal("@ann"), normal("www.example.org")
        ('soo', '0', '@', 'http')
    """
    if token[0].isdigit():
        return "0"
    if len(token) > 1:
        if token[0] == "@":
            return "@"
        if token.startswith(("http://", "https://", "www.")):
            return "http"
        token = _ELONGATED.sub(r"\1\1", token.lower())
        return token[:2] if token[0] in "!?" else token[:LONGEST]
    return token.lower()


def flags_of(raw: str, form: str) -> int:
    """What a token does to others or to the whole text, as a sum of the constants above."""
    flags = 0
    if form in _NEGATORS or form.endswith("n't"):
        flags |= NEG
    if form in _STOPS or form[0] in "!?":
        flags |= STOP
    if form in _BUTS:
        flags |= BUT
    if form in _BOOSTERS:
        flags |= BOOST
    if form in _DAMPENERS:
        flags |= DAMP
    if form[0] == "!":
        flags |= BANG
    if form[0] == "?":
        flags |= ASK
    if form in _MARKS:
        flags |= MARK
    if len(raw) > 1 and raw.isupper():
        flags |= CAPS
    return flags
