"""The shapes of requests and answers, as the OpenAPI description shows them."""

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


class Health(BaseModel):
    """How the service is."""

    model_config = ConfigDict(extra="allow")

    status: Literal["healthy", "degraded", "critical"]


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive", "ready", "stopping"]


class Metrics(BaseModel):
    """Figures of this process."""

    model_config = ConfigDict(extra="allow")
