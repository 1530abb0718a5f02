"""The shapes of requests and answers, as the OpenAPI description shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ErrorAnswer(BaseModel):
    """Every error has this form; with ``Accept: application/problem+json`` it comes as RFC 9457 besides."""

    model_config = ConfigDict(extra="allow")

    error: str = Field(examples=["Invalid JSON"])
    error_type: Literal["validation_error", "resource_error", "model_error", "external_service_error"]
    details: str = Field(examples=["Expected ',' after the value (line 3, column 14)"])
    status: Literal["error"] = "error"
    code: str = Field(examples=["invalid_json"])
    severity: Literal["low", "medium", "high", "critical"]
    hint: str
    retryable: bool
    request_id: str
    retry_after: float | None = None
    processing_id: str | None = None


class Records(BaseModel):
    """How many records came and what became of them."""

    received: int
    analyzed: int
    rejected: int


class Result(BaseModel):
    """The result for one record."""

    row: int = Field(description="Number of the record in the file, from 1.")
    text: str = Field(description="The text after cleaning, as it was analysed.")
    sentiment: Literal["negative", "neutral", "positive"]
    score: float = Field(ge=-1, le=1)
    confidence: float = Field(ge=0, le=1)
    language: str = Field(description="ISO 639-1, or und.")
    analyzer: str
    label: str | None = None
    label_confidence: float | None = None


class Rejection(BaseModel):
    """A record that could not be used."""

    row: int
    code: str
    details: str


class ProcessAnswer(BaseModel):
    """The answer for a file that was processed."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    processing_id: str
    filename: str | None
    format: str | None
    encoding: str | None
    compression: str | None = None
    text_field: str | None
    records: Records
    results: list[Result]
    summary: dict[str, Any]
    rejections: list[Rejection] = Field(description="The first 100; all of them are kept with the results.")
    warnings: list[str]
    analyzer: str
    degraded: bool = Field(description="A fallback answered; degraded_reason says why.")
    stored: bool = Field(description="False when the database was down; then all results are in this answer.")
    duration_ms: float
    next: str | None = Field(None, description="Where the results that do not stand here are.")


class Accepted(BaseModel):
    """A file that is processed later."""

    model_config = ConfigDict(extra="allow")

    status: Literal["accepted", "running"] = "accepted"
    processing_id: str
    location: str = Field(description="Where its results will be; until then it says how far it is.")


class ResultsPage(BaseModel):
    """One page of the results of a run."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    processing_id: str
    filename: str | None
    records: Records
    summary: dict[str, Any]
    results: list[Result]
    rejections: list[Rejection]
    next: str | None


class StageReport(BaseModel):
    """One stage of a batch: tries, how they ended, and how many seconds they took."""

    attempts: int
    succeeded: int
    retried: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


class BatchReport(BaseModel):
    """How a batch of URLs stands."""

    model_config = ConfigDict(extra="allow")

    batch_id: str
    status: str = Field(description="queued, running, paused, cancelled, complete, or deleted.")
    total: int = Field(description="Items: each distinct URL once.")
    done: int = Field(description="Items that have their outcome.")
    pending: int
    in_progress: int
    retrying: int
    success: int
    failed: int
    by_stage: dict[str, int] = Field(
        description="Items that are not successful, by the stage they are in or failed at."
    )
    by_code: dict[str, int] = Field(description="Failed items by error code.")
    by_error_type: dict[str, int] = Field({}, description="Failed items by type of error.")
    retrying_by_code: dict[str, int] = Field({}, description="Items that wait for another try, by why.")
    stages: dict[str, StageReport] = Field({}, description="What was measured of each stage.")
    slowest_hosts: list[dict[str, Any]] = Field([], description="Each with host, downloads and mean_seconds.")
    breakers: dict[str, dict[str, Any]] = Field(
        {}, description="Of all workers that were on it lately: those that are not closed, or have failed."
    )
    workers: int = Field(0, description="Processes that were on it lately.")
    idle_seconds: float | None = Field(None, description="Since a process was on it, while it is to be worked on.")
    notice: str | None = Field(None, description="How to go on, when no process seems to be on it.")
    truncated: int = Field(0, description="Texts that were cut at their bound, as measured.")
    items_per_second: float = Field(description="Of late while it is worked on, else since it was made.")
    seconds_left: float | None
    attempts: int | None = Field(None, description="Tries of all items and stages; as measured above 100,000 items.")
    warnings: list[str] = Field([], description="How the list was read, when its encoding had to be guessed.")
    failed_items: list[dict[str, Any]] = Field(
        [], description="The first 20 that failed: url, stage, code, error, hint, attempts."
    )


class BatchList(BaseModel):
    """Batches, the latest first."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    batches: list[dict[str, Any]]


class BatchItems(BaseModel):
    """One page of the items of a batch."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    batch_id: str
    items: list[dict[str, Any]]
    next: str | None


class Deleted(BaseModel):
    """It is gone."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    processing_id: str


class Health(BaseModel):
    """How the service is."""

    model_config = ConfigDict(extra="allow")

    status: Literal["healthy", "degraded", "critical"]
    reasons: list[str] | None = Field(None, description="Why; the worst first. For known callers.")


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive", "ready", "stopping"]


