"""The local analyzer: what it answers, on any text, without a network."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulletproof.analysis import Analysis, LocalAnalyzer
from bulletproof.errors import InputValidationError


@pytest.fixture(scope="module")
def analyzer() -> LocalAnalyzer:
    return LocalAnalyzer()


POSITIVE = [
    "I love it!",
    "Great phone, works perfectly.",
    "The food was delicious and the staff were friendly.",
    "Not bad at all.",
    "Best movie I have seen in years.",
    "I would highly recommend this place.",
    "😍😍😍",
]
NEGATIVE = [
    "I hate it.",
    "The soup was not good at all.",
    "This is not good.",
    "Terrible service, rude staff and cold food.",
    "It broke after two days. Waste of money.",
    "The worst film of the year.",
    "I would not recommend this to anyone.",
    "Doesn't work and customer support never answered.",
]


@pytest.mark.parametrize("text", POSITIVE)
def test_plainly_positive_texts(analyzer: LocalAnalyzer, text: str) -> None:
    (result,) = analyzer.analyze_batch([text])
    assert result.score > 0
    assert result.sentiment != "negative"


@pytest.mark.parametrize("text", NEGATIVE)
def test_plainly_negative_texts(analyzer: LocalAnalyzer, text: str) -> None:
    (result,) = analyzer.analyze_batch([text])
    assert result.score < 0
    assert result.sentiment != "positive"


def check(result: Analysis) -> None:
    assert result.sentiment in {"negative", "neutral", "positive"}
    assert -1 <= result.score <= 1
    assert 0 <= result.confidence <= 1
    assert result.language == "und" or (len(result.language) == 2 and result.language.isalpha())
    assert result.analyzer == "local/1.0"
    assert result.label is None
    assert result.label_confidence is None
    if result.sentiment == "positive":
        assert result.score >= 0
    if result.sentiment == "negative":
        assert result.score <= 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(st.characters(categories=None), max_size=60), max_size=8))
def test_any_text_gets_a_well_formed_answer(texts: list[str]) -> None:
    results = LocalAnalyzer().analyze_batch(texts)
    assert len(results) == len(texts)
    for result in results:
        check(result)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x00",
        "x",
        "\ud800",
        "\udfff broken \ud83d",
        "😀" * 5_000,
        "好" * 20_000,
        "a'" * 10_000,
        "!" * 20_000,
        "مرحبا بالعالم",
        "word " * 4_000,
        "https://example.org/" + "x" * 10_000,
        "e\u0301" * 500,
        ":)(" * 6_000,
        "&#" + "9" * 6_000 + ";",
        "\n\r\t\v\f\u2028",
    ],
)
def test_odd_texts_never_raise(analyzer: LocalAnalyzer, text: str) -> None:
    before, result, after = analyzer.analyze_batch(["I love it!", text, "I hate it."])
    check(result)
    assert (before.sentiment, after.sentiment) == ("positive", "negative")


def test_an_empty_text_is_neutral_without_confidence(analyzer: LocalAnalyzer) -> None:
    (result,) = analyzer.analyze_batch([""])
    assert (result.sentiment, result.score, result.confidence) == ("neutral", 0.0, 0.0)
    assert analyzer.analyze_batch([]) == []


def test_a_text_is_judged_alike_alone_and_in_any_batch(analyzer: LocalAnalyzer) -> None:
    texts = (POSITIVE + NEGATIVE) * 40
    together = analyzer.analyze_batch(texts)
    alone = [analyzer.analyze_batch([text])[0] for text in POSITIVE + NEGATIVE]
    assert together == alone * 40


def test_threads_may_share_an_analyzer(analyzer: LocalAnalyzer) -> None:
    texts = POSITIVE + NEGATIVE
    expected = analyzer.analyze_batch(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(lambda _: analyzer.analyze_batch(texts), range(12)))


def test_languages_are_marked(analyzer: LocalAnalyzer) -> None:
    texts = [
        "The battery lasts the whole day and the screen is bright.",
        "Das Essen war leider kalt und der Kellner unfreundlich.",
        "La comida estaba muy rica y el servicio fue excelente.",
        "Ce film est une vraie perte de temps, je suis très déçu.",
        "このレストランはとても美味しかったです。",
    ]
    assert [r.language for r in analyzer.analyze_batch(texts)] == ["en", "de", "es", "fr", "ja"]


def test_confidence_is_lower_in_a_language_the_model_never_saw(analyzer: LocalAnalyzer) -> None:
    english, finnish = analyzer.analyze_batch(["The food was wonderful, I loved it.", "Ruoka oli ihanaa, pidin siitä."])
    assert finnish.language == "fi"
    assert finnish.confidence < english.confidence


async def test_a_batch_is_analysed_off_the_event_loop(analyzer: LocalAnalyzer) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    batch = await analyzer.analyze(POSITIVE * 500)
    ticking.cancel()
    assert ticks > 1
    assert len(batch.results) == len(POSITIVE) * 500
    assert (batch.degraded, batch.reason) == (False, None)
    await analyzer.aclose()


async def test_labels_of_the_callers_own_are_refused_with_what_to_do(analyzer: LocalAnalyzer) -> None:
    with pytest.raises(InputValidationError) as caught:
        await analyzer.analyze(["hello"], labels=["billing", "praise"])
    assert caught.value.code == "labels_unavailable"
    assert "LLM" in caught.value.hint


def test_it_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the local analyzer opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from bulletproof.analysis import local

    local._shipped.cache_clear()
    assert LocalAnalyzer().analyze_batch(["I love it!"])[0].sentiment == "positive"
