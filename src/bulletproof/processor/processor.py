"""The way of one file: validate, clean, analyse, store, answer."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from bulletproof.analysis import Analyzer
from bulletproof.errors import AIError, Diagnosis, InputValidationError, NotFoundError, StoreError, classify
from bulletproof.ingest import Cleaner, IngestLimits, open_upload
from bulletproof.monitor import AIErrorMonitor, default_monitor
from bulletproof.processor.answer import error_answer, success_answer
from bulletproof.processor.defaults import default_analyzer, default_limits, default_store
from bulletproof.processor.run import AnalysisRun
from bulletproof.processor.stages import FileReport, Stages
from bulletproof.processor.upload import CleanedUpload, ParsedUpload, TextList, open_source
from bulletproof.resilience import deadline
from bulletproof.settings import Settings, get_settings
from bulletproof.store import ResultStore

logger = logging.getLogger("bulletproof.processor")


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What a caller may ask for with a file.

    Args:
        text_field: Field or column that holds the text; found by itself when None.
        labels: Labels to sort each record into.
        allow_fallback: False forbids that the local model answers when the LLM fails; by setting when None.
        owner: Who may read the results.
        timeout: Seconds for the whole file; unlimited when None.
        on_progress: Called after each batch with the number of records done and of bytes read.
        on_run: Called with the complete run, in a thread, for those who take the results from there: then the answer
            carries none.
        processing_id: The id, when it was given out before.
    """

    text_field: str | None = None
    labels: Sequence[str] | None = None
    allow_fallback: bool | None = None
    owner: str | None = None
    timeout: float | None = None
    on_progress: Callable[[int, int], None] | None = None
    on_run: Callable[[AnalysisRun], None] | None = None
    processing_id: str | None = None


@dataclass(slots=True)
class _Call:
    """What one call of ``process_file`` knows besides what its stages hand on."""

    options: ProcessOptions = field(default_factory=ProcessOptions)
    processing_id: str = ""
    stage: str = "validate"
    started: float = 0.0
    position: Callable[[], int] = lambda: 0
    close: Callable[[], None] = lambda: None
    run: AnalysisRun | None = None
    stages: Stages = field(default_factory=Stages)
    done: bool = False


_call: ContextVar[_Call] = ContextVar("bulletproof_call")


