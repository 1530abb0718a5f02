"""One run of the processor: batches of results on their way to the store, and what is known of the whole."""

import asyncio
import tempfile
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, get_args

import orjson

from bulletproof.analysis import Analysis, Analyzer, Sentiment, Usage
from bulletproof.errors import Diagnosis, InvalidFileError
from bulletproof.ingest import Chunk, Record
from bulletproof.processor.flow import ahead
from bulletproof.processor.stages import Stages
from bulletproof.processor.upload import CleanedUpload, TextList
from bulletproof.store import RejectionRow, ResultRow

_SPOOL_MEMORY = 4 * 2**20
_REMEMBERED = 20_000
SHOWN_REJECTIONS = 100


class ResultSpool:
    """Keeps all results of a run outside memory until they are written somewhere for good.

    A store that goes down half-way must not take the results with it.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY)  # noqa: SIM115 -- closed by close()
        self.count = 0

    def append(self, rows: Sequence[ResultRow]) -> None:
        self._file.writelines(orjson.dumps(row_as_dict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        self.count += len(rows)

    def lines(self) -> Iterator[bytes]:
        """Yield the results as JSON lines, in order."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip(b"\n")

    def rows(self, limit: int | None) -> list[dict[str, Any]]:
        """Return the first results, at most ``limit`` of them; all when None."""
        return [orjson.loads(line) for line in islice(self.lines(), limit)]

    def close(self) -> None:
        """Throw the results away."""
        self._file.close()


def row_as_dict(row: ResultRow) -> dict[str, Any]:
    """Return a result as it stands in an answer."""
    values: dict[str, Any] = {
        "row": row.row,
        "text": row.text,
        "sentiment": row.sentiment,
        "score": row.score,
        "confidence": row.confidence,
        "language": row.language,
        "analyzer": row.analyzer,
    }
    if row.label is not None:
        values["label"] = row.label
        values["label_confidence"] = row.label_confidence
    return values


@dataclass(slots=True)
class Tally:
    """Running totals over the results of a run."""

    analyzed: int = 0
    rejected: int = 0
    score: float = 0.0
    confidence: float = 0.0
    sentiments: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    analyzers: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def add(self, rows: Sequence[ResultRow], rejections: Sequence[RejectionRow]) -> None:
        self.analyzed += len(rows)
        self.rejected += len(rejections)
        self.reasons.update(rejection.code for rejection in rejections)
        for row in rows:
            self.score += row.score
            self.confidence += row.confidence
            self.sentiments[row.sentiment] += 1
            self.languages[row.language] += 1
            self.analyzers[row.analyzer] += 1
            if row.label is not None:
                self.labels[row.label] += 1

    def spend(self, usage: Usage) -> None:
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.cost is not None:
            self.cost = (self.cost or 0.0) + usage.cost

    def summary(self) -> dict[str, Any]:
        """Return the totals as they stand in an answer."""
        count = self.analyzed
        values: dict[str, Any] = {
            "sentiment": {name: self.sentiments[name] for name in ("negative", "neutral", "positive")},
            "average_score": round(self.score / count, 4) if count else None,
            "average_confidence": round(self.confidence / count, 4) if count else None,
            "languages": dict(self.languages.most_common(20)),
            "duplicates": self.duplicates,
            "rejected_by_code": dict(self.reasons),
        }
        if self.labels:
            values["labels"] = dict(self.labels.most_common())
        if self.prompt_tokens or self.completion_tokens:
            values["usage"] = {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "cost": self.cost,
            }
        return values


