"""``bulletproof keys``: make, list and take back API keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulletproof.settings import load_settings

keys = typer.Typer(help="Make, list and take back API keys.", no_args_is_help=True)


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what uses it.")],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="process, predict, batches, read, operate. [default: all]")
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, max=36_500, help="Days until it expires. [default: never]")
    ] = None,
) -> None:
    """Make a key and show it, once; the service knows it within a second.

    bulletproof keys create shop --scope process --scope read --days 90
    """
    from bulletproof.service.keys import SCOPES, create_key

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    path = load_settings().keys_path
    key, secret = create_key(path, name, tuple(scope or SCOPES), expires=expires)
    until = f", until {key.expires}" if key.expires else ""
    typer.echo(f"{name} may {', '.join(key.scopes)}{until}. Kept as a digest in {path}; this is shown once:", err=True)
    typer.echo(secret)


@keys.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False) -> None:
    """List the keys, without the keys themselves.

    bulletproof keys list
    """
    from bulletproof.service.keys import read_keys

    found = read_keys(load_settings().keys_path)
    now = datetime.now(UTC)
    rows = [
        {
            "name": key.name,
            "state": "revoked" if key.revoked else "expired" if key.expired(now) else "valid",
            "scopes": list(key.scopes),
            "created": key.created,
            "expires": key.expires,
            "owner": key.owner,
        }
        for key in found
    ]
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("Name", "State", "May", "Created", "Expires"):
        table.add_column(title)
    for row in rows:
        scopes, expires = row["scopes"] or (), row["expires"] or "never"
        table.add_row(
            *(Text(str(cell)) for cell in (row["name"], row["state"], ", ".join(scopes), row["created"], expires))
        )
    Console().print(table if rows else "There are no keys; make one with: bulletproof keys create NAME")


@keys.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """Take a key back; the service refuses it within a second.

    bulletproof keys revoke shop
    """
    from bulletproof.service.keys import revoke_key

    revoke_key(load_settings().keys_path, name)
    typer.echo(f"{name} is revoked.", err=True)
