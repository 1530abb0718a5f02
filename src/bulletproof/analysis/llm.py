"""The LLM analyzer: several texts in one call, and nothing believed unchecked."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from bulletproof.analysis.analyzer import Analysis, BatchAnalysis, Usage
from bulletproof.analysis.language import LanguageDetector
from bulletproof.analysis.llm_questions import Judgement, answer_schema, correction, question, read_answer
from bulletproof.errors import BadResponseError, classify
from bulletproof.llm import Completion, LLMClient, Message, Protection, Spending
from bulletproof.resilience import Bulkhead

_ABOUT_THE_TEXTS = {"content_filtered", "context_length_exceeded", "invalid_encoding", "invalid_input"}
_UNBOUNDED = 1_000_000

_languages = cache(LanguageDetector)


@dataclass(frozen=True, slots=True)
class Failure:
    """Texts that the LLM gave no usable judgement on, and why."""

    positions: tuple[int, ...]  # where they stand in the batch
    error: Exception
    about_the_texts: bool  # whether it is these texts that it cannot cope with, rather than the service failing


@dataclass(slots=True)
class Attempt:
    """What came of asking the LLM about a batch, and what that took, whether it came to anything or not."""

    results: list[Analysis | None]  # one for each text, None where there is none
    failures: list[Failure] = field(default_factory=list)
    spending: Spending = field(default_factory=Spending)

    @property
    def usage(self) -> Usage:
        """What it took, in the terms of the analyzers."""
        spent = self.spending
        known = spent.prompt_tokens or spent.completion_tokens
        return Usage(spent.prompt_tokens, spent.completion_tokens, spent.cost if known else None)


class LLMAnalyzer:
    """Asks an LLM for sentiment, and for labels of the caller's own if there are any.

    The answer is checked against the schema. What is wrong is sent back once to be mended; what is still wrong is
    asked for again in smaller and smaller batches, so that one text that the model cannot cope with costs only
    itself its result. Languages are told on this machine.

    Args:
        client: Asks the LLM.
        batch_size: Texts in one call, at most.
        batch_chars: Characters of texts in one call, at most; a longer text goes alone.
        concurrency: Calls under way at the same time.

    Raises:
        ValueError: A number is below 1.

    Example:
        >>> LLMAnalyzer(LLMClient("http://localhost:11434/v1", model="llama3.2")).name
        'llm/llama3.2'
    """

    def __init__(
        self, client: LLMClient, *, batch_size: int = 16, batch_chars: int = 24_000, concurrency: int = 4
    ) -> None:
        if batch_size < 1 or batch_chars < 1:
            raise ValueError(f"batch_size={batch_size} and batch_chars={batch_chars} must be at least 1")
        self.client = client
        self.batch_size = batch_size
        self.batch_chars = batch_chars
        self.places = Bulkhead("LLM analyzer", max_concurrent=concurrency, max_queued=_UNBOUNDED)
        self.splits = True  # whether it is worth asking for less when a whole answer is malformed

    @property
    def name(self) -> str:
        """``llm/`` and the model."""
        return f"llm/{self.client.model}"

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        """Analyse a batch, or fail as a whole.

        Args:
            texts: Cleaned texts.
            labels: Labels to sort them into, if any.

        Returns:
            The results in the order of the texts.

        Raises:
            AIError: The LLM failed, or gave no usable judgement on some text.
        """
        attempt = await self.attempt(texts, labels=labels, all_or_nothing=True)
        return BatchAnalysis([result for result in attempt.results if result is not None], usage=attempt.usage)

    async def attempt(
        self,
        texts: Sequence[str],
        *,
        labels: Sequence[str] | None = None,
        policy: Protection | None = None,
        all_or_nothing: bool = False,
        in_turn: Callable[[], bool] = lambda: False,
    ) -> Attempt:
        """Analyse as much of a batch as can be.

        Args:
            texts: Cleaned texts.
            labels: Labels to sort them into, if any.
            policy: Stands around each call to the LLM.
            all_or_nothing: Whether the first failure ends it all and is raised.
            in_turn: Asked before each call whether calls have to be made one after another for now.

        Returns:
            The results there are, and why there are no others.
        """
        found = Attempt([None] * len(texts))
        languages = await asyncio.to_thread(_languages().detect_batch, texts)

        def work(positions: Sequence[int]) -> Awaitable[None]:
            return _Work(self, texts, languages, labels, policy, found, all_or_nothing).batch(positions)

        batches = self._batches(texts)
        while batches and in_turn():
            await work(batches.pop(0))
        await _together(map(work, batches))
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    def _batches(self, texts: Sequence[str]) -> list[list[int]]:
        batches: list[list[int]] = []
        chars = 0
        for position, text in enumerate(texts):
            if not batches or len(batches[-1]) >= self.batch_size or chars + len(text) > self.batch_chars:
                batches.append([])
                chars = 0
            batches[-1].append(position)
            chars += len(text)
        return batches


@dataclass(slots=True)
class _Work:
    """One batch of an attempt under way."""

    analyzer: LLMAnalyzer
    texts: Sequence[str]
    languages: Sequence[str]
    labels: Sequence[str] | None
    policy: Protection | None
    found: Attempt
    all_or_nothing: bool
    calls: int = 0  # that may still be made

    async def batch(self, positions: Sequence[int]) -> None:
        """Get judgements on the texts, and learn whether the model can do it at all."""
        self.calls = 4 * (1 + math.ceil(math.log2(len(positions))))  # enough to find a text or two that spoil it
        malformed = await self.solve(positions)
        if any(self.found.results[position] is not None for position in positions):
            self.analyzer.splits = True
        elif malformed and len(positions) > 1:
            self.analyzer.splits = False

    async def solve(self, positions: Sequence[int]) -> bool:
        """Get judgements on some texts, in smaller batches if need be; tell whether an answer stayed malformed."""
        malformed = False
        try:
            left, error = await self._judge(positions)
            malformed = bool(left)
        except Exception as failure:  # noqa: BLE001 - kept in the attempt, or raised by _fail
            if not _is_about_texts(failure):
                self._fail(positions, failure, about_the_texts=False)
                return False
            left, error = list(positions), failure
        if len(left) < len(positions):
            parts = [left] if left else []
        else:
            half = len(left) // 2
            parts = [left[:half], left[half:]] if half and (self.analyzer.splits or not malformed) else []
            if not parts:
                self._fail(left, error, about_the_texts=True)
        for part in parts:
            if self.calls > 0:
                malformed |= await self.solve(part)
            else:
                self._fail(part, error, about_the_texts=True)
        return malformed

    async def _judge(self, positions: Sequence[int]) -> tuple[list[int], Exception]:
        """Ask once, and once more to mend the answer; return the texts that are left, and why."""
        at = {f"t{position + 1}": position for position in positions}
        messages = question({name: self.texts[position] for name, position in at.items()}, self.labels)
        left, problems = list(at), ["nothing was answered"]
        for _ in range(2):
            if self.calls == 0:
                break
            self.calls -= 1
            completion = await self._ask(messages, left)
            valid, problems = read_answer(completion.text, left, self.labels)
            for name, judgement in valid.items():
                self.found.results[at[name]] = self._result(at[name], judgement)
            left = [name for name in left if name not in valid]
            if not left:
                break
            messages = [*messages[:2], *correction(completion.text, problems, left)]
        said = "; ".join(problems[:3])
        error = BadResponseError(f"{self.analyzer.client.host}: the answer does not fit what was asked for ({said})")
        return [at[name] for name in left], error

    async def _ask(self, messages: Sequence[Message], ids: Sequence[str]) -> Completion:
        analyzer = self.analyzer
        async with analyzer.places:
            completion = await analyzer.client.complete(
                messages, schema=answer_schema(ids, self.labels), schema_name="judgements", policy=self.policy
            )
        self.found.spending += completion.spending
        return completion

    def _result(self, position: int, judgement: Judgement) -> Analysis:
        return Analysis(
            judgement.sentiment,
            judgement.score,
            judgement.confidence,
            self.languages[position],
            self.analyzer.name,
            judgement.label if self.labels else None,
            judgement.label_confidence if self.labels else None,
        )

    def _fail(self, positions: Sequence[int], error: Exception, *, about_the_texts: bool) -> None:
        if self.all_or_nothing:
            raise error
        self.found.failures.append(Failure(tuple(positions), error, about_the_texts))


def _is_about_texts(error: Exception) -> bool:
    found = classify(error)
    # An answer that was cut off is shorter for fewer texts.
    return found.code in _ABOUT_THE_TEXTS or (found.code == "bad_response" and not found.retryable)


async def _together(work: Iterable[Awaitable[None]]) -> None:
    """Await all; the first error ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
