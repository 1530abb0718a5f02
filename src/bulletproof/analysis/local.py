"""The local analyzer: sentiment without any network, by a small linear model of our own."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

import numpy as np

from bulletproof.analysis.analyzer import Analysis, BatchAnalysis, Sentiment
from bulletproof.analysis.features import encode
from bulletproof.analysis.language import LanguageDetector
from bulletproof.analysis.weights import Weights, classify
from bulletproof.errors import InputValidationError

_VERSION = "1.0"
_CLASSES: tuple[Sentiment, ...] = get_args(Sentiment)
_CHUNK = 256  # texts scored at once: small enough to let other threads in
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
        for start in range(0, len(texts), _CHUNK):
            results.extend(self._analyze([text[:_LONGEST] for text in texts[start : start + _CHUNK]]))
        return results

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
        languages = self._languages.detect_batch(texts)
        rows = np.array([self._rows.get(code, 0) for code in languages])
        chances = classify(self._weights.score(batch), self._weights.calibration[rows])
        empty = np.bincount(batch.unit_text, minlength=batch.size) == 0
        chances[empty] = (0.0, 1.0, 0.0)
        best = np.argmax(chances, axis=1)
        scores = np.clip(chances[:, 2] - chances[:, 0], -1.0, 1.0)
        confidences = np.where(empty, 0.0, chances.max(axis=1))
        return [
            Analysis(_CLASSES[at], round(score, 4), round(confidence, 4), language, self.name)
            for at, score, confidence, language in zip(
                best.tolist(), scores.tolist(), confidences.tolist(), languages, strict=True
            )
        ]
