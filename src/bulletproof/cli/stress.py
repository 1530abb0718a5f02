"""``bulletproof stress``: send a service what breaks services, and compare its answers with what they should be."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from bulletproof.cli.stress_cases import StressCase, stress_cases
from bulletproof.errors import classify
from bulletproof.errors.installing import not_installed
from bulletproof.settings import load_settings

if TYPE_CHECKING:
    import httpx

_CASE_SECONDS = 120.0
_SLOW_SECONDS = 2.0
_BUSY = (429, 503)
_LONGEST_WAIT = 60
_SLOW_BYTES = 2**20  # what is larger may take longer
_WIDE = 120  # characters of a terminal from which on all columns fit

# Errors of the client and answers to a wrong key: the same would come sixty times more.
_HOPELESS = ("Connect", "UnsupportedProtocol", "401", "403")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back.

    Args:
        name: Of the case.
        why: What is nasty about it.
        expected: The right answers, as ``422 invalid_json``.
        got: The answer.
        seconds: How long it took.
        surprise: What is wrong with it; empty when nothing is.
    """

    name: str
    why: str
    expected: str
    got: str
    seconds: float
    surprise: str


def stress(
    url: Annotated[
        str | None, typer.Option(help="Address of the service. [default: one of its own, in this process]")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Key to send.", envvar="BULLETPROOF_STRESS_KEY")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcomes as JSON.")] = False,
) -> None:
    """Send a service what breaks services; exit 1 when an answer is a surprise.

      bulletproof stress                                          # the service as configured here, in this process
      bulletproof stress --url https://ai.example.com --api-key KEY

    Some seventy requests, two of them tens of megabytes long. Nothing is asked of other machines.
    """
    console = Console(stderr=True)
    outcomes, unsent = asyncio.run(_run(url, api_key, console))
    if as_json:
        typer.echo(orjson.dumps([asdict(item) for item in outcomes], option=orjson.OPT_INDENT_2))
    else:
        _show(outcomes)
    if unsent:
        console.print(f"The other {unsent} were not sent: is --url right, does the service run, may --api-key do this?")
    raise typer.Exit(any(item.surprise for item in outcomes))


async def _run(url: str | None, api_key: str | None, console: Console) -> tuple[list[Outcome], int]:
    cases = list(stress_cases())
    async with AsyncExitStack() as stack:
        client = await _client(stack, url, api_key)
        outcomes = []
        with Progress(console=console, transient=True) as progress:
            for case in progress.track(cases, description="Sending"):
                outcomes.append(await run_case(client, case))
                if len(outcomes) == 1 and outcomes[0].surprise and outcomes[0].got.startswith(_HOPELESS):
                    break
        return outcomes, len(cases) - len(outcomes)


async def _client(stack: AsyncExitStack, url: str | None, api_key: str | None) -> "httpx.AsyncClient":
    try:
        import httpx
    except ImportError as error:
        raise not_installed("the HTTP client is not installed", "dashboard") from error
    headers = {"X-API-Key": api_key} if api_key else {}
    if url is not None:
        return await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=_CASE_SECONDS))
    from bulletproof.service import create_app

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bulletproof-stress-", ignore_cleanup_errors=True))
    # The limits are those configured; keys and data of the real service are left alone.
    settings = load_settings(data_dir=Path(folder), database_url=None, api_keys=())
    app = create_app(settings)
    await stack.enter_async_context(app.router.lifespan_context(app))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("127.0.0.1", 1))
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=_CASE_SECONDS)
    return await stack.enter_async_context(client)


async def run_case(client: "httpx.AsyncClient", case: StressCase) -> Outcome:
    """Send one case and judge the answer.

    Args:
        client: An HTTP client of the service.
        case: What to send.

    Returns:
        What came back, and what is wrong with it.
    """
    content = case.make()
    started = time.perf_counter()
    try:
        response = await _send(client, case, content)
        wait = response.headers.get("Retry-After", "")
        if response.status_code in _BUSY and response.status_code not in case.status and wait.isdigit():
            await asyncio.sleep(min(int(wait), _LONGEST_WAIT))  # it has others to serve: once more, as it asks
            started = time.perf_counter()
            response = await _send(client, case, content)
    except Exception as error:  # noqa: BLE001 -- whatever happened to the request is the outcome
        seconds = time.perf_counter() - started
        surprise = f"no answer: {classify(error).details}"
        return Outcome(_short(case.name), case.why, _expected(case), type(error).__name__, seconds, surprise)
    seconds = time.perf_counter() - started
    got, surprise = _judge(case, response)
    if not surprise and seconds > _SLOW_SECONDS and len(content) < _SLOW_BYTES:
        surprise = f"it took {seconds:.1f} s"
    return Outcome(_short(case.name), case.why, _expected(case), got, round(seconds, 3), surprise)


async def _send(client: "httpx.AsyncClient", case: StressCase, content: bytes) -> "httpx.Response":
    if case.path == "/process":
        return await client.post(case.path, files={"file": (case.name, content, case.media_type)})
    return await client.post(case.path, content=content, headers={"Content-Type": case.media_type})


def _judge(case: StressCase, response: "httpx.Response") -> tuple[str, str]:
    try:
        body: Any = response.json()
    except ValueError:
        return str(response.status_code), "the answer is no JSON"
    if not isinstance(body, dict):
        return str(response.status_code), "the answer is no JSON object"
    code = str(body.get("code", ""))
    got = f"{response.status_code} {code}".strip()
    if response.status_code not in case.status:
        return got, f"status {response.status_code}: {body.get('details') or body.get('error') or ''}"
    if response.status_code == 200:
        analyzed = body.get("records", {}).get("analyzed")
        if case.records is not None and analyzed != case.records:
            return got, f"{analyzed} records analysed, not {case.records}"
        return got, ""
    missing = {"error", "error_type", "details", "status", "code", "hint"} - body.keys()
    if missing:
        return got, f"the error lacks {', '.join(sorted(missing))}"
    return got, "" if code in case.codes else f"code {code}: {body['details']}"


def _expected(case: StressCase) -> str:
    statuses = "/".join(str(status) for status in case.status)
    return f"{statuses} {' or '.join(case.codes)}".strip()


def _short(name: str) -> str:
    shown = name.replace("\x00", "\\0")
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _show(outcomes: list[Outcome]) -> None:
    console = Console()
    wide = console.width >= _WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("Sent", no_wrap=True, overflow="ellipsis", max_width=None if wide else 24)
    table.add_column("What is nasty")
    # What is as expected says so; of a surprise both are told below.
    if wide:
        table.add_column("Expected")
    table.add_column("Got", no_wrap=True)
    table.add_column("Seconds", justify="right", no_wrap=True)
    worst: list[str] = []
    for item in outcomes:
        mark = Text("surprise", style="red") if item.surprise else Text("ok", style="green")
        expected = (item.expected,) if wide else ()
        table.add_row(mark, Text(item.name), Text(item.why), *expected, Text(item.got), f"{item.seconds:.2f}")
        if item.surprise:
            worst.append(f"{item.name} ({item.why}): {item.surprise}; expected {item.expected}")
    console.print(table)
    for line in worst:
        console.print(Text(line, style="red"))
    console.print(f"{len(outcomes) - len(worst)} of {len(outcomes)} as expected, {len(worst)} surprises")
