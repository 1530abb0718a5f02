"""Train the local sentiment model and write its weights into the package.

    python training/train_sentiment.py DATA_FOLDER [--out FILE] [--figures FILE]

``DATA_FOLDER`` holds ``hutto/`` and ``umsab/`` (see docs/model-card.md). The run is deterministic, takes a few minutes
on one core and prints the figures of the model card: each from a model that never saw the texts it is measured on.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import numpy.typing as npt
from learning import Features, calibrate, features, fold, logistic, pack, sigmoid
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from bulletproof.analysis import weights as shipped
from bulletproof.analysis.features import Floats, Lexicon
from bulletproof.analysis.language import UNKNOWN, LanguageDetector
from bulletproof.analysis.weights import OTHER, classify

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

FOLDS = 5
SEED = 20_240_229
BITS = 21  # 2^21 slots of three bytes, most of them empty
RIDGE = 1e-5
STEEP = 3.0  # the chance of a positive text of valence v is wanted to be sigmoid(STEEP v)
PHRASE_WEIGHT, FOREIGN_WEIGHT, NEUTRAL_WEIGHT = 2.0, 0.3, 0.5
CALIBRATED = ("en", "ar", "fr", "de", "it", "pt", "es")  # the Hindi tweets are in Latin script: no language id sees it


class Trainer:
    """All texts as features, and the fits on parts of them."""

    def __init__(self, rows: Sequence[corpus.Row]) -> None:
        self.rows = rows
        self.domain = np.array([row.domain for row in rows])
        self.language = np.array([row.language for row in rows])
        self.valence = np.array([row.valence for row in rows])
        self.label = np.array([row.label for row in rows])
        self.valences = corpus.lexicon()
        self.words, self.vectors = corpus.vectors()
        self.x = features([row.text for row in rows], Lexicon.of(self.valences), self.words, self.vectors)
        size = np.abs(self.valence)
        self.positive = sigmoid(STEEP * self.valence)
        self.opinion = np.clip((size - 0.1) / 0.25, 0, 1)
        self.weight = np.where(size < 0.1, NEUTRAL_WEIGHT, 1.0)
        self.weight[self.domain == "phrases"] = PHRASE_WEIGHT
        self.weight[self.language != "en"] *= FOREIGN_WEIGHT

    def fit(self, of: Bools) -> tuple[Features, Floats, Floats]:
        """Features that occur twice among the given rows, and both outputs' coefficients (hashed, dense)."""
        seen = np.bincount(self.x.sparse[of].indices, minlength=self.x.sparse.shape[1])
        x = self.x.only(np.flatnonzero(seen >= 2))
        train = Features(x.sparse[of], x.hashes, x.factor, x.dense[of])
        polarity = logistic(train, self.positive[of], self.weight[of], RIDGE)
        equal = np.where(self.domain[of] == "phrases", 0.3, 1.0)
        opinion = logistic(train, self.opinion[of], equal * np.where(self.language[of] == "en", 1, 0.5), 2 * RIDGE)
        return x, np.stack([polarity[0], opinion[0]]), np.stack([polarity[1], opinion[1]])

    def held_out(self, test: Bools) -> Floats:
        """Raw outputs for the given rows, of a model that was fitted on all the others."""
        x, by_hash, by_dense = self.fit(~test)
        return np.stack([x.sparse[test] @ h + x.dense[test] @ d for h, d in zip(by_hash, by_dense, strict=True)])

    def cross_validated(self) -> Floats:
        """Raw outputs for all rows but the phrases, by groups."""
        groups = np.array([row.group for row in self.rows])
        names, of = np.unique(groups, return_inverse=True)
        part = np.random.default_rng(SEED).integers(0, FOLDS, len(names))[of]
        raw = np.zeros((2, len(self.rows)))
        for number in range(FOLDS):
            test = (part == number) & (self.domain != "phrases")
            raw[:, test] = self.held_out(test)
            say(f"cross-validation {number + 1}/{FOLDS}")
        return raw


