"""The local analyzer: sentiment without any network, by a small linear model of our own."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

import numpy as np

from bulletproof.analysis.analyzer import Analysis, BatchAnalysis, Sentiment
from bulletproof.analysis.features import DENSE, encode
from bulletproof.analysis.language import UNKNOWN, LanguageDetector
from bulletproof.analysis.weights import OTHER, Weights, classify, decide
from bulletproof.errors import InputValidationError

_VERSION = "1.0"
_CLASSES: tuple[Sentiment, ...] = get_args(Sentiment)
_CHUNK, _CHUNK_SIZE = 256, 100_000  # texts, characters scored at once: few enough to let other threads in
_NO_WORD_KNOWN = DENSE.index("none")
_FEW_WORDS = 5  # too few for the language model; an English word of the lexicon then decides
_LONGEST = 20_000  # characters of a text that are read


@lru_cache(maxsize=1)
def _shipped() -> tuple[Weights, LanguageDetector]:
    return Weights.load(), LanguageDetector()


class LocalAnalyzer:
    """Analyses sentiment on this machine. It needs no network, keeps no state and is safe to share between threads.

    See ``docs/model-card.md`` for the data, the method, the figures and the limits of the model.

    Example:
        >>> analyzer = LocalAnalyzer()
        >>> [result.sentiment for result in analyzer.analyze_batch(["I love it!", "The soup was not good at all."])]
        ['positive', 'negative']
    """

    def __init__(self) -> None:
        self._weights, self._languages = _shipped()
        self._rows = {code: row for row, code in enumerate(self._weights.languages)}

    @property
    def name(self) -> str:
        """Name and version of the model."""
        return f"local/{_VERSION}"

    def analyze_batch(self, texts: Sequence[str]) -> list[Analysis]:
        """Analyse texts in the calling thread.

        Args:
            texts: Any strings. Of a text longer than 20,000 characters the beginning counts.

        Returns:
            One result a text, in order. An empty text is neutral with no confidence.
        """
        results: list[Analysis] = []
        chunk: list[str] = []
        size = 0
        for text in texts:
            chunk.append(text[:_LONGEST])
            size += len(chunk[-1])
            if len(chunk) == _CHUNK or size > _CHUNK_SIZE:
                results.extend(self._analyze(chunk))
                chunk, size = [], 0
        return results + self._analyze(chunk)

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        """Analyse texts off the event loop.

        Args:
            texts: As for ``analyze_batch``.
            labels: Not supported by this analyzer: it knows sentiment alone.

        Raises:
            InputValidationError: With the code ``labels_unavailable``, when labels are asked for.
        """
        if labels:
            raise InputValidationError(
                "The local model tells sentiment only; it cannot sort texts into labels of your own",
                code="labels_unavailable",
            )
        return BatchAnalysis(results=await asyncio.to_thread(self.analyze_batch, list(texts)))

    async def aclose(self) -> None:
        """Nothing to release."""

    def _analyze(self, texts: list[str]) -> list[Analysis]:
        batch = encode(texts, self._weights.lexicon)
        english = batch.dense[:, _NO_WORD_KNOWN] == 0
        languages = [
            "en" if code == UNKNOWN and known and text.isascii() and text.count(" ") < _FEW_WORDS else code
            for code, known, text in zip(self._languages.detect_batch(texts), english.tolist(), texts, strict=True)
        ]
        rows = self._weights.calibration[[self._rows.get(code, self._rows[OTHER]) for code in languages]]
        chances = classify(self._weights.score(batch), rows)
        best = decide(chances, rows[:, -1])
        scores = chances[:, 2] - chances[:, 0]
        confidences = chances[np.arange(len(best)), best]
        empty = np.bincount(batch.unit_text, minlength=batch.size) == 0
        best[empty], scores[empty], confidences[empty] = 1, 0.0, 0.0
        return [
            Analysis(_CLASSES[at], round(score, 4), round(confidence, 4), language, self.name)
            for at, score, confidence, language in zip(
                best.tolist(), scores.tolist(), confidences.tolist(), languages, strict=True
            )
        ]
