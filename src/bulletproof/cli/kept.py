"""``bulletproof kept``: calls that failed on the way out, and what becomes of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulletproof.errors import InputValidationError
from bulletproof.settings import load_settings
from bulletproof.store import KeptStore

kept = typer.Typer(help="Calls that failed on the way out and are run again: list, retry, drop.", no_args_is_help=True)

_MOST = 100_000
Ids = Annotated[list[str] | None, typer.Argument(help="As 'bulletproof kept list' shows them.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Function = Annotated[str | None, typer.Option(help="Only calls of this function.")]


@kept.command("list")
def show(
    function: Function = None,
    limit: Annotated[int, typer.Option(min=1, help="Most calls shown, the oldest first.")] = 100,
    show_arguments: Annotated[bool, typer.Option(help="Show arguments, which may hold secrets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the calls as JSON.")] = False,
) -> None:
    """List the calls that are kept, the oldest first, with the last error of each.

    bulletproof kept list --function billing.charge
    """

    async def read(store: KeptStore) -> Any:
        return await store.calls(function=function, limit=limit, arguments=show_arguments), await store.counts()

    calls, counts = _run(read)
    if as_json:
        typer.echo(orjson.dumps([asdict(call) for call in calls], option=orjson.OPT_INDENT_2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("Id", "Function", "State", "Kept (UTC)", "Attempts", "Code", "Next", "Expires", "Arguments"):
        table.add_column(title, overflow="fold")
    for call in calls:
        cells = (
            call.id, call.function, call.state, _time(call.kept_at), call.attempts, call.code,
            _time(call.due) if call.due else "now", _time(call.expires) if call.expires else "never",
            call.arguments if show_arguments else call.digest,
        )  # fmt: skip
        table.add_row(*(Text(str(cell)) for cell in cells))
    console = Console()
    console.print(table if calls else "No calls are kept.")
    for name, count in counts.items():
        told = ", ".join(f"{number:,} {what}" for what, number in count.items())
        console.print(Text(f"{name}: {told}", style="dim"))


@kept.command("retry")
def retry(ids: Ids = None, every: All = False, function: Function = None) -> None:
    """Have calls run next, failed ones too, by whichever process knows their function.

    bulletproof kept retry 4f2a9c0d11e8b7a3
    """
    _each(ids, every, function, KeptStore.retry, "run next, as soon as a process that knows the function looks")


@kept.command("drop")
def drop(ids: Ids = None, every: All = False, function: Function = None) -> None:
    """Forget calls: they are never run again.

    bulletproof kept drop --all --function billing.charge
    """
    _each(ids, every, function, KeptStore.drop, "dropped")


def _each(
    ids: list[str] | None,
    every: bool,
    function: str | None,
    act: Callable[[KeptStore, str], Awaitable[None]],
    done: str,
) -> None:
    if bool(ids) == (every or function is not None):
        raise InputValidationError("say which calls: their ids, or --all, or --function NAME")

    async def change(store: KeptStore) -> int:
        chosen = ids or [call.id for call in await store.calls(function=function, limit=_MOST)]
        for kept_id in chosen:
            await act(store, kept_id)
        return len(chosen)

    count = _run(change)
    typer.echo(f"{count:,} {'call' if count == 1 else 'calls'} {done}.", err=True)


def _run(work: Callable[[KeptStore], Awaitable[Any]]) -> Any:
    from bulletproof.processor.defaults import default_store

    async def run() -> Any:
        store = default_store(load_settings())
        try:
            return await work(KeptStore(store.access))
        finally:
            await store.aclose()

    return asyncio.run(run())


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
