"""Get the text out of a document; run in a worker that may be killed over it."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any, NamedTuple

import orjson

from bulletproof.errors import ConfigurationError, InvalidFileError
from bulletproof.ingest.text_field import named
from bulletproof.pipeline.content import MAX_CHARS, Kind, cut, decode, tidy

_MOST_TAGS = 100_000  # trafilatura's time grows with the square of their number
_UNSEEN = ["script", "style", "noscript", "template", "svg", "iframe", "object", "head", "nav", "footer"]
_INLINE = {
    "a", "abbr", "b", "bdi", "cite", "code", "em", "font", "i", "mark", "q", "s", "small", "span", "strong", "sub",
    "sup", "time", "u", "var", "wbr",
}  # fmt: skip
_BODIES = ("articleBody", "content_html", "text", "body", "content")
_ABOUT = (
    ("title", "headline", "name", "subject"),
    ("date", "datePublished", "date_published", "published", "published_at", "publishedAt", "created_at", "created"),
    ("author", "creator", "byline", "by"),
)
_MOST_LEAVES = 100_000
_CODE = re.compile(r"[\W\d_]*|\S*[\d_/@#:=]\S*")


class Found(NamedTuple):
    """What a document says; ``left_out`` are the characters beyond the limit, None when this is all of it."""

    text: str
    method: str
    title: str | None = None
    date: str | None = None
    author: str | None = None
    left_out: int | None = None


def warm_up() -> None:
    """Load the parsers, and keep what they have to say about broken documents out of the log."""
    import pypdf  # noqa: F401
    import selectolax.lexbor  # noqa: F401
    import trafilatura  # noqa: F401

    for name in ("htmldate", "pypdf", "trafilatura"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def read(kind: Kind, body: bytes | str, charset: str | None, url: str) -> Found:
    """Read a document; it may be broken or encrypted (``InvalidFileError``), or binary (``UnsupportedFormatError``)."""
    if kind == "pdf":
        return read_pdf(body if isinstance(body, bytes) else body.encode("utf-8", "replace"))
    text = decode(body, charset)
    if kind == "html":
        return read_html(text, url)
    return read_json(text) if kind == "json" else _found(text, "text")


def read_simply(body: bytes | str, charset: str | None) -> Found:
    """Read a page without looking for an article in it."""
    return _whole(decode(body, charset))


def read_html(page: str, url: str = "") -> Found:
    """Read a page: the article in it if there is one, else all that a reader sees.

    Example:
        >>> read_html("<p>Good <b>day</b><script>x()</script>")
        Found(text='Good day', method='selectolax', title=None, date=None, author=None, left_out=None)
    """
    found = _article(page, url) if page.count("<") <= _MOST_TAGS else None
    return found if found is not None else _whole(page)


def read_json(text: str) -> Found:
    """Read JSON: the text, title, author and date of an article by the names of its fields, else all texts in it.

    Raises:
        InvalidFileError: It is no JSON; says where.

    Example:
        >>> read_json('{"headline": "News", "articleBody": "All is well.", "author": {"name": "Ann"}}')
        Found(text='All is well.', method='json', title='News', date=None, author='Ann', left_out=None)
        >>> read_json('[{"id": "a1", "note": "Fine."}, {"id": "a2", "deep": ["Good, too."]}]').text
        'Fine.\\nGood, too.'
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidFileError(
            f"the content is not valid JSON: {error.msg}", code="invalid_json", line=error.lineno, column=error.colno
        ) from error
    leaves, more = _leaves(value)
    for article in _objects(value):
        names = [*_BODIES, *named(list(article))] if article is value else _BODIES
        body = _field(article, [name for name in names if name not in _ABOUT[0]])
        # Inside of something larger only if it is most of what that says.
        if body and (article is value or 2 * len(body) > sum(map(len, leaves))):
            title, date, author = (_short(_field(article, names)) for names in _ABOUT)
            return _plain(body)._replace(method="json", title=title, date=date, author=author)
    return _found("\n".join(_plain(leaf).text for leaf in leaves), "json", more=more)