def say(what: str, start: float = time.monotonic()) -> None:
    print(f"[{time.monotonic() - start:5.0f} s] {what}", flush=True)


def macro_f1(truth: Ints, found: Ints) -> float:
    scores = []
    for label in range(3):
        hits = np.sum((truth == label) & (found == label))
        scores.append(2 * hits / max(np.sum(truth == label) + np.sum(found == label), 1))
    return float(np.mean(scores))


def calibration_error(chances: Floats, truth: Ints, found: Ints) -> float:
    """Expected calibration error over ten bins of confidence."""
    confidence = chances[np.arange(len(found)), found]
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(np.mean((found == truth)[bins == b]) - np.mean(confidence[bins == b])) * np.mean(bins == b)
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


def tune_band(trainer: Trainer, raw: Floats, coefficients: Floats) -> float:
    """How much the neutral class is favoured.

    A clear opinion called neutral is the worse error of the two, so the least neutral band is taken whose macro-F1,
    averaged over product sentences and English tweets, is within two points of the best.
    """
    chances = classify(raw, np.tile(coefficients, (raw.shape[1], 1)))
    bands = np.arange(0.5, 1.51, 0.05).tolist()
    sets = [trainer.domain == "amazon", trainer.domain == "umsab-en"]
    scores = [
        np.mean([macro_f1(trainer.label[of], shipped.decide(chances[of], band)) for of in sets]) for band in bands
    ]
    return float(next(band for band, score in zip(bands, scores, strict=True) if score >= max(scores) - 0.02))


def calibrations(trainer: Trainer, raw: Floats) -> dict[str, Floats]:
    """Coefficients for each language; the last of each is the neutral band."""
    real = trainer.domain != "phrases"
    english = real & (trainer.language == "en")
    weight = np.zeros(len(real))
    for domain, share in {"umsab-en": 1.0, "tweets": 0.5, "amazon": 1.0, "movie": 0.5, "nyt": 0.25}.items():
        part = trainer.domain == domain
        weight[part] = share / part.sum()
    base = calibrate(raw[:, english], trainer.label[english], weight[english])
    band = tune_band(trainer, raw, base)
    say(f"neutral band {band:.2f}")
    found = {"en": np.array([*base, band])}

    def add(code: str, of: Bools, outputs: Floats) -> None:
        fitted = calibrate(outputs, trainer.label[of], np.ones(of.sum()), toward=base)
        found[code] = np.array([*fitted, 1.0])

    for code in CALIBRATED[1:]:
        add(code, trainer.language == code, raw[:, trainer.language == code])
    detected = np.array(LanguageDetector().detect_batch([row.text for row in trainer.rows]))
    unsure = real & (detected == UNKNOWN)
    add(UNKNOWN, unsure, raw[:, unsure])
    # What to think of a language that was never trained on: leave each out in turn.
    others = np.zeros_like(raw)
    for code in CALIBRATED[1:]:
        of = trainer.language == code
        others[:, of] = trainer.held_out(of)
        say(f"left out: {code}")
    of = np.isin(trainer.language, CALIBRATED[1:])
    add(OTHER, of, others[:, of])
    for code in CALIBRATED[1:]:
        part = trainer.language == code
        right = (
            shipped.decide(classify(others[:, part], np.tile(found[OTHER], (part.sum(), 1))), 1.0)
            == trainer.label[part]
        )
        say(f"accuracy on {code} without training on it {100 * right.mean():.1f} %")
    return found