class AIDataProcessor:
    """Takes a file through validation, cleaning, AI analysis and storage, and always answers.

    The stage methods can be overridden; each gets what the one before returned.

    Args:
        settings: By default those of the environment.
        analyzer: By default the chain of the LLM (if one is configured) and the local model.
        store: By default the database of the settings.
        monitor: Told of every failure; by default the one of this process.
        limits: Bounds on files and texts; by default those of the settings.
        clock: Monotonic seconds.
        on_file: Called with what each file took, when it is done or broken off.

    Example:
        >>> import asyncio, tempfile
        >>> from bulletproof.settings import Settings
        >>> async def main(folder):
        ...     async with AIDataProcessor(settings=Settings(data_dir=folder)) as processor:
        ...         return await processor.process_file(b'["I love it", "It broke after a day. Awful!"]')
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answer = asyncio.run(main(folder))
        >>> answer["status"], [result["sentiment"] for result in answer["results"]]
        ('success', ['positive', 'negative'])
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        analyzer: Analyzer | None = None,
        store: ResultStore | None = None,
        monitor: AIErrorMonitor | None = None,
        limits: IngestLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_file: Callable[[FileReport], None] | None = None,
    ) -> None:
        self.on_file = on_file
        self.settings = settings if settings is not None else get_settings()
        self.monitor = monitor if monitor is not None else default_monitor()
        self.analyzer = analyzer if analyzer is not None else default_analyzer(self.settings, self.monitor)
        self.store = store if store is not None else default_store(self.settings)
        self.limits = limits if limits is not None else default_limits(self.settings)
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release connections and workers."""
        await self.analyzer.aclose()
        await self.store.aclose()

    async def process_file(self, file: Any, options: ProcessOptions | None = None) -> dict[str, Any]:
        """Process one file from its first byte to the answer.

        Args:
            file: An upload (``fastapi.UploadFile`` or alike), a path, or bytes.
            options: What the caller asks for.

        Returns:
            The answer: ``status`` is ``success``, with results and summary, or ``error``, with type, code, details
            and hint. Never raises; only a cancellation goes through.
        """
        options = options if options is not None else ProcessOptions()
        call = _Call(options, started=self._clock(), stages=Stages(self._clock))
        _call.set(call)
        code = "cancelled"
        try:
            call.processing_id = processing_id = call.options.processing_id or self._generate_processing_id()
            async with deadline(call.options.timeout):
                with call.stages.measure("validate"):
                    data = await self._validate_and_parse_file(file)
                call.stage = "clean"
                with call.stages.measure("clean"):
                    cleaned_data = await self._clean_data(data)
                call.stage = "analyze"
                analysis_results = await self._run_ai_analysis(cleaned_data)
                call.run = AnalysisRun.of(analysis_results, self.analyzer)
                call.run.stages = call.stages
                call.stage = "store"
                await self._store(processing_id, analysis_results)
                call.stage = "answer"
                answer = self._format_success_response(processing_id, analysis_results)
                if not isinstance(answer, dict):
                    raise TypeError(f"_format_success_response returned {type(answer).__name__}; it must return a dict")
            if call.options.on_run is not None:
                await asyncio.to_thread(call.options.on_run, call.run)
            self.monitor.record_success("processor")
            self._note_fallback(call)
            code = "success"
        except Exception as error:  # noqa: BLE001 -- the one place where a failure becomes an answer
            code = self._report(error, call).code
            answer = self._failed(error, call)
        finally:
            if call.run is not None:
                await call.run.aclose()
            call.close()
            call.done = True
            self._tell(call, code)
        answer.setdefault("duration_ms", self._elapsed_ms(call))
        return answer

    def _generate_processing_id(self) -> str:
        """Return a fresh id: unguessable, safe in a URL."""
        return uuid4().hex

    async def _validate_and_parse_file(self, file: Any) -> Any:
        """Tell what the file is and prepare to read it; refuses what cannot be read."""
        call = _current()
        source = await open_source(file, self.limits)
        call.close = source.close
        call.position = source.stream.tell
        parsed = await asyncio.to_thread(
            open_upload,
            source.stream,
            source.filename,
            source.content_type,
            text_field=call.options.text_field,
            limits=self.limits,
        )
        return ParsedUpload(parsed)

    async def _clean_data(self, data: Any) -> Any:
        """Normalise the texts; what cannot be used becomes a rejection with its row."""
        if isinstance(data, ParsedUpload):
            return CleanedUpload(data.parsed, Cleaner(self.limits))
        return TextList(_items(data))

    async def _run_ai_analysis(self, data: Any) -> Any:
        """Prepare the analysis; its batches are made as the next stage takes them, so memory stays bounded."""
        options = _current().options
        records = data if isinstance(data, CleanedUpload | TextList) else TextList(_items(data))
        analyzer = self.analyzer
        if options.allow_fallback is not None and hasattr(analyzer, "with_fallback"):
            analyzer = analyzer.with_fallback(options.allow_fallback)
        return AnalysisRun(records, analyzer, labels=options.labels, max_rejected_share=self.limits.max_rejected_share)

    async def _store_results(self, processing_id: str, results: Any) -> None:
        """Store batch by batch under a run that becomes visible as a whole at the end.

        Raises:
            StoreError: The store stayed down; the analysis was finished all the same.
        """
        call, run = _current(), self._run_of(results)
        problem = await self._try(self._begin(processing_id, run))
        complete = False
        try:
            async with aclosing(run.batches()) as batches:
                async for rows, rejections in batches:
                    if problem is None:
                        problem = await self._try(self.store.add_chunk(processing_id, rows, rejections))
                    self._progress(call, run)
            if problem is None:
                problem = await self._try(self._complete(processing_id, run, call))
            complete = problem is None
        finally:
            if not complete:
                await self._abandon(processing_id)
        if problem is not None:
            raise problem

    def _format_success_response(self, processing_id: str, results: Any) -> dict[str, Any]:
        """Return the answer for a file that went through."""
        elsewhere = _current().options.on_run is not None
        inline = None if elsewhere else self.settings.inline_results
        return success_answer(processing_id, self._run_of(results), inline=inline)

    def _format_error_response(self, processing_id: str, error: Exception) -> dict[str, Any]:
        """Classify the error and return the answer for it."""
        return error_answer(classify(error), processing_id=processing_id)

    def _failed(self, error: Exception, call: _Call) -> dict[str, Any]:
        try:
            return self._format_error_response(call.processing_id, error)
        except Exception as worse:  # noqa: BLE001 -- an overridden method; there has to be an answer
            self._report(worse, call)
            return error_answer(classify(error), processing_id=call.processing_id)

    def _progress(self, call: _Call, run: AnalysisRun) -> None:
        if call.options.on_progress is None:
            return
        try:
            call.options.on_progress(run.records["received"], _position(call))
        except Exception:
            logger.exception("a hook failed; the file goes on")

    async def _store(self, processing_id: str, results: Any) -> None:
        """Run the store stage; results that cannot be stored are still answered."""
        call, run = _current(), self._run_of(results)
        try:
            await self._store_results(processing_id, results)
            await run.drain()
            run.stored = True
        except Exception as error:
            if run.failure is not None:
                # The stages are pulled through here: it was the file or the analysis that failed.
                call.stage = "analyze"
                raise
            await run.drain()
            run.store_problem = self._report(error, call)

    async def _begin(self, processing_id: str, run: AnalysisRun) -> None:
        parsed = run.parsed
        await self.store.begin_run(
            processing_id,
            filename=parsed.filename if parsed else None,
            format=parsed.format if parsed else None,
            owner=_current().options.owner,
            text_field=parsed.text_field if parsed else None,
        )

    async def _complete(self, processing_id: str, run: AnalysisRun, call: _Call) -> None:
        await self.store.complete_run(
            processing_id,
            records=run.records,
            summary=run.tally.summary(),
            analyzer=run.analyzer_name,
            degraded=run.degraded,
            reason=run.reason,
            warnings=run.warnings,
            duration_ms=self._elapsed_ms(call),
        )

    async def _abandon(self, processing_id: str) -> None:
        # Shielded and outside the deadline: a caller that goes away or is too late leaves no half a run behind.
        work = self._try(self.store.abandon_run(processing_id))
        problem = await asyncio.shield(asyncio.get_running_loop().create_task(work, context=Context()))
        if problem is not None:
            logger.debug("a broken-off run is left to the sweep", extra={"processing_id": processing_id})

    async def _try(self, work: Any) -> AIError | None:
        try:
            with _current().stages.measure("store"):
                await work
        # Not found: the run was swept, as when the clock jumps, or another file stands in the place of the database.
        except (StoreError, NotFoundError) as error:
            return error
        return None

    def _run_of(self, results: Any) -> AnalysisRun:
        run = _current().run
        return run if run is not None else AnalysisRun.of(results, self.analyzer)

    def _elapsed_ms(self, call: _Call) -> float:
        return round((self._clock() - call.started) * 1000, 1)

    def _note_fallback(self, call: _Call) -> None:
        """Log, once for a file, that it was answered although the analyzer failed."""
        if call.run is not None and call.run.degraded:
            logger.warning(
                "file analysed by the fallback, at least in part: %s",
                call.run.code,
                extra={"processing_id": call.processing_id, "stage": "analyze", "code": call.run.code},
            )

    def _tell(self, call: _Call, code: str) -> None:
        if self.on_file is None:
            return
        try:
            self.on_file(call.stages.report(call.processing_id, code))
        except Exception:
            logger.exception("a hook failed; the file is answered all the same")

    def _report(self, error: Exception, call: _Call) -> Diagnosis:
        """Tell the monitor and the log, once; no file content goes into either."""
        diagnosis = classify(error)
        details = diagnosis.details if isinstance(error, AIError) else diagnosis.exception_chain[0]
        if isinstance(error, InputValidationError):  # which may quote the file to whoever sent it
            details = f"{diagnosis.title}{_place(error)}"
        self.monitor.record_error(
            str(diagnosis.error_type),
            "store" if isinstance(error, StoreError) else "processor",
            str(diagnosis.severity),
            details,
            code=diagnosis.code,
            stage=call.stage,
            processing_id=call.processing_id,
        )
        unexpected = diagnosis.code == "internal_error"
        logger.log(
            logging.ERROR if unexpected else logging.WARNING,
            "file failed: %s",
            diagnosis.code,
            exc_info=error if unexpected else None,
            extra={
                "processing_id": call.processing_id,
                "stage": call.stage,
                "code": diagnosis.code,
                "error_type": str(diagnosis.error_type),
                "exception_chain": diagnosis.exception_chain,
            },
        )
        return diagnosis


def log_context() -> dict[str, str]:
    """Return the processing id and the stage of the file that this task works on; empty when it works on none."""
    call = _call.get(None)
    return {"processing_id": call.processing_id, "stage": call.stage} if call is not None and not call.done else {}


def _current() -> _Call:
    try:
        return _call.get()
    except LookupError:
        # A stage method that is called by itself, as in a test of a subclass.
        call = _Call()
        _call.set(call)
        return call


def _position(call: _Call) -> int:
    try:
        return call.position()
    except (OSError, ValueError):
        # Closed already, or a stream that has no positions.
        return 0


def _place(error: AIError) -> str:
    place = ", ".join(f"{name} {value}" for name, value in error.where.items() if isinstance(value, int))
    return f" ({place})" if place else ""


def _items(data: Any) -> Iterable[Any]:
    if isinstance(data, str):
        return [data]
    if isinstance(data, Iterable):
        return data
    raise TypeError(f"expected records from the stage before, got {type(data).__name__}")
