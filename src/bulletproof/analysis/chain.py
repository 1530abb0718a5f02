"""The LLM, if there is one, and the local model when it fails."""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

from bulletproof.analysis.analyzer import Analysis, Analyzer, BatchAnalysis
from bulletproof.analysis.classifier import TextClassifier, classified, covering
from bulletproof.analysis.llm import Attempt, Failure, LLMAnalyzer
from bulletproof.analysis.local import LocalAnalyzer
from bulletproof.errors import CircuitOpenError, InputValidationError, classify
from bulletproof.llm import ErrorListener, LLMClient, tell, tell_success
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState, Gate, Policy, RetryPolicy
from bulletproof.settings import Settings, get_settings

SERVICE = "llm"
_PATIENCE = 20.0  # seconds that a Retry-After may ask for when there is another way to an answer


class AnalyzerChain:
    """Analyses with the LLM behind timeout, retry and breaker, and with the local model when that fails.

    What the LLM failed on is analysed by ``fallback``, and the result says so: ``degraded`` and ``reason``. Nothing
    has to be done when the LLM is back: after the breaker's open time calls go to it again.

    Labels are given by the LLM, else by a classifier that knows them all. Where neither can, a text that the LLM alone
    could not cope with goes without a label, but when the LLM fails altogether so does the analysis: labels were what
    was asked for.

    Args:
        primary: The LLM, if there is one.
        fallback: Analyses without it.
        breaker: Stops calling the LLM while it fails; by default one named ``llm``.
        retry: Tries calls to the LLM again.
        timeout: Seconds for each try; by default the client's own limit holds.
        allow_fallback: Whether ``fallback`` may answer when the LLM fails. If not, its error is raised.
        classifiers: Sort texts into labels without an LLM; asked anew each time.
        monitor: Told of each failure of the LLM.
        clock: Monotonic seconds.

    Example:
        >>> import asyncio
        >>> batch = asyncio.run(AnalyzerChain(None, LocalAnalyzer()).analyze(["I love it!"]))
        >>> batch.results[0].sentiment, batch.degraded
        ('positive', False)
    """

    def __init__(
        self,
        primary: LLMAnalyzer | None,
        fallback: Analyzer,
        *,
        breaker: AIServiceCircuitBreaker | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        allow_fallback: bool = True,
        classifiers: Iterable[TextClassifier] = (),
        monitor: ErrorListener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.primary = primary
        self.fallback = fallback
        self.breaker = breaker if breaker is not None else AIServiceCircuitBreaker(SERVICE, clock=clock)
        self.allow_fallback = allow_fallback
        self._classifiers = classifiers
        self._monitor = monitor
        self._clock = clock
        retry = retry if retry is not None else RetryPolicy(max_retry_after=_PATIENCE, clock=clock)
        gate = retry.gate or Gate(SERVICE, max_wait=_PATIENCE, clock=clock, sleep=retry.sleep)
        self.policy = Policy(
            retry=retry, gate=gate, breaker=self.breaker, timeout=timeout, name="LLM analysis", clock=clock
        )

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, *, fallback: Analyzer | None = None, **options: Any
    ) -> Self:
        """Return the chain that the settings describe.

        Args:
            settings: By default those of the process.
            fallback: By default the local model in this process.
            **options: Arguments of the class that win over the settings.

        Raises:
            ConfigurationError: The LLM is configured wrongly.
        """
        settings = settings if settings is not None else get_settings()
        primary = None
        if settings.llm_configured:
            primary = LLMAnalyzer(
                LLMClient.from_settings(settings),
                batch_size=settings.llm_batch_size,
                concurrency=settings.llm_concurrency,
            )
        options.setdefault("allow_fallback", settings.llm_fallback)
        circuit = CircuitConfig(timeout=settings.llm_open_seconds)
        options.setdefault("breaker", AIServiceCircuitBreaker(SERVICE, circuit))
        clock = options.setdefault("clock", time.monotonic)
        retry = RetryPolicy(max_attempts=settings.llm_max_attempts, max_retry_after=_PATIENCE, clock=clock)
        options.setdefault("retry", retry)
        return cls(primary, fallback if fallback is not None else LocalAnalyzer(), **options)

    @property
    def name(self) -> str:
        """Name and version of who answers when all is well."""
        return self.fallback.name if self.primary is None else self.primary.name

    def with_fallback(self, allowed: bool) -> Self:
        """Return the same chain, with its breaker and connections, that may or may not fall back."""
        other = copy(self)
        other.allow_fallback = allowed
        return other

    async def analyze(
        self, texts: Sequence[str], *, labels: Sequence[str] | None = None, allow_fallback: bool | None = None
    ) -> BatchAnalysis:
        """Analyse a batch.

        Args:
            texts: Cleaned texts.
            labels: Labels to sort them into, if any.
            allow_fallback: Whether ``fallback`` may answer when the LLM fails; as the chain says when None.

        Returns:
            The results in the order of the texts.

        Raises:
            InputValidationError: With the code ``labels_unavailable``: nothing here can give these labels.
            AIError: The LLM failed and nothing may or can stand in for it.
        """
        allowed = self.allow_fallback if allow_fallback is None else allow_fallback
        if self.primary is None:
            return BatchAnalysis(await self._without_llm(texts, labels))
        if not texts:
            return BatchAnalysis([])
        started = self._clock()
        try:
            attempt = await self.primary.attempt(
                texts, labels=labels, policy=self.policy, all_or_nothing=not allowed, in_turn=self._is_recovering
            )
        except Exception as error:
            tell(self._monitor, error, SERVICE, texts=len(texts))
            raise
        if attempt.failures:
            return await self._completed(self.primary, attempt, texts, labels)
        tell_success(self._monitor, SERVICE, self._clock() - started)
        return BatchAnalysis([result for result in attempt.results if result is not None], usage=attempt.usage)

    async def aclose(self) -> None:
        """Release connections and workers."""
        if self.primary is not None:
            await self.primary.aclose()
        await self.fallback.aclose()

    def _is_recovering(self) -> bool:
        # Probes are admitted one at a time; calls made at the same time would be refused.
        return self.breaker.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)

    async def _completed(
        self, primary: LLMAnalyzer, attempt: Attempt, texts: Sequence[str], labels: Sequence[str] | None
    ) -> BatchAnalysis:
        """Fill in what the LLM failed on."""
        for error, count in _distinct(attempt.failures):
            tell(self._monitor, error, SERVICE, texts=count)
        worst = min(attempt.failures, key=lambda failure: failure.about_the_texts)
        missing = [position for failure in attempt.failures for position in failure.positions]
        if labels and covering(self._classifiers, labels) is None:
            if not worst.about_the_texts or len(missing) == len(texts):
                raise worst.error
            labels = None
        results = list(attempt.results)
        for position, result in zip(
            missing, await self._without_llm([texts[position] for position in missing], labels), strict=True
        ):
            results[position] = result
        found = classify(worst.error)
        verb = "cannot cope with" if worst.about_the_texts else "failed on"
        reason = (
            f"{primary.name} {verb} {len(missing):,} of {len(texts):,} texts, which {self.fallback.name} "
            f"analysed instead ({found.code}: {found.details})"
        )
        return BatchAnalysis([one for one in results if one is not None], True, reason, attempt.usage, found.code)

    async def _without_llm(self, texts: Sequence[str], labels: Sequence[str] | None) -> list[Analysis]:
        if not labels:
            return (await self.fallback.analyze(texts)).results
        classifier = covering(self._classifiers, labels)
        if classifier is None:
            raise InputValidationError(
                "labels were asked for, and there is neither an LLM nor a text classifier that knows them all",
                code="labels_unavailable",
            )
        results = (await self.fallback.analyze(texts)).results
        return [
            replace(result, analyzer=f"{result.analyzer}+{classifier.name}", label=label, label_confidence=chance)
            for result, (label, chance) in zip(results, await classified(classifier, texts, labels), strict=True)
        ]


def _distinct(failures: Sequence[Failure]) -> list[tuple[Exception, int]]:
    """Return each error once, with the number of texts; all refusals of the open circuit are one."""
    kinds: dict[object, tuple[Exception, int]] = {}
    for failure in failures:
        kind = CircuitOpenError if isinstance(failure.error, CircuitOpenError) else id(failure.error)
        error, count = kinds.get(kind, (failure.error, 0))
        kinds[kind] = (error, count + len(failure.positions))
    return list(kinds.values())
