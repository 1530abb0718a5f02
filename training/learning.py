"""The mathematics of the training: the feature matrix, logistic regression, calibration, packing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize

from bulletproof.analysis.features import DENSE, NEGATED, U64, Floats, Lexicon, encode, word_hashes
from bulletproof.analysis.weights import classify, place

GRAM = 0.25  # a character n-gram counts so much of a word
VECTOR = 0.5  # and a word vector so much
_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Features:
    """Texts as numbers: hashed columns, then lexicon figures, then sums of word vectors (plain and negated words)."""

    sparse: Any
    hashes: U64
    factor: Floats
    dense: Floats

    def only(self, columns: npt.NDArray[Any]) -> "Features":
        return Features(self.sparse[:, columns].tocsr(), self.hashes[columns], self.factor[columns], self.dense)


def features(texts: Sequence[str], lexicon: Lexicon, words: Sequence[str], vectors: Floats) -> Features:
    """Encode texts by the very function that the analyzer uses and spread the result into columns."""
    blocks, dense = [], []
    for start in range(0, len(texts), _CHUNK):
        batch = encode(texts[start : start + _CHUNK], lexicon)
        hashes, at = np.unique(np.concatenate([batch.gram_hash, batch.pair_hash]), return_inverse=True)
        grams, pairs = at[: len(batch.gram_hash)], at[len(batch.gram_hash) :]
        of_unit = _counts(batch.gram_unit, grams, (batch.units, len(hashes)))
        of_text = _counts(batch.unit_text, batch.unit_id, (batch.size, batch.units))
        matrix = of_text @ of_unit + _counts(batch.pair_text, pairs, (batch.size, len(hashes)))
        factor = np.ones(len(hashes))
        factor[grams[batch.units :]] = GRAM  # the units themselves come first
        blocks.append((hashes, factor, (sparse.diags(batch.scale) @ matrix).tocoo()))
        dense.append(batch.dense)
    every, first = np.unique(np.concatenate([hashes for hashes, _, _ in blocks]), return_index=True)
    factor = np.concatenate([factor for _, factor, _ in blocks])[first]
    columns = np.concatenate([np.searchsorted(every, hashes)[part.col] for hashes, _, part in blocks])
    rows = np.concatenate([part.row + _CHUNK * number for number, (_, _, part) in enumerate(blocks)])
    values = np.concatenate([part.data for _, _, part in blocks])
    matrix = sparse.csr_matrix((values * factor[columns], (rows, columns)), shape=(len(texts), len(every)))
    known = word_hashes(words)
    order = np.argsort(known)
    for mark in (np.uint64(0), NEGATED):
        at = np.minimum(np.searchsorted(known[order], every ^ mark), len(known) - 1)
        found = np.flatnonzero(known[order][at] == every ^ mark)
        dense.append(VECTOR * (matrix[:, found] @ vectors[order[at[found]]]))
    return Features(matrix, every, factor, np.hstack([np.vstack(dense[:-2]), *dense[-2:]]))


def _counts(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def logistic(x: Features, chance: Floats, weight: Floats, ridge: float, rounds: int = 15) -> tuple[Floats, Floats]:
    """Logistic regression on soft labels.

    Args:
        x: Features, one row a text.
        chance: Wanted probability of each text.
        weight: Weight of each text.
        ridge: Penalty on hashed columns; the dense ones have half of it.
        rounds: Steps of L-BFGS. Columns are scaled by their curvature first, so few are needed; stopping early
            is a penalty as well.

    Returns:
        Coefficients of the hashed and of the dense columns.
    """
    weight = weight / weight.sum()
    matrix = sparse.hstack([x.sparse, sparse.csr_matrix(x.dense)]).tocsr().astype(np.float32)
    size = x.sparse.shape[1]
    penalty = np.full(matrix.shape[1], ridge)
    penalty[size:] /= 2
    squares = matrix.copy()
    squares.data **= 2
    scale = 1 / np.sqrt(penalty + 0.15 * (squares.T @ weight.astype(np.float32)))
    matrix.data *= scale.astype(np.float32)[matrix.indices]
    turned = matrix.T.tocsr()
    penalty = penalty * scale**2

    def loss(of: Floats) -> tuple[float, Floats]:
        z = (matrix @ of.astype(np.float32)).astype(np.float64)
        rest = (weight * (sigmoid(z) - chance) * len(z)).astype(np.float32)
        value = float((weight * (np.logaddexp(0, z) - chance * z)).sum() + (penalty * of * of).sum() / 2)
        return value, (turned @ rest).astype(np.float64) / len(z) + penalty * of

    found = minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options={"maxiter": rounds, "maxcor": 8})
    result = found.x * scale
    return result[:size], result[size:]


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def calibrate(raw: Floats, labels: npt.NDArray[Any], weight: Floats, toward: Floats | None = None) -> Floats:
    """Coefficients of ``classify`` that make its probabilities true on held-out texts.

    Args:
        raw: Polarity and opinion of held-out texts, one row each.
        labels: 0 negative, 1 neutral, 2 positive.
        weight: Weight of each text.
        toward: Coefficients to stay close to, for languages with few texts.
    """
    start = np.array([1.0, 0.0, 0.0, -1.0, -0.2]) if toward is None else toward
    pull = 1e-4 if toward is None else 3e-3

    def loss(of: Floats) -> float:
        chances = classify(raw, np.broadcast_to(of, (len(labels), len(of))))
        likelihood = np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12))
        return float(-(weight * likelihood).sum() / weight.sum() + pull * ((of - start) ** 2).sum())

    result: Floats = minimize(loss, start, method="L-BFGS-B").x
    return result


def pack(hashes: U64, weights: Floats, bits: int) -> dict[str, npt.NDArray[Any]]:
    """Put weights into a table of 2^bits slots with fingerprints; where several want one slot, the heaviest has it."""
    size = 1 << bits
    steps = np.abs(weights).max(axis=1) / 127**2
    levels = (np.sign(weights) * np.round(np.sqrt(np.abs(weights) / steps[:, None]))).astype(np.int8)
    heaviness = np.abs(levels.astype(int)).max(axis=0)
    waiting = np.argsort(-heaviness, kind="stable")[: np.count_nonzero(heaviness)]
    *choices, prints = place(hashes, size)
    table, marks, taken = np.zeros((len(weights), size), np.int8), np.zeros(size, np.uint8), np.zeros(size, bool)
    for slots in choices:
        free = waiting[~taken[slots[waiting]]]
        chosen = free[np.unique(slots[free], return_index=True)[1]]
        table[:, slots[chosen]], marks[slots[chosen]] = levels[:, chosen], prints[chosen]
        taken[slots[chosen]] = True
        waiting = waiting[~np.isin(waiting, chosen)]
    return {"prints": marks, "table": table, "steps": steps}


def fold(x: Features, sparse_weights: Floats, dense_weights: Floats, words: Sequence[str], vectors: Floats) -> Any:
    """Give the part of the word vectors to the words themselves, so that no vector is needed in use.

    Returns:
        Hashes and weights of all hashed features, then the weights of the lexicon figures.
    """
    plain = len(DENSE)
    width = vectors.shape[1]
    known = word_hashes(words)
    hashes = np.concatenate([x.hashes, known, known ^ NEGATED])
    by_vector = [
        VECTOR * (vectors @ dense_weights[plain + part * width : plain + (part + 1) * width]) for part in (0, 1)
    ]
    weights = np.concatenate([sparse_weights * x.factor, *by_vector])
    every, at = np.unique(hashes, return_inverse=True)
    return every, np.bincount(at, weights=weights), dense_weights[:plain]
