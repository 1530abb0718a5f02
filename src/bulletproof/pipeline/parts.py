"""What the built-in stages work with: made when first needed, closed at the end."""

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bulletproof.analysis import Analysis, Analyzer, AnalyzerChain, LocalAnalyzer, ModelFolder, PooledAnalyzer
from bulletproof.fetch import Fetcher, Page, Validators
from bulletproof.monitor import AIErrorMonitor
from bulletproof.pipeline.batching import Batcher
from bulletproof.pipeline.extraction import Extract, Extractor
from bulletproof.pipeline.rows import Rows
from bulletproof.resilience import AdaptiveLimit, AIServiceCircuitBreaker
from bulletproof.settings import Settings, get_settings
from bulletproof.store import BatchStore, ResultStore

if TYPE_CHECKING:
    from bulletproof.pipeline.handing import Content

T = TypeVar("T")
_LINGER = 0.03  # seconds
_MANY = 20


class Parts:
    """Fetcher, extractor, analyzer and store. What was given stays open; what was made here is closed.

    ``fetching`` are options of the fetcher that win over the settings; ``careful`` tells whether calls to an AI service
    are limited here, or ``borne`` is used around them.
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
        concurrency: int,
        careful: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._monitor = monitor
        self._fetching = fetching
        self._concurrency = concurrency
        # The more there are on their way, the less it matters that one waits for others to share a call with.
        self._ready = concurrency if concurrency >= _MANY else max(1, concurrency // 4)
        self._careful = careful
        self.limit = AdaptiveLimit(
            "AI analysis", initial=concurrency, max_limit=concurrency, max_queued=concurrency, clock=clock
        )
        self._threads: ThreadPoolExecutor | None = None
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
        """The analyzer; a ``ConfigurationError`` when the LLM is configured wrongly."""
        if self._analyzer is None:
            own = ModelFolder(self.settings.data_dir / "models")
            self._analyzer = AnalyzerChain.from_settings(self.settings, classifiers=own, monitor=self._monitor)
        return self._analyzer

    @property
    def store(self) -> BatchStore:
        """Where results are kept; a ``ConfigurationError`` when the database's address or driver is wrong."""
        if self._store is None:
            url = self.settings.database_url
            results = ResultStore(url.get_secret_value() if url else None, data_dir=self.settings.data_dir)
            self._store = BatchStore(results.access)
        return self._store

    @property
    def rows(self) -> Rows:
        """The rows in the store."""
        if self._rows is None:
            self._rows = Rows(self.store, ready=self._ready, linger=_LINGER)
        return self._rows

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Threads for plain functions."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="bulletproof-pipeline")
        return self._threads

    async def borne(self, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Make a call as soon as the AI service bears one more."""
        entry = await self.limit.enter_async()
        failure: BaseException | None = None
        try:
            return await call(*args)
        except BaseException as error:
            failure = error
            raise
        finally:
            self.limit.leave(entry, failure)

    def breakers(self) -> list[AIServiceCircuitBreaker]:
        """Return the breakers inside the parts."""
        found = [getattr(self._analyzer, "breaker", None), self._store.access.breaker if self._store else None]
        return [breaker for breaker in found if breaker is not None]

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
            self._extractor = Extractor.beside(self.analyzer)
        page: Page | None = getattr(content, "page", None)
        if page is None:
            return await self._extractor.extract(content, media_type="", url=url)
        return await self._extractor.extract(
            page.body, media_type=page.media_type, charset=page.charset, url=page.final_url
        )

    async def analyze(self, text: str) -> tuple[Analysis, str | None]:
        """Analyse a text among others; with the code of what kept the analyzer asked from answering, if anything."""
        if self._texts is None:
            local = _is_local(self.analyzer)
            work = self._analyze if local or not self._careful() else partial(self.borne, self._analyze)
            # A service answers several batches at a time; what is worked out here would only wait for itself.
            parallel = 1 if local else self._concurrency
            self._texts = Batcher(
                work, size=2 * self._concurrency, ready=self._ready, linger=_LINGER, parallel=parallel
            )
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
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        access = store.access if store is not None and store is not self._given_store else None
        for part in (texts, rows, access, extractor, fetcher, analyzer):
            if part is not None and part is not self._given_fetcher and part is not self._given_analyzer:
                await part.aclose()


def _is_local(analyzer: Analyzer) -> bool:
    """Tell whether texts are analysed on this machine."""
    inner = getattr(analyzer, "primary", analyzer)
    return inner is None or isinstance(inner, LocalAnalyzer | PooledAnalyzer)
