"""Which field of a table or of JSON objects holds the text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import listing, shorten

# The earlier wins. After English: German, French, Spanish, Portuguese, Italian, Dutch, Polish, Turkish, Russian,
# Chinese, Japanese, Korean, Arabic.
_NAMES = """
text texts review reviews comment comments content body message messages feedback description tweet tweets post
opinion opinions review_text review_body text_content comment_text full_text sentence sentences response answer remark
remarks note notes statement utterance transcript caption summary input prompt document paragraph title headline
subject
bewertung rezension kommentar inhalt nachricht rückmeldung beschreibung meinung
texte avis commentaire contenu corps critique retour
texto reseña opinión comentario contenido mensaje cuerpo descripción
avaliação resenha opinião conteúdo mensagem descrição
testo recensione commento contenuto messaggio descrizione
tekst recensie beoordeling opmerking bericht
recenzja opinia komentarz treść
metin yorum mesaj açıklama
текст отзыв комментарий сообщение описание
文本 评论 內容 内容 評論 正文 テキスト レビュー コメント 本文 텍스트 리뷰 댓글 내용 نص تعليق مراجعة
"""
_RANKS = {name: rank for rank, name in enumerate(_NAMES.split())}
_NOT_TEXT = """
id ids key date time timestamp count number num no length len type kind lang language url link score rating stars label
user author name by at status votes
"""
_NOT_TEXT_WORDS = frozenset(_NOT_TEXT.split())
# Names that tables without a text of these names have; they show that a row is the header.
_COMMON = """
id name date time timestamp created_at user username author product category label sentiment rating stars score title
url language lang country email age price class target source
"""
_COMMON_NAMES = frozenset(_COMMON.split())
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"\W+|_+")
_IDENTIFIER = re.compile(r"[^\W\d][\w.-]*$")
_LETTER = re.compile(r"[^\W\d_]")
_URL = re.compile(r"\s*(?:https?://|www\.)\S+\s*$")


def named(names: Sequence[str]) -> list[str]:
    """Return the names that fields with texts have, the surest first."""
    return sorted((name for name in names if _normal(name) in _RANKS), key=lambda name: _RANKS[_normal(name)])


def alike(names: Iterable[str], wanted: str) -> list[str]:
    """Return the names that are equal to the one wanted, but for case and blanks."""
    return [name for name in names if name.strip().casefold() == wanted.strip().casefold()]


def tells_header(cells: Sequence[str]) -> bool:
    """Say whether some of these cells are names that columns commonly have."""
    return any(_normal(cell) in _RANKS or _normal(cell) in _COMMON_NAMES for cell in cells) or any(
        _telling(cell) and _IDENTIFIER.match(cell) for cell in cells
    )


def missing_field(wanted: str, fields: Sequence[str]) -> InvalidFileError:
    """Return the error for a field that a file does not have."""
    return InvalidFileError(
        f"The file has no field {shorten(wanted)}; its fields are {listing(list(fields)) or 'none'}",
        code="missing_field",
        hint="Name one of these fields as the text field.",
    )


def find_text_field(samples: Mapping[str, Sequence[Any]], wanted: str | None, notes: Notes) -> str:
    """Find the field that holds the text: the one wanted, else by its name, else the one with the longest texts."""
    fields = list(samples)
    if wanted is not None:
        found = [wanted] if wanted in samples else alike(fields, wanted)
        if len(found) == 1:
            return found[0]
        raise missing_field(wanted, fields)
    lengths = {name: _text_length(values) for name, values in samples.items()}
    known = named(fields)
    telling = [*known, *(name for name in fields if name not in known and _telling(name))]
    by_name = [name for name in telling if lengths[name]] or known
    if by_name:
        return by_name[0]
    open_names = [name for name in fields if _normal(name).split("_")[-1] not in _NOT_TEXT_WORDS]
    longest = max(open_names, key=lambda name: lengths[name], default=None)
    if longest is None or not lengths[longest]:
        raise InvalidFileError(
            f"No field of the file holds text; its fields are {listing(fields) or 'none'}",
            code="missing_field",
            hint="Add a field with the text, such as 'text'.",
        )
    if len(fields) > 1:
        notes.say(
            f"The text was taken from the field {shorten(longest)}, which has the longest texts; "
            "name another with text_field."
        )
    return longest


def _normal(name: str) -> str:
    """Return a field name in one spelling: review_text for reviewText and Review-Text."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", name.strip())).strip("_").casefold()


def _telling(name: str) -> bool:
    words = _normal(name).split("_")
    return any(word in _RANKS for word in words) and words[-1] not in _NOT_TEXT_WORDS


def _text_length(values: Sequence[Any]) -> float:
    """Return the mean length of texts, 0 when the values are none: numbers, dates, codes, addresses."""
    filled = [value for value in values if value is not None and value != ""]
    texts = [value for value in filled if isinstance(value, str) and _LETTER.search(value) and not _URL.match(value)]
    if len(texts) * 2 < len(filled) or not texts:
        return 0.0
    # A blank tells a sentence from a code or a user name of the same length.
    return sum(len(text) * (4 if " " in text.strip() else 1) for text in texts) / len(texts)
