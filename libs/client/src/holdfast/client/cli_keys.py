"""``holdfast keys``: a tenant's API keys, over the API; and, for its first one, on the database."""

import re
from typing import Annotated

import typer

from holdfast.client.cli_columns import KEY_COLUMNS
from holdfast.client.cli_database import run_on_database
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json, say
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.keys import NewApiKey

__all__ = ["keys"]

keys = typer.Typer(
    no_args_is_help=True,
    help="Create, list, rotate and revoke API keys: your tenant's, over the API, with a key that has the scope admin. "
    "With --database on the database itself (HOLDFAST_DATABASE_URL): that is how a tenant gets its first key.",
)

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Database = Annotated[bool, typer.Option("--database", help="On the database itself; --tenant implies it.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The part between 'hf_' and the next '_'.")]


@keys.command(epilog=WHERE)
def create(
    name: Annotated[str, typer.Option(help="A name for the key, such as that of its user.")],
    scope: Annotated[list[str] | None, typer.Option(help="Repeatable; default events:write and events:read.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 12h or 90d; default: never.")] = None,
    tenant: Annotated[str | None, typer.Option(help="On the database: tenant whose events the key is for.")] = None,
    database: Database = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Create an API key and print it, once.

    [bold]Examples[/]

    holdfast keys create --name shop-backend --scope events:write --expires 90d

    HOLDFAST_DATABASE_URL=postgresql://… holdfast keys create --tenant acme --name ann --scope admin
    """
    if database or tenant is not None:
        if tenant is None:
            raise typer.BadParameter("--database takes --tenant: whose key is it?")
        options = [*(("--scope", each) for each in scope or []), *([] if expires is None else [("--expires", expires)])]
        chosen = [word for option in options for word in option]
        run_on_database(["keys", "create", "--tenant", tenant, "--name", name, *chosen])
    seconds_left = None if expires is None else _seconds_of(expires)
    with connect(find_address(url, api_key)) as client:
        made = client.create_key(name, scopes=scope, expires_in_seconds=seconds_left)
    _print_made(made, output)


@keys.command("ls", epilog=WHERE)
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="On the database: only this tenant's.")] = None,
    database: Database = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List API keys, the newest first: scopes, when they were created and last used, when they expire.

    [bold]Example[/]

    holdfast keys ls -o json | jq -r 'select(.last_used_at == null) | .name'
    """
    if database or tenant is not None:
        run_on_database(["keys", "ls", *([] if tenant is None else ["--tenant", tenant])])
    with connect(find_address(url, api_key)) as client:
        show_list(client.keys(), KEY_COLUMNS, output, empty="there are no keys")


@keys.command(epilog=WHERE)
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the old key still works, 0s to 30d; default 24h.")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Make a key with the same name, scopes and life, and print it, once. The old one ends after the overlap.

    [bold]Example[/]

    holdfast keys rotate abcdefghijkl --overlap 1h
    """
    overlap_seconds = None if overlap is None else _seconds_of(overlap)
    with connect(find_address(url, api_key)) as client:
        made = client.rotate_key(key_id, overlap_seconds=overlap_seconds)
    _print_made(made, output)
    say(f"{key_id} ends in {overlap or '24h'}")


@keys.command(epilog=WHERE)
def revoke(
    key_id: KeyId,
    force: Annotated[bool, typer.Option("--force", help="Even the last key with the scope admin.")] = False,
    database: Database = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Revoke an API key; it stops working within a minute.

    [bold]Example[/]

    holdfast keys revoke abcdefghijkl
    """
    if database:
        run_on_database(["keys", "revoke", key_id])
    with connect(find_address(url, api_key)) as client:
        revoked = client.revoke_key(key_id, force=force)
    show_list([revoked], KEY_COLUMNS, output)


def _print_made(made: NewApiKey, output: Output) -> None:
    if output is Output.json:
        print_json({"key": made.key, **made.entry.raw})
    else:
        print(made.key)
        say("keep it: only a hash of it is stored")


def _seconds_of(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time like 30s, 15m, 12h or 90d")
    return int(match[1]) * _UNIT_SECONDS[match[2]]