def read_pdf(body: bytes) -> Found:
    """Read a PDF; ``InvalidFileError`` when it is broken, or does not open without a password."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    if b"%PDF-" not in body[:1024]:  # where readers look for it (ISO 32000-1, annex H, note 13)
        raise InvalidFileError("the content is no PDF, though its type says so")
    failure: Exception | None = None
    parts: list[str] = []
    more = False
    try:
        reader = PdfReader(BytesIO(body), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidFileError("the PDF is encrypted", hint="Publish it again without a password.")
        for number in range(len(reader.pages)):
            more = sum(map(len, parts)) > MAX_CHARS
            if more:
                break
            try:
                parts.append(reader.pages[number].extract_text())
            except Exception as error:  # noqa: BLE001 -- the other pages may be whole; told below when none is
                failure = _unless_ours(error)
        about = [_attempt(lambda name=name: getattr(reader.metadata, name)) for name in ("title", "author")]  # type: ignore[misc]
        made = _attempt(lambda: reader.metadata.creation_date.date().isoformat())  # type: ignore[union-attr]
    except DependencyError as error:
        raise ConfigurationError(
            "the PDF is encrypted, and what decrypts it is not installed",
            code="missing_dependency",
            hint="pip install 'pypdf[crypto]'",
        ) from error
    except Exception as error:
        failure = _unless_ours(error)
        raise InvalidFileError(f"the PDF cannot be read: {_in_short(failure)}", hint="Publish it again.") from error
    found = _found("\n".join(parts), "pdf", _short(about[0]), made, _short(about[1]), more=more)
    if failure is not None and not found.text:
        raise InvalidFileError(f"no page of the PDF can be read: {_in_short(failure)}", hint="Publish it again.")
    return found


def _article(page: str, url: str) -> Found | None:
    from trafilatura import bare_extraction

    try:
        found: Any = bare_extraction(page, url=url or None, fast=True, with_metadata=True, include_comments=False)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 -- a page that breaks the one parser is read by the other
        return None
    if found is None:
        return None
    article = _found(found.text or "", "trafilatura", *map(_short, (found.title, found.date, found.author)))
    return article if article.text else None


def _whole(page: str) -> Found:
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    try:
        tree = LexborHTMLParser(page)
    except SelectolaxError as error:  # any text at all is a page: it fails for want of memory only
        raise MemoryError from error
    heading = tree.css_first("title")
    title = heading.text(strip=True) if heading is not None else ""
    tree.strip_tags(_UNSEEN)
    parts: list[str] = []
    for node in tree.body.traverse(include_text=True) if tree.body is not None else ():
        if node.tag == "-text":
            parts.append(node.text_content or "")
        else:
            parts.append(" " if node.tag in _INLINE else "\n")
    return _found("".join(parts), "selectolax", _short(title))


def _found(text: str, method: str, *about: str | None, more: bool = False) -> Found:
    kept, left_out = cut(text)
    title, date, author = (*about, None, None, None)[:3]
    return Found(kept, method, title, date, author, left_out if left_out or more else None)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that may be the article: the value itself, then those one or two levels inside."""
    level = [value]
    for _ in range(3):
        yield from (item for item in level if isinstance(item, dict))
        # Of the many in a list none is the one.
        single = [item for item in level if isinstance(item, list) and len(item) == 1]
        level = [inner for item in level if isinstance(item, dict) for inner in item.values()]
        level += [item[0] for item in single]


def _field(article: dict[str, Any], names: Iterable[str]) -> str:
    """Return the first text under one of these names; of a list its first entry, of an object its name."""
    for name in names:
        value = article.get(name)
        value = value[0] if isinstance(value, list) and value else value
        value = value.get("name") if isinstance(value, dict) else value
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _leaves(value: Any) -> tuple[list[str], bool]:
    """Return the texts in a JSON value in their order, without codes and addresses; and whether there are more."""
    found: list[str] = []
    waiting = [value]
    while waiting and len(found) < _MOST_LEAVES:
        item = waiting.pop()
        if isinstance(item, str):
            if not _CODE.fullmatch(item):
                found.append(item)
        elif isinstance(item, dict | list):
            waiting.extend(reversed(list(item.values()) if isinstance(item, dict) else item))
    return found, bool(waiting)


def _plain(text: str) -> Found:
    return _whole(text) if "</" in text or "<p>" in text or "<br" in text else _found(text, "json")


def _short(value: Any) -> str | None:
    return (tidy(value).replace("\n", " ")[:500] or None) if isinstance(value, str) else None


def _attempt(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 -- a title or a date that makes no sense is none
        return None


def _unless_ours(error: Exception) -> Exception:
    if isinstance(error, MemoryError | InvalidFileError):
        raise error
    return error


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
