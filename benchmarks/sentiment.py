"""The local model beside VADER: how often it is right, and how many texts a second one core does.

Always measured: 270 short reviews written for the project and kept out of the training, and speed on texts of 20 words.
With the data folder also the validation tweets of UMSAB, eight languages, which are kept out of the training too.
(The English sets that the model was trained on are measured in the training, by cross-validation.)

    python -m benchmarks sentiment
    python -m benchmarks.sentiment DATA_FOLDER     # with umsab/ in it
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, machine
from bulletproof.analysis import LocalAnalyzer

try:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ImportError:
    SentimentIntensityAnalyzer = None

SENTENCES = Path(__file__).parents[1] / "tests" / "analysis" / "data" / "sentences.tsv"
LANGUAGES = ("english", "arabic", "french", "german", "hindi", "italian", "portuguese", "spanish")
BATCH, SPEED_TEXTS, BAR_SPEED, BAR_LEAD = 512, 5_120, 3_000, 7.0

Judge = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]  # scores, classes 0 to 2


def ours() -> Judge:
    analyzer = LocalAnalyzer()
    names = ["negative", "neutral", "positive"]

    def judge(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        results = analyzer.analyze_batch(texts)
        return np.array([r.score for r in results]), np.array([names.index(r.sentiment) for r in results])

    return judge


def vader() -> Judge | None:
    """VADER with the thresholds that its authors give."""
    if SentimentIntensityAnalyzer is None:
        return None
    analyzer = SentimentIntensityAnalyzer()

    def judge(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        scores = np.array([analyzer.polarity_scores(text)["compound"] for text in texts])
        return scores, np.where(scores >= 0.05, 2, np.where(scores <= -0.05, 0, 1))

    return judge


def sets(folder: Path | None) -> dict[str, tuple[list[str], np.ndarray]]:
    """Texts and labels (0 negative, 1 neutral, 2 positive) of each set."""
    found: dict[str, tuple[list[str], np.ndarray]] = {}
    lines = [line.split("\t") for line in SENTENCES.read_text("utf-8").splitlines()]
    for domain in ("product", "film", "restaurant"):
        chosen = [(sign, text) for kind, sign, text in lines if kind == domain]
        found[f"{domain}s, own"] = [t for _, t in chosen], np.array([2 * (s == "+") for s, _ in chosen])
    for language in LANGUAGES if folder else ():
        labels = (folder / "umsab" / f"{language}_val_labels.txt").read_text().split()
        texts = (folder / "umsab" / f"{language}_val_text.txt").read_text("utf-8").split("\n")[: len(labels)]
        found[f"tweets, {language}"] = texts, np.array(labels, dtype=int)
    return found


def quality(judge: Judge, texts: list[str], truth: np.ndarray) -> dict[str, float]:
    """Accuracy of the score's sign on the polar texts, then three-class figures; all in percent."""
    scores, classes = judge(texts)
    polar = truth != 1
    figures = {
        "two_class": np.mean((scores[polar] > 0) == (truth[polar] == 2)),
        "two_class_strict": np.mean(classes[polar] == truth[polar]),
    }
    if not polar.all():
        hits = [np.sum((truth == c) & (classes == c)) for c in range(3)]
        sizes = [np.sum(truth == c) + np.sum(classes == c) for c in range(3)]
        figures["macro_f1"] = np.mean([2 * hit / max(size, 1) for hit, size in zip(hits, sizes, strict=True)])
    return {name: round(100 * float(value), 1) for name, value in figures.items()}


def speed(judge: Judge) -> dict[str, float]:
    """Texts of 20 words a second of CPU time, and the slowest batch."""
    words = " ".join(line.split("\t")[2] for line in SENTENCES.read_text("utf-8").splitlines()).split()
    rng = np.random.default_rng(7)
    texts = [" ".join(words[at : at + 20]) for at in rng.integers(0, len(words) - 20, SPEED_TEXTS)]
    judge(texts[:BATCH])
    spent = []
    for start in range(0, len(texts), BATCH):
        before = time.thread_time()
        judge(texts[start : start + BATCH])
        spent.append(time.thread_time() - before)
    return {"texts_per_second": round(len(texts) / sum(spent)), "slowest_batch_ms": round(1000 * max(spent), 1)}


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, write the figures; fail when a bar is missed."""
    judges = {"local": ours(), "VADER": vader()}
    present = {name: judge for name, judge in judges.items() if judge is not None}
    rows: list[dict[str, Any]] = []
    print(f"{'set':22}{'texts':>6}  {'analyzer':9}{'two-class':>10}{'strict':>8}{'macro-F1':>10}")
    met = True
    for name, (texts, truth) in sets(Path(arguments[0]) if arguments else None).items():
        found = {
            who: quality(judge, texts, truth) for who, judge in present.items() if who == "local" or _english(name)
        }
        for who, figures in found.items():
            rows.append({"set": name, "texts": len(texts), "analyzer": who, **figures})
            print(
                f"{name:22}{len(texts):>6}  {who:9}{figures['two_class']:>10.1f}{figures['two_class_strict']:>8.1f}"
                f"{figures.get('macro_f1', float('nan')):>10.1f}".replace("nan", "  -")
            )
        if "VADER" in found and "own" in name:
            met &= found["local"]["two_class"] >= found["VADER"]["two_class"] + BAR_LEAD
    speeds = {who: speed(judge) for who, judge in present.items()}
    for who, figures in speeds.items():
        print(
            f"{who}: {figures['texts_per_second']:,} texts of 20 words a second on one core, "
            f"{BATCH} texts at once take at most {figures['slowest_batch_ms']} ms"
        )
    if "VADER" not in present:
        print("pip install vaderSentiment to see VADER beside it")
    met &= speeds["local"]["texts_per_second"] >= BAR_SPEED
    RESULTS.mkdir(exist_ok=True)
    record = {"benchmark": "sentiment", **machine(), "sets": rows, "speed": speeds}
    (RESULTS / "sentiment.json").write_text(json.dumps(record, indent=1) + "\n")
    print("met" if met else "MISSED")
    return not met


def _english(name: str) -> bool:
    return "own" in name or "english" in name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
