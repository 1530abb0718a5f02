"""The shipped weights: a safe and small file, the very features of the training, and good enough."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bulletproof.analysis import LocalAnalyzer, weights
from bulletproof.analysis.features import DENSE, Lexicon, encode
from bulletproof.analysis.weights import Weights, classify, decide

WEIGHTS = Path(weights.__file__).with_name(weights.FILE)
PROJECT = Path(__file__).parents[2]


def sentences() -> list[tuple[str, bool, str]]:
    """Short reviews written for this test and kept out of the training: domain, whether positive, text."""
    lines = (Path(__file__).parent / "data" / "sentences.tsv").read_text("utf-8").splitlines()
    return [(domain, sign == "+", text) for domain, sign, text in (line.split("\t") for line in lines)]


def test_the_file_is_small_and_holds_plain_arrays_only() -> None:
    assert WEIGHTS.stat().st_size <= 4_000_000
    with zipfile.ZipFile(WEIGHTS) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    with np.load(WEIGHTS, allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays.files)


def test_weights_are_loaded_without_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    load = np.load

    def spy(*args: object, **kwargs: object) -> object:
        asked.append(kwargs.get("allow_pickle"))
        return load(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "load", spy)
    Weights.load()
    assert asked == [False]


def test_texts_are_scored_as_in_training() -> None:
    """The training wrote down what it thinks of some phrases; only rounding to 8 bits may lie between."""
    lines = [line.split("\t") for line in (PROJECT / "training" / "probes.tsv").read_text("utf-8").splitlines()]
    assert len(lines) > 50
    shipped = Weights.load()
    raw = shipped.score(encode([text for _, _, text in lines], shipped.lexicon))
    trained = np.array([[float(polarity), float(opinion)] for polarity, opinion, _ in lines]).T
    assert np.abs(raw - trained).max() < 0.35
    assert np.abs(raw - trained).mean() < 0.05


@pytest.mark.parametrize("domain", ["restaurant", "product", "film"])
def test_short_reviews_are_told_apart(domain: str) -> None:
    chosen = [(positive, text) for kind, positive, text in sentences() if kind == domain]
    assert len(chosen) == 90
    results = LocalAnalyzer().analyze_batch([text for _, text in chosen])
    right = [(result.score > 0) == positive for result, (positive, _) in zip(results, chosen, strict=True)]
    neutral = [result.sentiment == "neutral" for result in results]
    assert np.mean(right) >= 0.80
    assert np.mean(neutral) <= 0.12


def test_confidence_is_worth_something() -> None:
    chosen = sentences()
    results = LocalAnalyzer().analyze_batch([text for _, _, text in chosen])
    right = np.array([(r.score > 0) == positive for r, (_, positive, _) in zip(results, chosen, strict=True)])
    sure = np.array([r.confidence > 0.85 for r in results])
    assert sure.sum() > 50
    assert right[sure].mean() > right[~sure].mean() + 0.1


def test_negation_turns_what_follows_until_a_stop() -> None:
    lexicon = Lexicon.of({"good": 0.6})
    column = DENSE.index("sum")
    plain, negated, stopped, far = encode(
        ["it is good", "it is not good", "not now, it is good", "not that I would say it is good"], lexicon
    ).dense[:, column]
    assert plain > 0
    assert negated < 0
    assert stopped > 0
    assert far > 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("I did n't like it , it 's bad", "I didn't like it , it's bad"),
        ("Good food.<br /><br />Bad wine.", "Good food. Bad wine."),
        ("I don’t like it &amp; you", "I don't like it & you"),
        ("sooooooo good", "soo good"),
        ("see www.example.org/a", "see https://example.org/b"),
        ("\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} ok", "\N{THUMBS UP SIGN} ok"),
    ],
)
def test_other_spellings_have_the_same_features(text: str, same: str) -> None:
    lexicon = Lexicon.of({"good": 0.6, "bad": -0.6})
    one, other = encode([text], lexicon), encode([same], lexicon)
    assert one.gram_hash.tolist() == other.gram_hash.tolist()
    assert one.pair_hash.tolist() == other.pair_hash.tolist()
    assert one.dense.tolist() == other.dense.tolist()


def test_words_of_one_text_do_not_reach_into_the_next() -> None:
    lexicon = Lexicon.of({"good": 0.6})
    alone = encode(["good"], lexicon)
    after = encode(["this is not", "good"], lexicon)
    assert after.dense[1].tolist() == alone.dense[0].tolist()
    assert after.pair_text.tolist() == [0, 0, 0]


def test_probabilities_sum_to_one_and_the_band_moves_only_the_choice() -> None:
    raw = np.array([[0.2, -3.0, 0.0], [0.1, 2.0, -2.0]])
    chances = classify(raw, np.tile(Weights.load().calibration[0], (3, 1)))
    assert np.allclose(chances.sum(axis=1), 1)
    assert decide(chances, 1e9).tolist() == [1, 1, 1]
    assert 1 not in decide(chances, 0.0)


def test_the_row_for_other_languages_is_there() -> None:
    languages = Weights.load().languages
    assert languages[0] == "en"
    assert {"und", weights.OTHER} <= set(languages)