def figures(trainer: Trainer, raw: Floats, found: dict[str, Floats]) -> list[dict[str, Any]]:
    """Accuracy on each set, in its own cross-validation and by a model without its domain, VADER beside."""
    vader = SentimentIntensityAnalyzer()
    rows = []
    sign: Callable[[Floats, Bools], float] = lambda s, of: float(np.mean((s[of] > 0) == (trainer.valence[of] > 0)))  # noqa: E731
    for domain in ("amazon", "movie", "tweets", "nyt", *(f"umsab-{code}" for code in corpus.LANGUAGES.values())):
        part = trainer.domain == domain
        code = str(trainer.language[part][0])
        coefficients = found.get(code, found[UNKNOWN])
        chances = classify(raw[:, part], np.tile(coefficients, (part.sum(), 1)))
        answers, truth = shipped.decide(chances, coefficients[-1]), trainer.label[part]
        row: dict[str, Any] = {
            "set": domain,
            "texts": int(part.sum()),
            "macro_f1": macro_f1(truth, answers),
            "accuracy": float(np.mean(truth == answers)),
            "calibration_error": calibration_error(chances, truth, answers),
        }
        clear = part & (np.abs(trainer.valence) >= 1 / 3)
        score = np.zeros(len(part))
        score[part] = chances[:, 2] - chances[:, 0]
        row |= {"clear_texts": int(clear.sum()), "two_class": sign(score, clear)}
        row["two_class_strict"] = float(np.mean(answers[clear[part]] == trainer.label[clear]))
        if code == "en":
            outputs = np.zeros(len(part))
            outputs[part] = trainer.held_out(part)[0]
            of_vader = np.zeros(len(part))
            of_vader[part] = [vader.polarity_scores(r.text)["compound"] for r in trainer.rows if r.domain == domain]
            classes = np.where(of_vader >= 0.05, 2, np.where(of_vader <= -0.05, 0, 1))
            row |= {"two_class_other_domains": sign(outputs, clear), "vader_two_class": sign(of_vader, clear)}
            row["vader_two_class_strict"] = float(np.mean(classes[clear] == trainer.label[clear]))
            row["vader_macro_f1"] = macro_f1(truth, classes[part])
        rows.append(row)
        say(" ".join(f"{k}={v if isinstance(v, (int, str)) else round(100 * v, 1)}" for k, v in row.items()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the local sentiment model.")
    parser.add_argument("data", type=Path, help="folder with hutto/ and umsab/")
    parser.add_argument("--out", type=Path, default=Path(shipped.__file__).with_name(shipped.FILE))
    parser.add_argument("--figures", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    trainer = Trainer([*corpus.read(options.data), *corpus.phrases()])
    say(f"{len(trainer.rows)} texts, {trainer.x.sparse.shape[1]} features")
    raw = trainer.cross_validated()
    found = calibrations(trainer, raw)
    table = figures(trainer, raw, found)
    if options.figures:
        options.figures.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    x, by_hash, by_dense = trainer.fit(np.ones(len(trainer.rows), dtype=bool))
    folded = [fold(x, h, d, trainer.words, trainer.vectors) for h, d in zip(by_hash, by_dense, strict=True)]
    arrays = pack(folded[0][0], np.stack([weights for _, weights, _ in folded]), BITS)
    lexicon = Lexicon.of(trainer.valences)
    np.savez_compressed(
        options.out,
        **arrays,
        dense=np.stack([dense for _, _, dense in folded]).astype(np.float32),
        lexicon_keys=lexicon.keys,
        lexicon_valences=lexicon.valences.astype(np.float16),
        languages=np.array(list(found)),
        calibration=np.stack(list(found.values())).astype(np.float32),
    )
    # What the training believes of some phrases, before packing: a test holds the analyzer to it.
    probes = np.flatnonzero(trainer.domain == "phrases")[::25]
    outputs = [x.sparse[probes] @ h + x.dense[probes] @ d for h, d in zip(by_hash, by_dense, strict=True)]
    lines = [
        f"{polarity:.3f}\t{opinion:.3f}\t{trainer.rows[at].text}\n"
        for at, polarity, opinion in zip(probes, *outputs, strict=True)
    ]
    (corpus.HERE / "probes.tsv").write_text("".join(lines), "utf-8")
    used = int(np.count_nonzero(arrays["table"].any(axis=0)))
    say(f"{options.out.name}: {options.out.stat().st_size / 1e6:.2f} MB, {used} features")


if __name__ == "__main__":
    main()