class Metrics(BaseModel):
    """Errors of all processes, and the figures of the service."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    total_errors: int
    by_service: dict[str, int]
    by_severity: dict[str, int]
    by_type: dict[str, int]
    by_code: dict[str, int]
    error_rate: float = Field(description="Errors a minute over the window.")
    failure_ratio: float | None
    trending_errors: list[dict[str, Any]]
    top_errors: list[dict[str, Any]]
    timeline: list[dict[str, Any]] = Field(description="Errors over the window by type, in steps of equal length.")
    health: dict[str, Any] = Field(description="The health that the errors show, and its reasons.")
    breakers: dict[str, dict[str, Any]]


class Breakers(BaseModel):
    """The figures of every breaker by its name."""

    status: Literal["success"] = "success"
    breakers: dict[str, dict[str, Any]]


class Breaker(BaseModel):
    """The figures of one breaker."""

    status: Literal["success"] = "success"
    breaker: dict[str, Any]


class KeptCallState(BaseModel):
    """A call that failed on the way out and is run again."""

    model_config = ConfigDict(extra="allow")

    id: str
    function: str
    state: Literal["waiting", "running", "failed", "expired"]
    code: str = Field(description="Of the last error.")
    attempts: int = Field(description="How often it was run again.")
    due: datetime | None = Field(description="When it is run again at the earliest; null: as soon as possible.")
    digest: str = Field(description="First digits of the SHA-256 of the arguments.")


class Kept(BaseModel):
    """The calls that are kept, and for each function how many there were so far and what became of them."""

    status: Literal["success"] = "success"
    calls: list[KeptCallState]
    functions: dict[str, dict[str, int]]


class KeptChange(BaseModel):
    """What was done with a kept call."""

    status: Literal["success"] = "success"
    kept_id: str
    changed: Literal["retry", "dropped"]


class ErrorSample(BaseModel):
    """One error, with everything secret taken out."""

    timestamp: str
    error_type: str
    service: str
    severity: str
    message: str
    context: dict[str, Any]
    fingerprint: str = Field(description="The same for errors of one kind.")


class Errors(BaseModel):
    """The latest errors."""

    status: Literal["success"] = "success"
    errors: list[ErrorSample]


class OneError(BaseModel):
    """All errors of one kind."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    fingerprint: str
    error_type: str
    service: str
    severity: str
    code: str
    count: int
    first_seen: str
    last_seen: str
    template: str = Field(description="What their messages have in common.")
    message: str
    context: dict[str, Any]
    timeline: list[int] = Field(description="How many there were in each of the last 60 minutes.")
    samples: list[ErrorSample]


class Run(BaseModel):
    """A file that was processed."""

    model_config = ConfigDict(extra="allow")

    processing_id: str
    filename: str | None
    format: str | None
    records: Records
    summary: dict[str, Any]
    degraded: bool
    started_at: str
    completed_at: str
    results: str = Field(description="Where its results are.")


class Runs(BaseModel):
    """The latest runs."""

    status: Literal["success"] = "success"
    runs: list[Run]


class RowPrediction(BaseModel):
    """What a model says of one row."""

    model_config = ConfigDict(extra="allow")

    prediction: int | float = Field(description="Index of the class, or the value of a regression.", examples=[0])
    confidence: float = Field(description="Probability of the class; 0 when the model states none.", examples=[0.98])
    label: str | None = Field(None, description="Name of the class.", examples=["setosa"])


class Predictions(BaseModel):
    """The answer to a list of rows: one prediction for each, in order."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    predictions: list[RowPrediction]
    model_version: str = Field(examples=["v1.0"])
    status: Literal["success"] = "success"
    model: str = Field(examples=["iris"])


class VersionState(BaseModel):
    """How a version is."""

    model_config = ConfigDict(extra="allow")

    state: Literal["loaded", "loading", "closing", "failed", "not loaded"]
    details: str | None = Field(None, description="Why it failed.")


class VersionSummary(BaseModel):
    """A version of a model."""

    model_config = ConfigDict(extra="allow")

    version: str
    bundled: bool = Field(description="It comes with the package.")
    state: VersionState


class ModelSummary(BaseModel):
    """A model and its versions."""

    name: str
    active: str | None = Field(description="The version that answers requests that name none.")
    candidate: dict[str, Any] | None = Field(description="The version that is tried out, if any.")
    problem: str | None
    versions: list[VersionSummary]


class Models(BaseModel):
    """The models there are."""

    status: Literal["success"] = "success"
    default: str = Field(description="The model that answers requests that name none.")
    models: list[ModelSummary]
    trials: list[dict[str, Any]] = Field(description="How versions that are tried out do beside the active ones.")


class ModelAnswer(BaseModel):
    """One model."""

    status: Literal["success"] = "success"
    model: ModelSummary


class ModelVersion(BaseModel):
    """One version of a model: what goes in, what comes out, what it may take, and how it is."""

    model_config = ConfigDict(extra="allow")

    status: Literal["success"] = "success"
    name: str
    version: str
    type: str
    input: dict[str, Any]
    output: dict[str, Any]
    limits: dict[str, Any]
    isolated: bool
    state: VersionState
