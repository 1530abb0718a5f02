"""The weights of the local model: what is in the file and how a batch of features is scored with them."""

from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from bulletproof.analysis.features import U64, Encoded, Floats, Lexicon

FILE = "sentiment.npz"
Int8s = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Weights:
    """All that was learned.

    A hash names a slot of the table by its low bits; its top byte must match the fingerprint of the slot, so features
    never seen in training almost never pick up the weight of another.

    Args:
        lexicon: Valences of words.
        prints: Fingerprint of each slot (the number of slots is a power of two).
        table: Weights of each slot, one row an output (polarity, then opinion), in units of ``steps``.
        steps: What one unit of ``table`` is worth, for each output.
        dense: Weights of the lexicon figures, one row an output.
        languages: Language of each row of ``calibration``; the first is the default.
        calibration: For each language the coefficients of ``classify``.
    """

    lexicon: Lexicon
    prints: npt.NDArray[np.uint8]
    table: Int8s
    steps: Floats
    dense: Floats
    languages: tuple[str, ...]
    calibration: Floats

    @classmethod
    def load(cls) -> "Weights":
        """Read the weights that are shipped with the package."""
        data = (files("bulletproof.analysis") / FILE).read_bytes()
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            return cls.of({name: arrays[name] for name in arrays.files})

    @classmethod
    def of(cls, arrays: dict[str, npt.NDArray[Any]]) -> "Weights":
        """Build from plain arrays, as they are stored."""
        return cls(
            lexicon=Lexicon(arrays["lexicon_keys"], arrays["lexicon_valences"].astype(np.float32)),
            prints=arrays["prints"],
            table=arrays["table"],
            steps=arrays["steps"].astype(np.float64),
            dense=arrays["dense"].astype(np.float64),
            languages=tuple(str(code) for code in arrays["languages"]),
            calibration=arrays["calibration"].astype(np.float64),
        )

    def score(self, batch: Encoded) -> Floats:
        """Raw outputs of a batch, one row an output, one column a text."""
        grams, pairs = self._slots(batch.gram_hash), self._slots(batch.pair_hash)
        rows = []
        for row, step, dense in zip(self.table, self.steps, self.dense, strict=True):
            of_unit = np.bincount(batch.gram_unit, weights=self._weigh(row, *grams), minlength=batch.units)
            summed = np.bincount(batch.unit_text, weights=of_unit[batch.unit_id], minlength=batch.size)
            summed += np.bincount(batch.pair_text, weights=self._weigh(row, *pairs), minlength=batch.size)
            rows.append(step * summed * batch.scale + batch.dense @ dense)
        return np.stack(rows)

    def _slots(self, hashes: U64) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        slots, prints = place(hashes, len(self.prints))
        return slots, self.prints[slots] == prints

    @staticmethod
    def _weigh(row: Int8s, slots: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> Floats:
        return np.where(known, row[slots], 0).astype(np.float64)


def place(hashes: U64, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Slot and fingerprint of each hash in a table of ``size`` slots."""
    return (hashes & np.uint64(size - 1)).astype(np.int64), (hashes >> np.uint64(56)).astype(np.uint8)


def classify(raw: Floats, coefficients: Floats) -> Floats:
    """Probabilities of negative, neutral and positive from the raw outputs.

    Args:
        raw: Polarity and opinion, one row each, one column a text.
        coefficients: One row a text: steepness of the polarity, its shift, then bias, weight of the opinion and of
            the size of the polarity for the neutral class.

    Returns:
        One row a text, columns negative, neutral, positive, which sum to 1.
    """
    polarity, opinion = raw
    steep, shift, bias, by_opinion, by_size = coefficients.T
    leaning = steep * polarity + shift
    logits = np.stack([-leaning, bias + by_opinion * opinion + by_size * np.abs(leaning), leaning], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result
