"""The weights of the local model: what is in the file and how a batch of features is scored with them."""

from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from bulletproof.analysis.features import U64, Encoded, Floats, Lexicon

FILE = "sentiment.npz"
OTHER = "other"  # row of the calibration for languages that were never trained on
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """All that was learned.

    A hash names two slots of the table, of which it may have either; its top byte must match the fingerprint of the
    slot, so features never seen in training almost never pick up the weight of another.

    Args:
        lexicon: Valences of words.
        prints: Fingerprint of each slot (the number of slots is a power of two).
        table: Weights of each slot, one row an output (polarity, then opinion), and one more column of zeros. The file
            has signed bytes, whose squares times the step of the output are the weights: so the many small ones and
            the few great ones are equally exact.
        dense: Weights of the lexicon figures, one row an output.
        languages: Language of each row of ``calibration``; ``other`` stands for all that are not named.
        calibration: For each language the coefficients of ``classify``, then the neutral band for ``decide``.
    """

    lexicon: Lexicon
    prints: npt.NDArray[np.uint8]
    table: Float32s
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
        levels = arrays["table"].astype(np.float32)
        return cls(
            lexicon=Lexicon(arrays["lexicon_keys"], arrays["lexicon_valences"].astype(np.float32)),
            prints=arrays["prints"],
            table=np.pad(levels * np.abs(levels) * arrays["steps"].astype(np.float32)[:, None], ((0, 0), (0, 1))),
            dense=arrays["dense"].astype(np.float64),
            languages=tuple(str(code) for code in arrays["languages"]),
            calibration=arrays["calibration"].astype(np.float64),
        )

    def score(self, batch: Encoded) -> Floats:
        """Raw outputs of a batch, one row an output, one column a text."""
        grams, pairs = self._slots(batch.gram_hash), self._slots(batch.pair_hash)
        rows = []
        for row, dense in zip(self.table, self.dense, strict=True):
            of_unit = np.bincount(batch.gram_unit, weights=row[grams], minlength=batch.units)
            summed = np.bincount(batch.unit_text, weights=of_unit[batch.unit_id], minlength=batch.size)
            summed += np.bincount(batch.pair_text, weights=row[pairs], minlength=batch.size)
            rows.append(summed * batch.scale + batch.dense @ dense)
        return np.stack(rows)

    def _slots(self, hashes: U64) -> npt.NDArray[np.int64]:
        """Where the weights of each hash are; the slot after the last one, which weighs nothing, for unknown ones."""
        first, second, prints = place(hashes, len(self.prints))
        fallback = np.where(self.prints[second] == prints, second, len(self.prints))
        slots: npt.NDArray[np.int64] = np.where(self.prints[first] == prints, first, fallback)
        return slots


def place(hashes: U64, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Both slots that a hash may have in a table of ``size`` slots (at most 2^28), and its fingerprint."""
    mask = np.uint64(size - 1)
    first, second = hashes & mask, (hashes >> np.uint64(28)) & mask
    return first.astype(np.int64), second.astype(np.int64), (hashes >> np.uint64(56)).astype(np.uint8)


def classify(raw: Floats, coefficients: Floats) -> Floats:
    """Probabilities of negative, neutral and positive from the raw outputs.

    Args:
        raw: Polarity and opinion, one row each, one column a text.
        coefficients: One row a text: steepness of the polarity, its shift, then bias, weight of the opinion and of
            the size of the polarity for the neutral class. Further columns are left alone.

    Returns:
        One row a text, columns negative, neutral, positive, which sum to 1.
    """
    polarity, opinion = raw
    steep, shift, bias, by_opinion, by_size = coefficients[:, :5].T
    leaning = steep * polarity + shift
    logits = np.stack([-leaning, bias + by_opinion * opinion + by_size * np.abs(leaning), leaning], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def decide(chances: Floats, band: Floats | float) -> npt.NDArray[np.int64]:
    """The class of each text: 0 negative, 1 neutral, 2 positive.

    Args:
        chances: As ``classify`` gives them.
        band: Factor of the neutral class, one for all or one a text; below 1 a text is rather called positive or
            negative than neutral.

    Example:
        >>> decide(np.array([[0.35, 0.40, 0.25]]), 0.8).tolist()
        [0]
    """
    weighed = np.stack([chances[:, 0], chances[:, 1] * band, chances[:, 2]], axis=1)
    best: npt.NDArray[np.int64] = np.argmax(weighed, axis=1)
    return best
