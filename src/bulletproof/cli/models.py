"""``bulletproof models``: the models there are, their versions, and which of them answers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulletproof.errors import InputValidationError
from bulletproof.settings import load_settings

if TYPE_CHECKING:  # numpy comes with it, which no other command should wait for
    from bulletproof.models import Feature, InputSchema, Manifest, ModelInfo, ModelRegistry

app = typer.Typer(
    help="Keep versions of models: what POST /predict answers from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_BY_CONTENT = "unknown"
_COLOURS = {"ok": "green", "failed": "red", "skipped": "dim"}
_LARGEST = 16 * 2**20

Name = Annotated[str, typer.Argument(help="Name of the model, such as iris.")]
Version = Annotated[str, typer.Argument(help="Version, such as v1.0.")]
LoadTimeout = Annotated[
    float, typer.Option("--load-timeout", min=0.001, help="Seconds that loading the model may take to try it out.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _registry() -> "ModelRegistry":
    from bulletproof.models import ModelRegistry

    settings = load_settings()
    return ModelRegistry(settings.data_dir / "models", default=settings.default_model)


@app.command("list")
def list_models(as_json: AsJSON = False) -> None:
    """Show the models, their versions and which of them answers; the broken ones with what is wrong.

    bulletproof models list

    bulletproof models list --json
    """
    registry = _registry()
    found = registry.models()
    if as_json:
        _print_json({"default": registry.default, "models": [asdict(model) for model in found]})
        return
    table = _table("Model", "Version", "State", "Type", "What it is")
    for model in found:
        if model.problem:
            table.add_row(_cell(model.name), "", Text("broken", style="red"), "", _cell(model.problem))
        for item in model.versions:
            state, kind, what = Text("broken", style="red"), "", item.problem
            if item.manifest is not None:
                state = _state(model, item.version)
                kind = item.manifest.type + (", isolated" if item.manifest.isolated else "")
                what = item.manifest.description
            table.add_row(_cell(model.name), _cell(item.version), state, kind, _cell(what))
    Console().print(table)


@app.command()
def add(
    name: Name,
    version: Version,
    source: Annotated[str, typer.Argument(help="The model file, or its address.", metavar="FILE_OR_URL")],
    model_type: Annotated[
        str | None,
        typer.Option("--type", help="onnx, sklearn, keras, torch, ... or remote; by default by what is in the file."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="What goes in: NAME[:LEAST:GREATEST],... or a JSON file with a list of features."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, in order: a,b,c.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="It answers a number, not a class.")] = False,
    manifest: Annotated[
        Path | None, typer.Option(help="JSON file with all of it, as a manifest.json; instead of the options above.")
    ] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Run it in a worker process that can be killed alone.")
    ] = False,
    memory_mib: Annotated[
        int | None, typer.Option(min=1, help="Most memory that an isolated worker may take beyond the model, in MiB.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one prediction may take.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, for people.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum that the file must have.")] = None,
    verify: Annotated[bool, typer.Option(help="Load it and predict a row before anybody else sees it.")] = True,
    load_timeout: LoadTimeout = 60.0,
) -> None:
    """Add a version; the first one of a model answers at once, others once they are activated.

    The file is copied. Loading a pickle, joblib or TorchScript file runs code that stands in it: see
    [bold]bulletproof models inspect[/bold] first.

    bulletproof models add iris v2.0 iris.onnx --features "sepal length:0:30,sepal width:0:30,petal length:0:30,petal
    width:0:30" --classes setosa,versicolor,virginica

    bulletproof models add price v1.0 price.joblib --features features.json --regression --isolated --memory-mib 512

    bulletproof models add churn v1.0 https://models.example.com/churn.onnx --manifest churn.json
    """
    asked: dict[str, Any] = {}
    if manifest is not None:
        if features is not None or classes is not None or regression:
            raise InputValidationError("--manifest says it all: leave out --features, --classes and --regression")
        asked = _object(manifest)
    else:
        if features is None or (classes is None) != regression:
            raise InputValidationError(
                "say what goes in and what comes out",
                hint="Give --features and either --classes or --regression, or --manifest with all of it.",
            )
        asked["input"] = _features(features).model_dump()
        kind = "regression" if regression else "classification"
        asked["output"] = {"kind": kind, "classes": [one.strip() for one in (classes or "").split(",") if one.strip()]}
    _overlay(asked, name, version, source, model_type)
    given = {"isolated": isolated or None, "description": description}
    asked |= {key: value for key, value in given.items() if value is not None}
    limits = {"timeout_seconds": timeout, "memory_bytes": memory_mib and memory_mib * 2**20}
    if isinstance(asked.setdefault("limits", {}), dict):
        asked["limits"] |= {key: value for key, value in limits.items() if value is not None}
    wanted = _manifest(asked)
    registry = _registry()
    with _terminable():
        added = registry.add(
            name, version, source, type=None if wanted.type == _BY_CONTENT else wanted.type, input=wanted.input,
            output=wanted.output, limits=wanted.limits, isolated=wanted.isolated, description=wanted.description,
            sha256=sha256, verify=verify, load_seconds=load_timeout,
        )  # fmt: skip
    active = registry.rollout(name).active
    if active == version:
        typer.echo(f"{name} {version} is added and answers. Try it: bulletproof serve")
    else:
        typer.echo(
            f"{name} {version} is added; {active} answers. To change that: bulletproof models activate {name} {version}"
        )
    if added.sha256:
        typer.echo(f"SHA-256 {added.sha256}")


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    version: Annotated[str | None, typer.Argument(help="Only this version.")] = None,
    as_json: AsJSON = False,
    load_timeout: LoadTimeout = 60.0,
) -> None:
    """Compare checksums, load the models and have each predict a row; exit 1 when something is wrong.

    bulletproof models verify

    bulletproof models verify iris v1.1 --json
    """
    with _terminable():
        rows = _registry().verify(name, version, load_seconds=load_timeout)
    if as_json:
        _print_json([asdict(row) for row in rows])
    else:
        table = _table("Model", "Version", "Manifest", "Checksum", "Loads", "Predicts", "What is wrong")
        for row in rows:
            marks = (Text(mark, style=_COLOURS[mark]) for mark in (row.manifest, row.checksum, row.loads, row.predicts))
            table.add_row(_cell(row.name), _cell(row.version), *marks, _cell(f"{row.problem} {row.hint}".strip()))
        Console().print(table)
    raise typer.Exit(any(row.problem for row in rows))


@app.command()
def activate(name: Name, version: Version) -> None:
    """Have a version answer the requests that name none.

    bulletproof models activate iris v1.1
    """
    _registry().activate(name, version)
    typer.echo(f"{name} {version} answers now.")


@app.command()
def remove(name: Name, version: Version) -> None:
    """Remove a version; not the active one while there are others.

    bulletproof models remove iris v2.0
    """
    _registry().remove(name, version)
    typer.echo(f"{name} {version} is removed.")


@app.command()
def canary(
    name: Name,
    version: Version,
    share: Annotated[float, typer.Option(help="Share of the requests, above 0 and at most 1.")] = 0.05,
) -> None:
    """Have a candidate answer a share of the requests that name no version.

    bulletproof models canary iris v1.1 --share 0.1
    """
    _registry().canary(name, version, share)
    typer.echo(f"{name} {version} answers {share:.1%} of the requests. To end that: bulletproof models stop {name}")


@app.command()
def shadow(
    name: Name,
    version: Version,
    share: Annotated[float, typer.Option(help="Share of the requests, above 0 and at most 1.")] = 1.0,
) -> None:
    """Ask a candidate too, and only compare what it answers.

    bulletproof models shadow iris v1.1 --share 0.5
    """
    _registry().shadow(name, version, share)
    typer.echo(
        f"{name} {version} is asked {share:.1%} of the requests too. To end that: bulletproof models stop {name}"
    )


@app.command()
def stop(name: Name) -> None:
    """End the trial of a candidate: the active version alone is asked again.

    bulletproof models stop iris
    """
    registry = _registry()
    registry.stop_rollout(name)
    typer.echo(f"{name} {registry.rollout(name).active} alone answers.")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A model file.")],
    as_json: AsJSON = False,
) -> None:
    """Say what a model file is, without loading it: its format, whether loading it can run code, what it would import.

    bulletproof models inspect model.pkl
    """
    from bulletproof.models.inspection import inspect_model

    facts = asdict(inspect_model(file))
    if as_json:
        _print_json(facts)
        return
    runs = facts["runs_code"]
    told = {
        "file": f"{file}, {facts['size']:,} bytes",
        "what it is": facts["label"],
        "type": facts["model_type"] or "none that is loaded",
        "sha256": facts["sha256"],
        "loading it runs code": Text("it can" if runs else "no", style="bold red" if runs else "green"),
        "because": "; ".join(facts["why"]),
        "it would import": Text("\n").join(
            _cell(name, "bold red" if name in facts["unusual"] else "") for name in facts["imports"]
        ),
        "saved with": ", ".join(f"{name} {number}" for name, number in facts["saved_with"].items()),
        "mind": "; ".join(facts["notes"]),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in told.items():
        if value:
            table.add_row(key, value if isinstance(value, Text) else _cell(value))
    Console().print(table)


@contextmanager
def _terminable() -> Iterator[None]:
    """Have SIGTERM end this block as Ctrl-C does, so that what was begun is removed."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _overlay(asked: dict[str, Any], name: str, version: str, source: str, model_type: str | None) -> None:
    """Put in what the arguments say; the file and its checksum come with the copy."""
    asked["type"] = model_type or asked.get("type") or _BY_CONTENT
    remote = asked["type"] == "remote"
    where = {"url": source, "file": "", "sha256": ""} if remote else {"url": "", "file": "model", "sha256": "0" * 64}
    asked |= {"name": name, "version": version, "created": None, **where}


