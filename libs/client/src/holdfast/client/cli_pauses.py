"""``holdfast pauses``, ``pause`` and ``resume``: let nothing more of something begin, and let it go on."""

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.client.cli_columns import PAUSE_COLUMNS
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json, say
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.pauses import Pause
from holdfast.client.render import one_line

__all__ = ["PauseKind", "list_pauses", "pause", "register", "resume"]


class PauseKind(StrEnum):
    """What a pause names."""

    handler = "handler"
    type = "type"
    tenant = "tenant"
    pool = "pool"


Kind = Annotated[PauseKind, typer.Argument(metavar="KIND", help="handler, type, tenant or pool.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the handler, type or pool; your own tenant.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("pauses", epilog=WHERE)(list_pauses)
    app.command(epilog=WHERE)(pause)
    app.command(epilog=WHERE)(resume)


def list_pauses(url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """List what is paused, the newest first. Needs the scope operate.

    [bold]Example[/]

    holdfast pauses
    """
    with connect(find_address(url, api_key)) as client:
        show_list(client.pauses(), PAUSE_COLUMNS, output, empty="nothing is paused")


def pause(
    kind: Kind,
    name: Name,
    note: Annotated[str | None, typer.Option("--note", help="Why, for those who find it paused.")] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Begin nothing more of a handler, a type, your tenant or a pool. What runs finishes; events are accepted and wait.

    Types and tenants need the scope operate; handlers and pools, which work for all tenants, need admin.

    [bold]Examples[/]

    holdfast pause handler charge-order --note 'the bank is away'

    holdfast pause type com.acme.report.due
    """
    with connect(find_address(url, api_key)) as client:
        _print(client.pause(kind, name, note=note), "is paused", output)


def resume(
    kind: Kind,
    name: Name,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Let what is paused go on. Exit status 1: it is not paused.

    [bold]Example[/]

    holdfast resume handler charge-order
    """
    with connect(find_address(url, api_key)) as client:
        found = next((each for each in client.pauses() if (each.kind, each.name) == (kind.value, name)), None)
        if found is None:
            say(f"{kind} {one_line(name)} is not paused; 'holdfast pauses' lists what is")
            raise typer.Exit(1)
        _print(client.resume(found.pause_id), "goes on", output)


def _print(each: Pause, what: str, output: Output) -> None:
    if output is Output.json:
        print_json(each.raw)
    else:
        print(f"{each.kind} {one_line(each.name)} {what}")