class AnalysisRun:
    """The analysis of one file, made batch by batch as somebody takes the batches.

    Args:
        data: The cleaned records.
        analyzer: Analyses them.
        labels: The caller's labels, if any.
        max_rejected_share: Share of rejected records, in (0, 1], above which the whole file is refused.
    """

    def __init__(
        self,
        data: CleanedUpload | TextList,
        analyzer: Analyzer,
        *,
        labels: Sequence[str] | None = None,
        max_rejected_share: float = 1.0,
    ) -> None:
        self.parsed = data.parsed
        self.analyzer = analyzer
        self.spool = ResultSpool()
        self.tally = Tally()
        self.rejections: list[RejectionRow] = []
        self.degraded = False
        self.reason: str | None = None
        self.code: str | None = None
        self.stored = False
        self.store_problem: Diagnosis | None = None
        self.extra: dict[str, Any] = {}
        self.failure: Exception | None = None
        self.stages = Stages()
        self._data = data
        self._labels = labels
        self._max_rejected_share = max_rejected_share
        self._known: OrderedDict[bytes, Analysis] = OrderedDict()
        self._tasks: set[asyncio.Task[list[ResultRow]]] = set()
        self._coming: dict[bytes, asyncio.Future[dict[bytes, Analysis]]] = {}
        self._source: AsyncGenerator[tuple[list[ResultRow], list[RejectionRow]]] | None = None
        self._ready: list[ResultRow] = []

    @classmethod
    def of(cls, results: Any, analyzer: Analyzer) -> "AnalysisRun":
        """Wrap what a stage of somebody's own returned: a run, or a mapping that may hold ``results``.

        Raises:
            TypeError: It is neither.
        """
        if isinstance(results, cls):
            return results
        if not isinstance(results, Mapping):
            raise TypeError(f"_run_ai_analysis returned {type(results).__name__}; it must return a mapping")
        rows = [_row_of(item, number) for number, item in enumerate(results.get("results") or (), start=1)]
        run = cls(TextList(()), analyzer)
        run.spool.append(rows)
        run.tally.add(rows, ())
        run._ready = rows
        run.extra = {key: value for key, value in results.items() if key != "results"}
        return run

    @property
    def records(self) -> dict[str, int]:
        """How many records came, were analysed and were rejected."""
        analyzed, rejected = self.tally.analyzed, self.tally.rejected
        return {"received": analyzed + rejected, "analyzed": analyzed, "rejected": rejected}

    @property
    def analyzer_name(self) -> str:
        """Who made most of the results."""
        used = self.tally.analyzers.most_common(1)
        return used[0][0] if used else self.analyzer.name

    @property
    def warnings(self) -> list[str]:
        """What the reader of the file found odd."""
        return list(self.parsed.warnings) if self.parsed is not None else []

    async def batches(self) -> AsyncGenerator[tuple[list[ResultRow], list[RejectionRow]]]:
        """Yield the results and rejections that nobody has taken yet, batch by batch.

        Whoever stops half-way leaves the rest for the next.

        Raises:
            AIError: The file is broken further down, or the analysis failed.
        """
        if self._source is None:
            self._source = ahead(self._batches())
        while (batch := await anext(self._source, None)) is not None:
            yield batch

    async def drain(self) -> None:
        """Run what is left of the analysis."""
        async with aclosing(self.batches()) as batches:
            async for _ in batches:
                pass

    async def aclose(self) -> None:
        """Release what the run holds."""
        if self._source is not None:
            await self._source.aclose()
        self.spool.close()

    async def _batches(self) -> AsyncGenerator[tuple[list[ResultRow], list[RejectionRow]]]:
        if self._ready:
            yield self._ready, []
        try:
            async with aclosing(ahead(self._under_way())) as batches:
                async for chunk, analysis in batches:
                    rows = await analysis
                    rejections = [RejectionRow(*rejection) for rejection in chunk.rejections]
                    self.spool.append(rows)
                    self.tally.add(rows, rejections)
                    self.rejections += rejections[: SHOWN_REJECTIONS - len(self.rejections)]
                    yield rows, rejections
            self._check_share()
        except Exception as error:
            self.failure = error
            raise
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _under_way(self) -> AsyncGenerator[tuple[Chunk, asyncio.Task[list[ResultRow]]]]:
        """Yield chunks whose analysis has begun: the next ones are under way while one is waited for."""
        async with aclosing(self.stages.timed("clean", self._data.chunks())) as chunks:
            async for chunk in chunks:
                task = asyncio.create_task(self._analyze(chunk))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
                yield chunk, task

    def _ended(self, task: asyncio.Task[list[ResultRow]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # after a failure nobody may come to take that of the next one

    def _check_share(self) -> None:
        received, rejected = self.records["received"], self.tally.rejected
        if rejected and rejected > self._max_rejected_share * received:
            shown = "; ".join(f"row {item.row}: {item.details}" for item in self.rejections[:3])
            raise InvalidFileError(
                f"{rejected:,} of {received:,} records cannot be used ({shown})", code="too_many_bad_rows"
            )

    async def _analyze(self, chunk: Chunk) -> list[ResultRow]:
        keys = [_key(record) for record in chunk.records]
        found = {key: self._known[key] for key in keys if key in self._known}
        # A text that a chunk before this one is waiting for need not be asked for twice.
        coming = {key: self._coming[key] for key in keys if key in self._coming}
        fresh = {
            key: record.text
            for key, record in zip(keys, chunk.records, strict=True)
            if key not in found and key not in coming
        }
        self.tally.duplicates += len(keys) - len(fresh)
        if fresh:
            found.update(await self._ask(fresh))
        for key, others in coming.items():
            found[key] = (await others)[key]
        return [_result(record, found[key]) for key, record in zip(keys, chunk.records, strict=True)]

    async def _ask(self, fresh: Mapping[bytes, str]) -> dict[bytes, Analysis]:
        answer: asyncio.Future[dict[bytes, Analysis]] = asyncio.get_running_loop().create_future()
        self._coming.update(dict.fromkeys(fresh, answer))
        try:
            with self.stages.measure("analyze"):
                batch = await self.analyzer.analyze(list(fresh.values()), labels=self._labels)
            found = dict(zip(fresh, batch.results, strict=True))
        except BaseException as error:
            answer.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            answer.exception()  # whoever waits for it hears of it; nobody has to
            raise
        finally:
            for key in fresh:
                del self._coming[key]
        answer.set_result(found)
        self.tally.spend(batch.usage)
        if batch.degraded:
            self.degraded = True
            self.reason = self.reason or batch.reason
            self.code = self.code or batch.code
        self.stages.model_calls.update({result.analyzer for result in batch.results})
        self._known.update(found)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found


def _key(record: Record) -> bytes:
    return blake2b(record.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _result(record: Record, analysis: Analysis) -> ResultRow:
    return ResultRow(
        record.row,
        record.text,
        analysis.sentiment,
        round(analysis.score, 4),
        round(analysis.confidence, 4),
        analysis.language,
        analysis.analyzer,
        analysis.label,
        analysis.label_confidence,
    )


def _row_of(item: Any, number: int) -> ResultRow:
    if isinstance(item, ResultRow):
        return item
    if not isinstance(item, Mapping):
        raise TypeError(f"result {number} is a {type(item).__name__}; it must be a mapping")
    sentiment = item.get("sentiment", "neutral")
    if sentiment not in get_args(Sentiment):
        raise TypeError(f"result {number} has the sentiment {sentiment!r}; it must be one of {get_args(Sentiment)}")
    try:
        return ResultRow(
            int(item.get("row", number)),
            str(item.get("text", "")),
            sentiment,
            float(item.get("score", 0.0)),
            float(item.get("confidence", 0.0)),
            str(item.get("language", "und")),
            str(item.get("analyzer", "custom")),
            item.get("label"),
            item.get("label_confidence"),
        )
    except (TypeError, ValueError) as error:
        raise TypeError(f"row, score and confidence of result {number} must be numbers") from error