def _manifest(asked: dict[str, Any]) -> "Manifest":
    from bulletproof.models import Manifest
    from bulletproof.models.files import problems_of
    from bulletproof.models.registry import check_names

    check_names(asked["name"], asked["version"])
    try:
        return Manifest.model_validate(asked)
    except ValidationError as error:
        raise InputValidationError(f"this makes no valid manifest: {problems_of(error)}") from error


def _features(given: str) -> "InputSchema":
    """Read --features."""
    from bulletproof.models import InputSchema
    from bulletproof.models.files import problems_of

    path = Path(given)
    if given.endswith(".json") or path.is_file():
        found = _json(path)
        found = found.get("input", found) if isinstance(found, dict) else {"features": found}
    else:
        found = {"features": [_feature(item) for item in given.split(",") if item.strip()]}
    try:
        return InputSchema.model_validate(found)
    except ValidationError as error:
        raise InputValidationError(f"--features: {problems_of(error)}") from error


def _feature(given: str) -> "Feature":
    from bulletproof.models import Feature

    name, *bounds = (part.strip() for part in given.split(":"))
    try:
        least, greatest = ([float(bound) if bound else None for bound in bounds] + [None, None])[:2]
        if least is not None and greatest is not None and least > greatest:
            raise InputValidationError(
                f"--features: {given!r}: the least value {least:g} is above the greatest {greatest:g}",
                hint="Give the lower one first, such as age:0:150.",
            )
        if len(bounds) > 2:
            raise ValueError
        return Feature(name=name, minimum=least, maximum=greatest)
    except ValueError as error:
        raise InputValidationError(
            f"--features: {given!r} is not NAME, NAME:LEAST or NAME:LEAST:GREATEST", hint='Such as "age:0:150,income".'
        ) from error


