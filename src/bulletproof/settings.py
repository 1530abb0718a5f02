"""Everything that can be set, read from the environment with the prefix ``BULLETPROOF_``."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bulletproof.errors import ConfigurationError

MIB = 2**20


class Settings(BaseSettings):
    """Settings of the service, the command line and the library; all have a default.

    Example:
        >>> Settings(max_upload_bytes=1024).max_upload_bytes
        1024
    """

    model_config = SettingsConfigDict(env_prefix="BULLETPROOF_", extra="ignore", populate_by_name=True)

    data_dir: Path = Field(Path(".bulletproof"), description="Folder of the database, models and other state.")
    database_url: SecretStr | None = Field(
        None, description="Database of the results; SQLite in the data folder when not set."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys that may use the service, or their digests as sha256:HEX, separated by commas. Without any "
        "key, only this machine may.",
    )
    keys_file: Path | None = Field(
        None,
        description="File of the keys made by `bulletproof keys create`; keys.json in the data folder when not set.",
    )
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names by which the service may be addressed, such as `ai.example.com` or `*.example.com`, "
        "separated by commas; requests for other hosts get 400. Any when not set.",
    )

    # Not read from OPENAI_API_KEY: texts must not leave the machine because of a variable meant for something else.
    llm_base_url: str | None = Field(
        None, description="Address of an OpenAI-compatible server, such as http://localhost:11434/v1."
    )
    llm_api_key: SecretStr | None = Field(None, description="Key for that server; not needed by most local ones.")
    llm_model: str = Field("gpt-4o-mini", description="Model to ask.")
    llm_timeout: float = Field(30.0, gt=0, description="Seconds one call to the LLM may take.")
    llm_batch_size: int = Field(16, ge=1, le=256, description="Texts sent to the LLM in one call.")
    llm_concurrency: int = Field(4, ge=1, le=256, description="Calls to the LLM under way at the same time.")
    llm_max_attempts: int = Field(3, ge=1, le=10, description="Attempts for one call to the LLM.")
    llm_open_seconds: float = Field(
        30.0, gt=0, description="Seconds the LLM is left alone after it has failed too often."
    )
    llm_fallback: bool = Field(True, description="Whether the local model answers when the LLM fails.")

    analysis_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Worker processes for the local model; by default 1 in the service and on the command line when "
        "the machine has a second core, else 0: threads.",
    )

    default_model: str = Field("iris", description="Model that answers POST /predict when the request names none.")
    model_memory_bytes: int = Field(
        2048 * MIB,
        ge=1,
        description="Memory of the loaded models together, in bytes; beyond it the least recently used are let go.",
    )
    remote_model_key: SecretStr | None = Field(
        None, description="API key sent to the servers behind which `remote` models are."
    )

    max_upload_bytes: int = Field(25 * MIB, ge=1, description="Largest upload over HTTP, in bytes.")
    max_file_bytes: int = Field(8192 * MIB, ge=1, description="Largest file on the command line, in bytes.")
    max_decompressed_bytes: int = Field(
        250 * MIB, ge=1, description="Largest size of a compressed upload once unpacked, in bytes."
    )
    max_records: int = Field(2_000_000, ge=1, description="Most records of an upload.")
    max_training_bytes: int = Field(256 * MIB, ge=1, description="Largest training data file that is read, in bytes.")
    max_text_chars: int = Field(20_000, ge=1, description="Longest text that is analysed, in characters.")
    max_rejected_share: float = Field(
        0.5, gt=0, le=1, description="Share of bad rows above which the whole file is refused."
    )
    inline_results: int = Field(
        1000, ge=0, description="Results in the answer of POST /process; the rest is at GET /results."
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="Requests for work that one key, or one address without a key, may send in a minute."
    )
    bytes_per_day: int | None = Field(None, ge=1, description="Bytes that one caller may send in a day.")
    records_per_day: int | None = Field(
        None, ge=1, description="Records, rows of predictions and URLs that one caller may have analysed in a day."
    )
    llm_tokens_per_day: int | None = Field(
        None, ge=1, description="Tokens of the LLM that one caller may use in a day."
    )
    llm_cost_per_day: float | None = Field(
        None, gt=0, description="US dollars that the LLM may cost for one caller in a day."
    )
    retention_days: float | None = Field(None, gt=0, description="Days that results are kept; for ever when not set.")
    max_concurrent_uploads: int = Field(8, ge=1, description="Uploads processed at the same time by one worker.")
    max_queued_uploads: int = Field(64, ge=0, description="Uploads that may wait; more are refused with 503.")
    min_free_memory_bytes: int = Field(
        128 * MIB, ge=0, description="Memory that has to be free for an upload to be taken, in bytes."
    )
    min_free_disk_bytes: int = Field(
        64 * MIB, ge=0, description="Disk of the data folder that has to be free for an upload to be taken, in bytes."
    )
    max_connections: int = Field(
        1000, ge=1, description="Connections that one worker of `bulletproof serve` takes; more get 503."
    )
    drain_seconds: int = Field(
        30, ge=1, description="Seconds that requests under way are given when `bulletproof serve` is told to stop."
    )
    upload_timeout: float = Field(300.0, gt=0, description="Seconds one upload may take, reading and analysing.")

    fetch_allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts whose pages may be fetched though they are private, on any port and without robots.txt: "
        "`host`, `host:port`, `*.domain` or a network such as `10.0.0.0/8`, separated by commas.",
    )
    fetch_allow_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode] = Field(
        (80, 443), description="Ports that pages of every other host may be fetched from, separated by commas."
    )
    fetch_user_agent: str | None = Field(
        None, description="Name given to sites, also looked for in robots.txt; bulletproof-ai/VERSION when not set."
    )
    fetch_respect_robots: bool = Field(True, description="Whether to fetch only what a site's robots.txt allows.")
    fetch_max_bytes: int = Field(10 * MIB, ge=1, description="Largest page, in bytes as sent; twice that unpacked.")
    fetch_timeout: float = Field(60.0, gt=0, description="Seconds one page may take, redirects included.")

    batch_concurrency: int = Field(
        16,
        ge=0,
        le=1000,
        description="URLs of batches that one process works on at the same time; 0 leaves them to "
        "`bulletproof worker`.",
    )
    batch_chunk_items: int = Field(
        100, ge=1, le=10_000, description="URLs of a batch that are handed to one process together."
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("BULLETPROOF_PORT", "PORT"),
        description="Port to listen on.",
    )
    dashboard_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of the dashboard when it is a process of its own; /dashboard leads there.",
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="json, console, or auto by terminal.")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least severe records to log."
    )
    chaos: str | None = Field(
        None, description="Plan of faults to put into the running service, as JSON; see docs/chaos.md."
    )
    chaos_allow: bool = Field(False, description="Whether `BULLETPROOF_CHAOS` may be set; for rehearsals alone.")
    otel: bool = Field(
        False, description="Whether to send OpenTelemetry traces and metrics; the OTEL_* variables say where to."
    )

    @field_validator("api_keys", "trusted_hosts", "fetch_allow_hosts", "fetch_allow_ports", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator(
        "database_url", "llm_base_url", "llm_api_key", "fetch_user_agent", "remote_model_key", "chaos", mode="before"
    )
    @classmethod
    def _empty_means_unset(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @property
    def keys_path(self) -> Path:
        """Where the keys are kept."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def llm_configured(self) -> bool:
        """Whether there is an LLM to ask."""
        return self.llm_base_url is not None or self.llm_api_key is not None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Args:
        **overrides: Values that win over the environment.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A value is not allowed; names the variable and says what is expected.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(f"{_variable(item['loc'])}: {item['msg']}" for item in error.errors(include_input=False))
        raise ConfigurationError(f"wrong setting: {problems}") from error


def describe_settings() -> list[tuple[str, str, str]]:
    """Return variable, default and description of every setting, in order."""
    return [
        (_names(name, field)[0], _default(field.get_default(call_default_factory=True)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _names(name: str, field: FieldInfo) -> list[str]:
    if isinstance(field.validation_alias, AliasChoices):
        return [str(choice) for choice in field.validation_alias.choices]
    return [f"BULLETPROOF_{name.upper()}"]


def _default(value: Any) -> str:
    return "" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "?"
    return name if name.isupper() else f"BULLETPROOF_{name.upper()}"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return load_settings()
