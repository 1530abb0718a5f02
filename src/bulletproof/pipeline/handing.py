"""What one stage hands to the next: plain strings and numbers that know more about themselves."""

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

from bulletproof.analysis import Analysis
from bulletproof.errors import InvalidModelOutputError
from bulletproof.pipeline.content import MAX_CHARS
from bulletproof.pipeline.extraction import Extract
from bulletproof.pipeline.items import STAGES, ProcessingItem

if TYPE_CHECKING:
    from bulletproof.fetch import Page

_DOWNLOAD, _, _ANALYZE, _STORE = STAGES
_NEUTRAL = 0.05  # scores of one's own up to here on both sides count as neutral


class Content(str):
    """What was downloaded, as text (empty for a PDF), and the page that it is from."""

    page: "Page"

    @classmethod
    def of(cls, page: "Page") -> Self:
        """Make it from a page."""
        content = cls("" if page.charset is None else page.text())
        content.page = page
        return content


class Text(str):
    """The text of a document, and what else was found in it."""

    __slots__ = ("extract",)
    extract: Extract

    @classmethod
    def of(cls, extract: Extract) -> Self:
        """Make it from an extract."""
        text = cls(extract.text)
        text.extract = replace(extract, text="")
        return text


class Score(float):
    """A sentiment in [-1, 1], and the analysis that it is from."""

    __slots__ = ("analysis", "degraded")
    analysis: Analysis
    degraded: str | None

    @classmethod
    def of(cls, analysis: Analysis, degraded: str | None) -> Self:
        """Make it from an analysis; ``degraded`` is the code of what kept the analyzer asked from answering."""
        score = cls(analysis.score)
        score.analysis = analysis
        score.degraded = degraded
        return score


@dataclass(slots=True)
class Carried:
    """What an item carries from stage to stage.

    Args:
        lane: Where its download waits: ``host:`` and the host.
        value: The content after the download, the text after the extraction.
        known: What the result will say.
        previous: The result of an earlier run, for revalidation.
        waited: Seconds of the last wait before a retry of this stage.
        since: When this stage was tried first.
        spared: Tries of this stage that do not count: those at a service that was down.
        begun: Whether the last try was made, or refused beforehand.
        probing: Whether the last try was such a probe.
    """

    lane: str
    value: str | None = None
    known: dict[str, Any] = field(default_factory=dict)
    previous: dict[str, Any] | None = None
    waited: float = 0.0
    since: float | None = None
    spared: int = 0
    begun: bool = False
    probing: bool = False

    @property
    def size(self) -> int:
        """Characters that are kept."""
        return len(self.value) if self.value is not None else 0

    def next(self, value: str | None) -> None:
        """Go on to the next stage."""
        self.value, self.waited, self.since, self.spared = value, 0.0, None, 0


def made_of(item: ProcessingItem) -> dict[str, Any] | None:
    """Return what the stages before the present one made of an item, as JSON; None when they have to be run again.

    Example:
        >>> made_of(ProcessingItem("https://example.com/", stage="store", result={"score": 0.5}, carry=Carried("a")))
        {'stage': 'store', 'result': {'score': 0.5}}
    """
    carried = item.carry
    if not isinstance(carried, Carried):
        return carried if isinstance(carried, dict) else None
    if item.stage == _ANALYZE and carried.value is not None and carried.size <= MAX_CHARS:
        return {"stage": _ANALYZE, "text": str(carried.value), "known": carried.known}
    return {"stage": _STORE, "result": item.result} if item.stage == _STORE and item.result else None


def take_up(item: ProcessingItem, lane: str) -> Carried:
    """Put an item back where ``made_of`` found it: what that returned is its ``carry``; return the new one.

    Example:
        >>> item = ProcessingItem("https://example.com/", carry={"stage": "store", "result": {"score": 0.5}})
        >>> take_up(item, "host:example.com").lane, item.stage, item.result
        ('host:example.com', 'store', {'score': 0.5})
    """
    made: dict[str, Any] = item.carry
    known: dict[str, Any] = made.get("known", {})
    carried = item.carry = Carried(lane, made.get("text"), known)
    item.stage, item.result = made["stage"], made.get("result")
    if "extracted_by" in known:
        title, date, author = (known.get(name) for name in ("title", "date", "author"))
        extract = Extract(made["text"], title, date, author, known.get("language", "und"), known["extracted_by"])
        carried.value = Text.of(extract)
    return carried


def about_page(content: str) -> dict[str, Any]:
    """Return what the result says of a download."""
    page = getattr(content, "page", None)
    if page is None:
        return {}
    known = {"final_url": page.final_url, "media_type": page.media_type, "bytes": len(page.body)}
    return known | {name: value for name, value in page.validators._asdict().items() if value is not None}


def about_text(text: str) -> dict[str, Any]:
    """Return what the result says of a text."""
    extract = getattr(text, "extract", None)
    known: dict[str, Any] = {"text_chars": len(text)}
    if extract is not None:
        known |= {
            "title": extract.title, "date": extract.date, "author": extract.author,
            "language": extract.language, "extracted_by": extract.method,
        }  # fmt: skip
        known |= {"truncated": True, "left_out_chars": extract.left_out} if extract.left_out is not None else {}
    return known


def about_score(score: Any) -> dict[str, Any]:
    """Return what the result says of the sentiment; ``InvalidModelOutputError`` when it is no number in [-1, 1]."""
    number = isinstance(score, Real) and not isinstance(score, bool)  # NumPy's are Real
    if not number or not -1 <= score <= 1:
        raise InvalidModelOutputError(f"a sentiment is a number in [-1, 1], not {score!r:.80}", stage="analyze")
    analysis = getattr(score, "analysis", None)
    if analysis is None:
        label = "neutral" if abs(score) <= _NEUTRAL else "positive" if score > 0 else "negative"
        return {"sentiment": label, "score": float(score)}
    known = {
        "sentiment": analysis.sentiment, "score": float(score), "confidence": analysis.confidence,
        "language": analysis.language, "analyzer": analysis.analyzer,
    }  # fmt: skip
    degraded = getattr(score, "degraded", None)
    return known if degraded is None else known | {"degraded": degraded}


def result_of(url: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return the result, the fields that every result has first."""
    return {"url": url, "final_url": url, "title": None, "language": "und"} | known