def _object(path: Path) -> dict[str, Any]:
    found = _json(path)
    if not isinstance(found, dict):
        raise InputValidationError(f"{path} holds no JSON object")
    return found


def _json(path: Path) -> Any:
    if not path.is_file():
        raise InputValidationError(f"there is no file {path}", code="file_not_found")
    if path.stat().st_size > _LARGEST:
        raise InputValidationError(f"{path} is larger than {_LARGEST // 2**20} MiB", code="file_too_large")
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputValidationError(
            f"{path} is not valid JSON: {error.msg}", code="invalid_json", line=error.lineno, column=error.colno
        ) from error


def _state(model: "ModelInfo", version: str) -> Text:
    candidate = model.candidate
    if version == model.active:
        return Text("active", style="green")
    if candidate is not None and candidate.version == version:
        return Text(f"{candidate.mode} {candidate.share:.1%}", style="yellow")
    return Text()


def _cell(text: str, style: str = "") -> Text:
    """Return what others wrote as text that does nothing to a terminal."""
    return Text("".join(one if one.isprintable() or one == "\n" else "?" for one in text), style=style)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _print_json(value: Any) -> None:
    def plain(item: Any) -> Any:
        return item.model_dump(mode="json") if isinstance(item, BaseModel) else str(item)

    typer.echo(orjson.dumps(value, default=plain, option=orjson.OPT_INDENT_2))
