"""What the built-in stages work with: made when first needed, closed at the end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bulletproof.analysis import Analysis, Analyzer, AnalyzerChain, ModelFolder
from bulletproof.fetch import Fetcher, Page, Validators
from bulletproof.monitor import AIErrorMonitor
from bulletproof.pipeline.batching import Batcher
from bulletproof.pipeline.extraction import Extract, Extractor
from bulletproof.pipeline.rows import Rows
from bulletproof.settings import Settings, get_settings
from bulletproof.store import BatchStore, ResultStore

if TYPE_CHECKING:
    from bulletproof.pipeline.handing import Content


class Parts:
    """Fetcher, extractor, analyzer and store. What was given stays open; what was made here is closed.

    Args:
        settings: By default those of the environment.
        monitor: Told of each failure of the LLM.
        fetcher: Downloads; by default one with the options of ``fetching``.
        analyzer: Analyses; by default the chain of the settings.
        store: Keeps the results; by default the database of the settings.
        fetching: Options that win over the settings.
        batch: Texts and results handled together at most.
    """

    def __init__(
        self,
        *,
        settings: Settings | None,
        monitor: AIErrorMonitor,
        fetcher: Fetcher | None,
        analyzer: Analyzer | None,
        store: BatchStore | ResultStore | None,
        fetching: Mapping[str, Any],
        batch: int,
    ) -> None:
        self._settings = settings
        self._monitor = monitor
        self._fetching = fetching
        self._batch = batch
        self._given_fetcher, self._given_analyzer = fetcher, analyzer
        self._fetcher, self._analyzer = fetcher, analyzer
        self._given_store = BatchStore(store.access) if isinstance(store, ResultStore) else store
        self._store = self._given_store
        self._rows: Rows | None = None
        self._extractor: Extractor | None = None
        self._texts: Batcher[str, tuple[Analysis, str | None]] | None = None

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self._settings if self._settings is not None else get_settings()

    @property
    def analyzer(self) -> Analyzer:
        """The analyzer.

        Raises:
            ConfigurationError: The LLM is configured wrongly.
        """
        if self._analyzer is None:
            own = ModelFolder(self.settings.data_dir / "models")
            self._analyzer = AnalyzerChain.from_settings(self.settings, classifiers=own, monitor=self._monitor)
        return self._analyzer

    @property
    def store(self) -> BatchStore:
        """Where results are kept.

        Raises:
            ConfigurationError: The address of the database makes no sense, or its driver is not installed.
        """
        if self._store is None:
            url = self.settings.database_url
            results = ResultStore(url.get_secret_value() if url else None, data_dir=self.settings.data_dir)
            self._store = BatchStore(results.access)
        return self._store

    @property
    def rows(self) -> Rows:
        """The rows in the store."""
        if self._rows is None:
            self._rows = Rows(self.store)
        return self._rows

    @property
    def is_local(self) -> bool:
        """Whether texts are analysed on this machine, so that there is no service to be careful with."""
        return self._given_analyzer is None and not self.settings.llm_configured

    def breakers(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the figures of the breakers inside the parts, by name."""
        found = [getattr(self._analyzer, "breaker", None), self._store.access.breaker if self._store else None]
        return [(breaker.service_name, breaker.get_metrics()) for breaker in found if breaker is not None]

    async def get(self, url: str, previous: Mapping[str, Any] | None) -> Page:
        """Download a page, or learn that it is still the one that an earlier result is about."""
        if self._fetcher is None:
            self._fetcher = Fetcher.from_settings(self.settings, **self._fetching)
        known = previous or {}
        validators = Validators(known.get("etag"), known.get("last_modified"))
        return await self._fetcher.get(url, validators=validators if any(validators) else None)

    async def extract(self, content: "str | Content", url: str) -> Extract:
        """Read a page."""
        if self._extractor is None:
            self._extractor = Extractor()
        page: Page | None = getattr(content, "page", None)
        if page is None:
            return await self._extractor.extract(content, media_type="", url=url)
        return await self._extractor.extract(
            page.body, media_type=page.media_type, charset=page.charset, url=page.final_url
        )

    async def analyze(self, text: str) -> tuple[Analysis, str | None]:
        """Analyse a text among others; with the code of what kept the analyzer asked from answering, if anything."""
        if self._texts is None:
            self._texts = Batcher(self._analyze, size=self._batch)
        return await self._texts.submit(text[: self.settings.max_text_chars])

    async def _analyze(self, texts: list[str]) -> list[tuple[Analysis, str | None]]:
        found = await self.analyzer.analyze(texts)
        degraded = found.code if found.degraded else None
        return [(analysis, degraded) for analysis in found.results]

    async def aclose(self) -> None:
        """Close what was made here; used again, it is made anew."""
        texts, self._texts = self._texts, None
        rows, self._rows = self._rows, None
        store, self._store = self._store, self._given_store
        extractor, self._extractor = self._extractor, None
        fetcher, self._fetcher = self._fetcher, self._given_fetcher
        analyzer, self._analyzer = self._analyzer, self._given_analyzer
        for batching in (texts, rows):
            if batching is not None:
                await batching.aclose()
        if store is not None and store is not self._given_store:
            await store.access.aclose()
        if extractor is not None:
            await extractor.aclose()
        if fetcher is not None and fetcher is not self._given_fetcher:
            await fetcher.aclose()
        if analyzer is not None and analyzer is not self._given_analyzer:
            await analyzer.aclose()
