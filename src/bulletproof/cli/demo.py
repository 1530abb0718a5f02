"""``bulletproof demo``: see it work, on real processes and sockets."""

import asyncio
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bulletproof.errors.installing import not_installed

if TYPE_CHECKING:
    from bulletproof.cli.outage import Story

demo = typer.Typer(help="See it work: real processes, real sockets, counted figures.", no_args_is_help=True)

_KEPT = {"kept": "kept in all", "done": "run again", "left": "left"}
_COLOURS = {"closed": "green", "half_open": "yellow", "open": "red"}


@demo.callback()
def _root() -> None:
    """Carry the commands."""


@demo.command("outage")
def outage(
    seconds: Annotated[float, typer.Option(min=6, max=3600, help="Seconds in which calls are made.")] = 30.0,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Processes that make calls.")] = 3,
) -> None:
    """Let workers call a provider that limits them, dies and comes back; exit 1 when a call is lost.

    The workers use the openai SDK, wrapped by bulletproof.wrap, and share circuits, waits and kept calls through a
    database. The provider is a small one on this machine. What is printed was counted at the provider and in the
    database.
    """
    if find_spec("openai") is None:
        raise not_installed("the openai SDK is not installed", "llm")
    with tempfile.TemporaryDirectory(prefix="bulletproof-demo-", ignore_cleanup_errors=True) as folder:
        good = asyncio.run(_show(Path(folder), seconds, workers))
    raise typer.Exit(not good)


async def _show(folder: Path, seconds: float, workers: int) -> bool:
    from bulletproof.cli.outage import Story

    console = Console()
    story = Story(folder, seconds, workers)
    running = asyncio.create_task(story.run())
    phase = ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not running.done():
            if story.phase != phase:
                phase = story.phase
                console.print(Text.assemble(("▸ ", "bold"), phase))
            if console.is_terminal:
                live.update(_picture(story), refresh=True)
            await asyncio.wait([running], timeout=0.2)
    console.print(_picture(story))
    try:
        await running
    except TimeoutError:
        console.print(Text("It did not come to its end in time.", style="red"))
    good = True
    for true, figures in story.verdict():
        console.print(Text.assemble(("✓ " if true else "✗ ", "bold green" if true else "bold red"), figures))
        good = good and true
    return good and not running.cancelled() and running.exception() is None


def _picture(story: "Story") -> Group:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Worker", "Circuit", "Held for", "Made", "Answered", "Kept"):
        table.add_column(name, justify="left" if name in ("Worker", "Circuit") else "right", min_width=8)
    for number, one in enumerate(story.told, 1):
        circuit = str(one.get("circuit", ""))
        held = f"{one['hold']:.1f} s" if one.get("hold") else ""
        counted = (str(one.get(name, 0)) for name in ("made", "answered", "kept"))
        table.add_row(str(number), Text(circuit, style=_COLOURS.get(circuit, "")), held, *counted)
    answers = ", ".join(f"{number} × {status}" for status, number in sorted(story.provider.statuses.items()))
    kept = ", ".join(f"{story.counts[name]} {word}" for name, word in _KEPT.items())
    return Group(table, Text(f"Provider answered {answers or 'nothing yet'}"), Text(f"Kept calls: {kept}"))
