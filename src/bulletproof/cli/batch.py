"""``bulletproof batch``: lists of URLs, processed whatever interrupts it."""

import asyncio
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bulletproof.cli.outputs import destination
from bulletproof.errors import InputValidationError
from bulletproof.errors.installing import not_installed
from bulletproof.settings import load_settings

if TYPE_CHECKING:
    from bulletproof.jobs import BatchJobs

T = TypeVar("T")

batch = typer.Typer(help="Process lists of URLs: download, extract, analyse, store.", no_args_is_help=True)

_OWNER = "local"  # as the service calls this machine where there are no keys
_DRAIN_SECONDS = 5.0
_INTERRUPTED = 130
_SHOWN, _SHOWN_HOSTS = 8, 3
_LINE_SECONDS = 10.0
_STYLES = {"success": "green", "failed": "red", "retrying": "yellow", "in_progress": "cyan", "pending": "dim"}


class _Form(StrEnum):
    jsonl = "jsonl"
    csv = "csv"


def _known(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".jsonl", ".csv"):
        raise typer.BadParameter(f"results are written as .jsonl or .csv, not as {path.name!r}")
    return path


BatchId = Annotated[str, typer.Argument(help="Id of the batch, as 'batch run' and 'batch list' show it.")]
Out = Annotated[
    Path | None, typer.Option(help="Write the results here when it is done (.jsonl or .csv).", callback=_known)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@batch.command("run")
def run(
    urls: Annotated[Path, typer.Argument(help="A file with one URL a line; # begins a comment.", dir_okay=False)],
    key: Annotated[
        str | None, typer.Option(help="Name of this run; another one processes the same list anew. [default: the file]")
    ] = None,
    priority: Annotated[int, typer.Option(min=1, max=10, help="1 goes before all others.")] = 5,
    max_retries: Annotated[
        str, typer.Option(help="Of each item, from 0 to 100; or by stage: download=5,analyze=2.")
    ] = "3",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Process the URLs in a file; interrupted or killed, the same command goes on where it was.

      bulletproof batch run urls.txt

      bulletproof batch run urls.txt --out results.csv

      bulletproof batch run urls.txt --key tuesday     # the same list once more

    Exit code 0: all succeeded, 1: some failed, 130: interrupted.
    """
    from bulletproof.ingest.notes import Notes
    from bulletproof.ingest.url_lists import listed_urls
    from bulletproof.jobs.options import retries_from

    retries = retries_from(max_retries)

    async def lines() -> AsyncIterator[str]:
        found, notes = False, Notes()
        pieces = listed_urls(urls, notes)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            for url in piece:
                found = True
                yield url
        for warning in notes.texts:
            typer.echo(f"{urls}: {warning}", err=True)
        if not found:  # raised here, nobody ever sees the batch
            raise InputValidationError(
                f"there is no URL in {urls}", code="empty_file", hint="Write one URL a line; # begins a comment."
            )

    async def work(jobs: "BatchJobs") -> dict[str, Any]:
        try:
            made = await jobs.submit(
                lines(),
                owner=_OWNER,
                key=key or _key_of(urls),
                options={"priority": priority, "max_retries": retries},
            )
        except InputValidationError as error:
            if error.code != "conflict":
                raise
            raise InputValidationError(
                f"{urls}, or an option, was changed since it was first run",
                code="conflict",
                hint="Give the changed list a name of its own: --key NAME",
            ) from error
        if made.status == "paused":
            await jobs.resume(made.id)
        return await _watch(jobs, made.id, out, as_json)

    options: dict[str, object] = {"--key": key, "--priority": priority, "--max-retries": max_retries, "--out": out}
    usual = {"--priority": 5, "--max-retries": "3"}
    given = {name: value for name, value in options.items() if value != usual.get(name)}
    _end(_with_jobs(work), as_json, again=_command("run", urls, given | {"--json": as_json}))


@batch.command("resume")
def resume(batch_id: BatchId, out: Out = None, as_json: AsJson = False) -> None:
    """Go on with a batch that was interrupted or paused, and watch it.

    bulletproof batch resume 0b2f1c...
    """

    async def work(jobs: "BatchJobs") -> dict[str, Any]:
        if (await jobs.store.batch(batch_id)).status == "paused":
            await jobs.resume(batch_id)
        return await _watch(jobs, batch_id, out, as_json)

    _end(_with_jobs(work), as_json, again=_command("resume", batch_id, {"--out": out, "--json": as_json}))


@batch.command("retry")
def retry(
    batch_id: BatchId,
    code: Annotated[list[str] | None, typer.Option(help="Only items that failed with this code.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Do the failed items of a batch again, and watch.

    bulletproof batch retry 0b2f1c... --code service_unavailable
    """

    async def work(jobs: "BatchJobs") -> dict[str, Any]:
        await jobs.retry(batch_id, codes=code)
        return await _watch(jobs, batch_id, out, as_json)

    _end(_with_jobs(work), as_json, again=_command("resume", batch_id, {"--out": out, "--json": as_json}))


@batch.command("status")
def status(batch_id: BatchId, as_json: AsJson = False) -> None:
    """Tell how a batch stands.

    bulletproof batch status 0b2f1c...
    """
    report = _with_jobs(lambda jobs: jobs.status(batch_id), working=False)
    assert report is not None
    _print(report, as_json)


@batch.command("pause")
def pause(batch_id: BatchId) -> None:
    """Have everybody stop working on a batch until it is resumed."""
    _with_jobs(lambda jobs: jobs.pause(batch_id), working=False)


@batch.command("cancel")
def cancel(batch_id: BatchId) -> None:
    """Have everybody stop working on a batch for good; what is done stays."""
    _with_jobs(lambda jobs: jobs.cancel(batch_id), working=False)


@batch.command("list")
def show(limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: AsJson = False) -> None:
    """List the latest batches."""
    found = _with_jobs(lambda jobs: jobs.store.batches(limit=limit), working=False) or []
    rows = [
        {"batch_id": one.id, "status": one.status, "total": one.total, "created_at": one.created_at} for one in found
    ]
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table("Batch", "Status", "Items", "Made", box=None, header_style="bold", pad_edge=False)
    for one in found:
        table.add_row(one.id, one.status, f"{one.total:,}", f"{one.created_at:%Y-%m-%d %H:%M}")
    Console().print(table if rows else "There are no batches; make one with: bulletproof batch run urls.txt")


@batch.command("results")
def results(
    batch_id: BatchId,
    form: Annotated[_Form, typer.Option("--format", help="CSV is safe for spreadsheets.")] = _Form.jsonl,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output when not given.")] = None,
) -> None:
    """Write all items of a batch with their results.

    bulletproof batch results 0b2f1c... --format csv --out results.csv
    """
    _with_jobs(lambda jobs: _export(jobs, batch_id, str(form), out), working=False)


def _key_of(path: Path) -> str:
    return f"file:{sha256(str(path.resolve()).encode()).hexdigest()[:32]}"


def _with_jobs(work: Callable[["BatchJobs"], Awaitable[T]], *, working: bool = True) -> T | None:
    """Run something with the jobs of the settings' database; returns None when it was interrupted."""
    try:
        return asyncio.run(_run(work, working))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return None


async def _run(work: Callable[["BatchJobs"], Awaitable[T]], working: bool) -> T:
    if sys.platform != "win32" and (this := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with _jobs(working) as jobs:
        return await work(jobs)


@asynccontextmanager
async def _jobs(working: bool) -> AsyncIterator["BatchJobs"]:
    try:
        from bulletproof.jobs import BatchJobs
    except ImportError as error:
        raise not_installed("batches are not installed", "pipeline") from error
    from bulletproof.monitor import default_monitor
    from bulletproof.processor import default_store
    from bulletproof.store import BatchStore

    settings = load_settings()
    store = default_store(settings)
    jobs = BatchJobs(settings, store=BatchStore(store.access), monitor=default_monitor())
    try:
        if working:
            await jobs.start()
        yield jobs
    finally:
        await jobs.aclose(_DRAIN_SECONDS)
        await store.aclose()


async def _watch(jobs: "BatchJobs", batch_id: str, out: Path | None, quiet: bool) -> dict[str, Any]:
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=4, redirect_stdout=False) as live:
            async for report in jobs.events(batch_id):
                live.update(_picture(report))
    else:
        await _log(jobs.events(batch_id), quiet)
    if out is not None:
        await _export(jobs, batch_id, "csv" if out.suffix.lower() == ".csv" else "jsonl", out)
    return await jobs.status(batch_id)


async def _log(reports: AsyncIterator[dict[str, Any]], quiet: bool) -> None:
    """Tell of a batch in lines: at the beginning, every few seconds whatever happens, and at the end."""

    def tell(report: dict[str, Any]) -> None:
        if not quiet:
            typer.echo(f"{datetime.now(UTC):%H:%M:%SZ} {_line(report)}", err=True)

    async def tell_again() -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            tell(latest)

    latest: dict[str, Any] = {}
    telling: asyncio.Task[None] | None = None
    try:
        async for latest in reports:
            if telling is None:
                tell(latest)
                telling = asyncio.create_task(tell_again())
        if latest:
            tell(latest)
    finally:
        if telling is not None:
            telling.cancel()


def _line(report: dict[str, Any]) -> str:
    counts = ", ".join(f"{report[name]:,} {name}" for name in _STYLES if report[name])
    parts = [f"{report['batch_id']} {report['status']}: {report['done']:,} of {report['total']:,} done ({counts})"]
    parts += [f"{report['items_per_second']:,.1f}/s", _left(report["seconds_left"])]
    if report["by_code"]:
        some = sorted(report["by_code"].items(), key=lambda pair: -pair[1])[:_SHOWN]
        parts.append("failed: " + ", ".join(f"{code} {number:,}" for code, number in some))
    parts += [f"breaker {name} {one['state']}" for name, one in list(report["breakers"].items())[:_SHOWN]]
    return "; ".join(filter(None, parts))


async def _export(jobs: "BatchJobs", batch_id: str, form: str, out: Path | None) -> None:
    from bulletproof.store import export_csv, export_jsonl

    await jobs.store.batch(batch_id)
    write = export_csv if form == "csv" else export_jsonl
    with destination(out, sys.stdout, lossy=False) as stream:
        async for piece in write(jobs.store.stream_results(batch_id)):
            stream.write(piece.decode())


def _picture(report: dict[str, Any]) -> RenderableType:
    """Draw how a batch stands, for a terminal."""
    total, done = max(1, report["total"]), report["done"]
    head = Text.assemble(
        (report["batch_id"], "bold"), f"  {report['status']}  {done:,} of {report['total']:,}",
        f"  {report['items_per_second']:,.1f}/s", f"  {_left(report['seconds_left'])}",
    )  # fmt: skip
    counts = Text("  ").join(
        Text(f"{name} {report[name]:,}", style=style) for name, style in _STYLES.items() if report[name]
    )
    lines: list[RenderableType] = [head, ProgressBar(total=total, completed=done, width=60), counts]
    for title, key in (("failed", "by_code"), ("to be tried again", "retrying_by_code")):
        if report[key]:
            some = sorted(report[key].items(), key=lambda pair: -pair[1])[:_SHOWN]
            lines.append(Text(f"{title}: " + ", ".join(f"{code} {number:,}" for code, number in some)))
    if any(stage["attempts"] for stage in report["stages"].values()):
        lines.append(_stages(report))
    if slow := [f"{host['host']} {_took(host['mean_seconds'])}" for host in report["slowest_hosts"][:_SHOWN_HOSTS]]:
        lines.append(Text("slowest hosts: " + ", ".join(slow), style="dim"))
    lines += [
        Text(f"breaker {name}: {breaker['state']}, {breaker['failures']:,} failures", style="yellow")
        for name, breaker in list(report["breakers"].items())[:_SHOWN]
    ]
    if report.get("notice"):
        lines.append(Text(report["notice"], style="yellow"))
    for item in report.get("failed_items", ()):
        tries = sum(item["attempts"].values())
        head = Text.assemble((item["code"] or "failed", "red"), f" at {item['stage']}, {tries} tries: {item['url']}")
        lines += [head, Text(f"  {item['error'] or ''}  {item['hint'] or ''}".rstrip(), style="dim")]
    if report.get("failed_items_left_out"):
        rest = f"... and {report['failed_items_left_out']:,} more: bulletproof batch results {report['batch_id']}"
        lines.append(Text(rest))
    grid = Table.grid()
    for line in lines:
        grid.add_row(line)
    return grid


def _stages(report: dict[str, Any]) -> Table:
    table = Table("stage", box=None, header_style="dim", pad_edge=False)
    for title in ("now", "tries", "ok", "again", "failed", "p50", "p95", "p99"):
        table.add_column(title, justify="right")
    for name, stage in report["stages"].items():
        counts = (stage[key] for key in ("attempts", "succeeded", "retried", "failed"))
        now = report["by_stage"].get(name, 0)
        times = (_took(stage[share]) for share in ("p50", "p95", "p99"))
        table.add_row(name, *(f"{number:,}" for number in (now, *counts)), *times)
    return table


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d} left"


def _command(name: str, argument: str | Path, options: dict[str, object]) -> str:
    """Write a command as it would be typed."""
    words = ["bulletproof", "batch", name]
    first = [str(argument)] if not str(argument).startswith("-") else []
    words += first
    for option, value in options.items():
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    return shlex.join(words if first else [*words, "--", str(argument)])


def _end(report: dict[str, Any] | None, as_json: bool, *, again: str) -> None:
    if report is None:
        text = Text(f"Interrupted; nothing is lost. Go on with: {again}", style="yellow")
        Console(stderr=True).print(text, soft_wrap=True)  # to be copied in one piece
        raise typer.Exit(_INTERRUPTED)
    _print(report, as_json)
    raise typer.Exit(1 if report["failed"] else 0)


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2, default=str))
    else:
        Console().print(_picture(report))
