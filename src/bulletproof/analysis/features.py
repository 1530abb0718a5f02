"""Numbers from text: the features of the local model, the same in training and in use.

A batch of texts is cut into tokens once; all the rest is arithmetic on whole arrays. Word pairs and character n-grams
are named by 64-bit hashes, so no vocabulary is needed: a text is a bag of hashes plus a short row of lexicon figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulletproof.analysis.tokens import (
    ASK,
    BANG,
    BOOST,
    BUT,
    CAPS,
    DAMP,
    END,
    LONGEST,
    MARK,
    NEG,
    STOP,
    TOKEN,
    clean,
    flags_of,
    normal,
)  # fmt: skip

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_REACH = 4  # tokens that a negation colours
_BASE = 0x9E3779B97F4A7C15 | 1
_POWERS = np.array([pow(_BASE, i, 1 << 64) for i in range(LONGEST + 2)], dtype=np.uint64)
_INVERSES = np.array([pow(pow(_BASE, -1, 1 << 64), i, 1 << 64) for i in range(LONGEST + 2)], dtype=np.uint64)
NEGATED = np.uint64(0xA5A5_5A5A_1234_8765)
_WORD, _PAIR, _SKIP = np.uint64(0x0F1E2D3C4B5A6978), np.uint64(0x1122334455667788), np.uint64(0x8899AABBCCDDEEFF)
_GRAMS = (2, 3, 4, 5)

DENSE = (
    "bias", "sum", "positive", "negative", "norm", "maximum", "minimum", "last", "first", "net_count",
    "negations", "bangs", "asks", "caps", "length", "after_but", "none", "posted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Valences of words, from about -1 to 1, by the hash of the word (sorted)."""

    keys: U64
    valences: npt.NDArray[np.float32]

    @classmethod
    def of(cls, valences: dict[str, float]) -> "Lexicon":
        """Build one from words."""
        keys = word_hashes([normal(word) for word in valences])
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], np.array(list(valences.values()), dtype=np.float32)[order])

    def look_up(self, keys: U64) -> Floats:
        """Valence of each word, 0 for those that are not in the lexicon."""
        if not len(self.keys):
            return np.zeros(len(keys))
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.valences[at], 0.0).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of a batch.

    A *unit* is a distinct word, told apart by whether it is negated. Each unit has several grams (itself and its
    character n-grams), each text several units and several pairs. All hashes are 64 bits.
    """

    size: int  # number of texts
    gram_hash: U64
    gram_unit: Ints  # unit that each gram belongs to
    units: int  # number of units
    unit_id: Ints  # unit of each token
    unit_text: Ints  # text of each token
    pair_hash: U64
    pair_text: Ints  # text of each word pair
    scale: Floats  # factor of each text, so that long and short texts give scores of one size
    dense: Floats  # lexicon figures, one row a text, columns as in DENSE


def mix(hashes: U64, salt: np.uint64) -> U64:
    """Scramble hashes so that every bit depends on every other (the finalizer of SplitMix64)."""
    h = hashes ^ salt
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _hash_words(words: Sequence[str]) -> tuple[U64, U64, Ints, Ints]:
    """Polynomial hash of each word, the prefix sums and where each word starts and ends in them."""
    marked = "".join(f"\x02{word}\x03" for word in words).encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(marked, dtype="<u4").astype(np.uint64)
    ends = np.cumsum(np.fromiter((len(word) + 2 for word in words), dtype=np.int64, count=len(words)))
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]]) if len(words) else ends
    size = len(points)
    at = np.arange(size, dtype=np.int64)
    position = at - np.repeat(starts, ends - starts)
    # Each code point by the power of its place in its word: sums over any span are then a hash of that span.
    prefix = np.zeros(size + 1, dtype=np.uint64)
    np.cumsum((points + np.uint64(1)) * _POWERS[position], out=prefix[1:])
    return prefix[ends] - prefix[starts], prefix, starts, ends


def word_hashes(words: Sequence[str]) -> U64:
    """The hash by which each word (in its normal form) is counted."""
    return mix(_hash_words(words)[0], _WORD)


def _grams(prefix: U64, starts: Ints, ends: Ints) -> tuple[U64, Ints]:
    """Hashes of all character n-grams inside words, and the word of each."""
    lengths = ends - starts
    word = np.repeat(np.arange(len(starts), dtype=np.int64), lengths)
    position = np.arange(len(word), dtype=np.int64) - starts[word] if len(word) else word
    hashes, owners = [], []
    for n in _GRAMS:
        # A whole word is counted as a word already: n-grams stay shorter than the word with its marks.
        at = np.flatnonzero((position + n <= lengths[word]) & (lengths[word] > n))
        owner = word[at]
        hashes.append(mix((prefix[at + n] - prefix[at]) * _INVERSES[position[at]], np.uint64(n)))
        owners.append(owner)
    return np.concatenate(hashes), np.concatenate(owners)


def _since(mark: npt.NDArray[np.bool_]) -> Ints:
    """For each token the place of the last marked token before it, -1 when there is none."""
    at = np.where(mark, np.arange(len(mark), dtype=np.int64), -1)
    last: Ints = np.maximum.accumulate(at)
    return np.concatenate([np.full(1, -1, dtype=np.int64), last[:-1]])


def encode(texts: Sequence[str], lexicon: Lexicon) -> Encoded:
    """Cut a batch of texts into features; every text counts, the empty ones with none, and lone surrogates are fine.

    Example:
        >>> batch = encode(["Not good at all!"], Lexicon.of({"good": 0.6}))
        >>> batch.size, batch.units, bool(batch.dense[0, DENSE.index("sum")] < 0)
        (1, 5, True)
    """
    size = len(texts)
    raw = TOKEN.findall(END.join([clean(text) for text in texts])) if size else []
    vocabulary: dict[str, int] = {}
    ids = np.fromiter((vocabulary.setdefault(t, len(vocabulary)) for t in raw), dtype=np.int64, count=len(raw))
    forms: dict[str, int] = {}
    form_of = np.empty(len(vocabulary), dtype=np.int64)
    marks = np.empty(len(vocabulary), dtype=np.int64)
    for token, at in vocabulary.items():
        form = normal(token)
        form_of[at] = forms.setdefault(form, len(forms))
        marks[at] = flags_of(token, form)
    breaks = ids == vocabulary.get(END, -1)
    text = np.cumsum(breaks)[~breaks]
    word, flags = form_of[ids[~breaks]], marks[ids[~breaks]]
    base, prefix, starts, ends = _hash_words(list(forms))
    word_hash = mix(base, _WORD)
    negated = _negation(text, flags)

    unit_key, unit_id = np.unique(word * 2 + negated, return_inverse=True)
    gram_hash, gram_word = _grams(prefix, starts, ends)
    # Grams of words, spread over the units that these words appear as.
    unit_word, unit_negated = unit_key >> 1, (unit_key & 1).astype(bool)
    per_word = np.bincount(gram_word, minlength=len(forms))
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(per_word)[:-1]])
    order = np.argsort(gram_word, kind="stable")
    counts = per_word[unit_word]
    gram_unit = np.repeat(np.arange(len(unit_key)), counts)
    offset = np.arange(len(gram_unit)) - np.repeat(np.cumsum(counts) - counts, counts)
    hashes = gram_hash[order][first[unit_word[gram_unit]] + offset] if len(gram_unit) else gram_hash[:0]
    hashes = np.where(unit_negated[gram_unit], hashes ^ NEGATED, hashes)
    unit_hash = np.where(unit_negated, word_hash[unit_word] ^ NEGATED, word_hash[unit_word])

    token_hash = unit_hash[unit_id]
    pairs, pair_texts = _pairs(token_hash, text)
    tokens = np.bincount(text, minlength=size).astype(np.float64)
    valence = lexicon.look_up(word_hash)[word]
    return Encoded(
        size=size,
        gram_hash=np.concatenate([unit_hash, hashes]),
        gram_unit=np.concatenate([np.arange(len(unit_key)), gram_unit]),
        units=len(unit_key),
        unit_id=unit_id.astype(np.int64),
        unit_text=text,
        pair_hash=pairs,
        pair_text=pair_texts,
        scale=1.0 / np.sqrt(np.maximum(tokens, 1.0)),
        dense=_dense(size, text, flags, negated, valence, tokens),
    )


def _negation(text: Ints, flags: Ints) -> Ints:
    """1 for tokens that follow a negator closely, with no stop between."""
    if not len(text):
        return text
    at = np.arange(len(text), dtype=np.int64)
    negator = _since((flags & NEG) > 0)
    stop = _since((flags & STOP) > 0)
    reached = (negator >= 0) & (negator > stop) & (at - negator <= _REACH) & (text[negator] == text)
    result: Ints = (reached & ((flags & (NEG | STOP)) == 0)).astype(np.int64)
    return result


def _pairs(hashes: U64, text: Ints) -> tuple[U64, Ints]:
    """Neighbouring tokens, and tokens with one between them."""
    near = text[1:] == text[:-1]
    far = text[2:] == text[:-2]
    multiplier = np.uint64(_BASE)
    two = mix(hashes[:-1] * multiplier + hashes[1:], _PAIR)[near]
    three = mix((hashes[:-2] * multiplier + hashes[1:-1]) * multiplier + hashes[2:], _SKIP)[far]
    return np.concatenate([two, three]), np.concatenate([text[1:][near], text[2:][far]])


def _dense(size: int, text: Ints, flags: Ints, negated: Ints, valence: Floats, tokens: Floats) -> Floats:
    """Figures from the lexicon: sums and extremes of the valences, with what stands before and after."""

    def total(values: Floats) -> Floats:
        return np.bincount(text, weights=values, minlength=size).astype(np.float64)

    out = np.zeros((size, len(DENSE)))
    out[:, 0] = out[:, DENSE.index("none")] = 1.0
    if not len(text):
        return out
    before = np.concatenate([np.zeros(1, dtype=np.int64), flags[:-1]])
    before[np.concatenate([[True], text[1:] != text[:-1]])] = 0
    boost = 1.0 + 0.3 * ((before & BOOST) > 0) - 0.3 * ((before & DAMP) > 0)
    caps = (flags & CAPS) > 0
    value = valence * boost * np.where(caps, 1.3, 1.0) * np.where(negated > 0, -0.7, 1.0)
    # What follows the last "but" of a text weighs more than what stands before it.
    last_but = np.full(size, -1, dtype=np.int64)
    but = np.flatnonzero(flags & BUT)
    last_but[text[but]] = but
    after = np.arange(len(text)) > last_but[text]
    has_but = last_but[text] >= 0
    value = value * np.where(has_but, np.where(after, 1.4, 0.6), 1.0)
    signs = np.sign(value)
    loaded = np.flatnonzero(signs)
    summed = total(value)
    highest, lowest = np.zeros(size), np.zeros(size)
    np.maximum.at(highest, text, value)
    np.minimum.at(lowest, text, value)
    first, last = np.zeros(size), np.zeros(size)
    first[text[loaded[::-1]]] = value[loaded[::-1]]
    last[text[loaded]] = value[loaded]
    bangs = np.minimum(total(((flags & BANG) > 0).astype(np.float64)), 3.0)
    out[:, 1] = np.tanh(summed / 2)
    out[:, 2] = np.log1p(total(np.maximum(value, 0)))
    out[:, 3] = np.log1p(total(np.maximum(-value, 0)))
    out[:, 4] = summed / np.sqrt(np.maximum(tokens, 1.0))
    out[:, 5], out[:, 6], out[:, 7], out[:, 8] = highest, lowest, last, first
    out[:, 9] = total(signs) / np.maximum(total(np.abs(signs)), 1.0)
    out[:, 10] = np.minimum(total(((flags & NEG) > 0).astype(np.float64)), 3.0) / 3
    out[:, 11] = bangs / 3
    out[:, 12] = np.minimum(total(((flags & ASK) > 0).astype(np.float64)), 3.0) / 3
    out[:, 13] = total(caps.astype(np.float64)) / np.maximum(tokens, 1.0)
    out[:, 14] = np.log1p(tokens) / 4
    out[:, 15] = total(value * (has_but & after))
    out[:, 16] = total(np.abs(signs)) == 0
    out[:, 17] = total(((flags & MARK) > 0).astype(np.float64)) > 0
    return out
