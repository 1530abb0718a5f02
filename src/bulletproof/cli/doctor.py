"""``bulletproof doctor``: what is installed, configured and reachable, and what to do about the rest."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulletproof._version import __version__
from bulletproof.errors import AIError, classify
from bulletproof.settings import Settings, load_settings

Status = Literal["ok", "note", "problem"]

_EXTRAS = {
    "service": ("fastapi", "uvicorn", "python-multipart", "prometheus-client"),
    "models": ("joblib", "onnxruntime", "pandas", "scikit-learn", "skops"),
    "llm": ("openai",),
    "postgres": ("asyncpg",),
    "dashboard": ("nicegui", "httpx"),
}
_MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "problem": ("problem", "red"),
}
_STORE_SECONDS = 10.0
_LLM_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        subject: What was checked.
        status: ``note`` is worth knowing, ``problem`` needs doing.
        found: What was found.
        advice: What to do.
    """

    subject: str
    status: Status
    found: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check what is installed, configured and reachable; exit 1 when something needs doing.

    bulletproof doctor
    """
    findings = list(examine())
    if as_json:
        typer.echo(orjson.dumps([vars_of(item) for item in findings], option=orjson.OPT_INDENT_2))
    else:
        _show(findings)
    raise typer.Exit(any(item.status == "problem" for item in findings))


def vars_of(finding: Finding) -> dict[str, str]:
    """Return a finding as JSON-ready values."""
    return {
        "subject": finding.subject,
        "status": finding.status,
        "found": finding.found,
        "advice": finding.advice,
    }


def examine() -> Iterator[Finding]:
    """Yield the findings, the cheap ones first."""
    yield Finding("bulletproof", "ok", f"{__version__} on Python {sys.version.split()[0]}")
    yield from _extras()
    try:
        settings = load_settings()
    except AIError as error:
        yield _problem("settings", error)
        return
    yield _data_dir(settings)
    yield asyncio.run(_database(settings))
    yield _local_model()
    yield _registry(settings)
    yield asyncio.run(_llm(settings))
    yield _keys(settings)


def _problem(subject: str, error: BaseException) -> Finding:
    diagnosis = classify(error)
    return Finding(subject, "problem", diagnosis.details, diagnosis.hint)


def _extras() -> Iterator[Finding]:
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if not _installed(name)]
        if missing:
            yield Finding(
                f"extra {extra}",
                "note",
                f"missing: {', '.join(missing)}",
                f"pip install 'bulletproof-ai[{extra}]' if you need it",
            )
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{name} {version(name)}" for name in packages))


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _data_dir(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize if hasattr(os, "statvfs") else None
    except OSError as error:
        return Finding(
            "data folder",
            "problem",
            f"{folder} cannot be written: {error.strerror}",
            "Make it writable, or set BULLETPROOF_DATA_DIR to a folder that is.",
        )
    if free is not None and free < 2**30:
        return Finding("data folder", "note", f"{folder} has {free / 2**20:.0f} MiB free", "Free some disk space.")
    return Finding("data folder", "ok", str(folder))


async def _database(settings: Settings) -> Finding:
    from bulletproof.processor import default_store

    try:
        store = default_store(settings)
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await store.open()
                await store.ping()
        finally:
            await store.aclose()
    except (AIError, TimeoutError) as error:
        return _problem("database", error)
    kind = "SQLite in the data folder" if settings.database_url is None else "BULLETPROOF_DATABASE_URL"
    return Finding("database", "ok", f"{kind}: reachable, tables up to date")


def _local_model() -> Finding:
    from bulletproof.analysis import LocalAnalyzer

    try:
        analyzer = LocalAnalyzer()
        result = analyzer.analyze_batch(["I love it, works perfectly."])[0]
    except AIError as error:
        return _problem("local model", error)
    return Finding("local model", "ok", f"{analyzer.name} loads and answers ({result.sentiment})")


def _registry(settings: Settings) -> Finding:
    from bulletproof.models import ModelRegistry

    registry = ModelRegistry(settings.data_dir / "models", default=settings.default_model)
    try:
        found = registry.models()
        default = registry.manifest()
    except AIError as error:
        return _problem("models", error)
    wrong = [f"{model.name}: {model.problem}" for model in found if model.problem]
    wrong += [
        f"{model.name} {item.version}: {item.problem}" for model in found for item in model.versions if item.problem
    ]
    if wrong:
        return Finding("models", "problem", "; ".join(wrong), "Mend them, or remove them: bulletproof models verify")
    count = sum(len(model.versions) for model in found)
    return Finding("models", "ok", f"{count} versions; {default.name} {default.version} answers POST /predict")


async def _llm(settings: Settings) -> Finding:
    if not settings.llm_configured:
        return Finding(
            "LLM",
            "note",
            "not configured; the local model analyses",
            "Set BULLETPROOF_LLM_BASE_URL and BULLETPROOF_LLM_API_KEY to use one.",
        )
    from bulletproof.llm import check_connection

    try:
        found = await check_connection(settings, timeout=_LLM_SECONDS)
    except AIError as error:
        return _problem("LLM", error)
    return Finding("LLM", "ok", found)


def _keys(settings: Settings) -> Finding:
    from bulletproof.service.keys import read_keys

    try:
        count = len(settings.api_keys) + sum(not key.revoked for key in read_keys(settings.keys_path))
    except AIError as error:
        return _problem("API keys", error)
    if count:
        return Finding("API keys", "ok", f"{count} valid")
    return Finding(
        "API keys",
        "note",
        "none: only this machine may use the service",
        "Make one with 'bulletproof keys create NAME', or set BULLETPROOF_API_KEYS, to let others in.",
    )


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "What", "Found", "What to do"):
        table.add_column(name, overflow="fold")
    for item in findings:
        mark, colour = _MARKS[item.status]
        table.add_row(Text(mark, style=colour), item.subject, Text(item.found), Text(item.advice))
    Console().print(table)
