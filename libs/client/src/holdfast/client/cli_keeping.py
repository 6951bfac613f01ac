"""``holdfast retention``, ``holdfast erase`` and ``holdfast erasures``: how long events are kept."""

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.client.cli_operate import confirm, confirm_by_name
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json
from holdfast.client.cli_table import Column, show_list
from holdfast.client.connection import find_address
from holdfast.client.keeping import Erasure, Retention
from holdfast.client.render import seconds

__all__ = ["ERASURE_COLUMNS", "RETENTION_COLUMNS", "Ended", "erase", "erasures", "retention"]

retention = typer.Typer(no_args_is_help=True, help="How long events are kept once they have ended.")

erasures = typer.Typer(
    no_args_is_help=True, help="Erasures of what has a subject, or of everything, and how far they are."
)


class Ended(StrEnum):
    """In which state events ended."""

    processed = "processed"
    discarded = "discarded"
    dead = "dead"


EndedIn = Annotated[Ended, typer.Argument(metavar="STATE", help="processed, discarded or dead.")]


def _rule(each: Retention) -> str:
    if not each.has_rule:
        return "default"
    return "for ever" if each.rule_days is None else f"{each.rule_days} days"


RETENTION_COLUMNS: tuple[Column[Retention], ...] = (
    Column("STATE", lambda each: each.state, is_whole=True),
    Column("RULE", _rule, is_whole=True),
    Column("IN FORCE", lambda each: f"{each.days_in_force} days" if each.days_in_force else "for ever", is_whole=True),
    Column("DROPPED", lambda each: each.dropped, is_right=True, is_whole=True),
    Column("LAST WALK", lambda each: each.last_walk_at and seconds(each.last_walk_at), is_whole=True, style="dim"),
)

ERASURE_COLUMNS: tuple[Column[Erasure], ...] = (
    Column("ERASURE", lambda each: each.id, is_whole=True),
    Column("WHAT", lambda each: "everything" if each.is_everything else "a subject", is_whole=True),
    Column("STATE", lambda each: each.state, is_whole=True),
    Column("ERASED", lambda each: each.erased, is_right=True, is_whole=True),
    Column("WAITING", lambda each: each.waiting, is_right=True, is_whole=True),
    Column("BEGUN", lambda each: seconds(each.created_at), is_whole=True, style="dim"),
)


@retention.command("ls", epilog=WHERE)
def list_retention(url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Show how long events are kept, by the state in which they ended. Needs the scope operate.

    [bold]Example[/]

    holdfast retention ls
    """
    with connect(find_address(url, api_key)) as client:
        show_list(iter(client.retention()), RETENTION_COLUMNS, output)


@retention.command("set", epilog=WHERE)
def set_retention(
    state: EndedIn,
    days: Annotated[int | None, typer.Option("--days", "-d", min=1, help="After their end.")] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Keep them, whatever the deployment's default is.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Make a rule for a state, or change it. Dead letters are kept until there is one. Needs the scope admin.

    [bold]Examples[/]

    holdfast retention set processed --days 30

    holdfast retention set discarded --forever
    """
    if (days is None) != forever:
        raise typer.BadParameter("give either --days or --forever")
    with connect(find_address(url, api_key)) as client:
        show_list(iter(client.put_retention(state.value, days)), RETENTION_COLUMNS, output)


@retention.command("rm", epilog=WHERE)
def remove_retention(state: EndedIn, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Remove a rule, and go by the deployment's default again. Needs the scope admin.

    [bold]Example[/]

    holdfast retention rm processed
    """
    with connect(find_address(url, api_key)) as client:
        show_list(iter(client.delete_retention(state.value)), RETENTION_COLUMNS, output)


def erase(
    subject: Annotated[
        str | None, typer.Option("--subject", "-s", help="Of the events, exactly as they were sent.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="All events of the key's tenant, whatever their subject is.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Erase what the key's tenant has of a subject, or everything: events and what belongs to them. Needs the scope admin.

    What waits is discarded first, and what runs is waited for. It takes two minutes at least; 'holdfast erasures show' says
    how far it is, and what is left.

    [bold]Example[/]

    holdfast erase --subject user-42

    holdfast erase --everything
    """
    if (subject is None) is not everything:
        raise typer.BadParameter("give either --subject or --everything")
    if not yes and not everything:
        confirm("Erase all events of this subject? They cannot be brought back.", "erased")
    with connect(find_address(url, api_key)) as client:
        if not yes and everything:
            tenant = client.tenant().name
            confirm_by_name(f"Erase all events of the tenant {tenant}? They cannot be brought back.", tenant, "erased")
        _print(client.erase_everything() if subject is None else client.erase(subject), output)


@erasures.command("ls", epilog=WHERE)
def list_erasures(
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="How many; default: all.")] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List erasures, newest first. Needs the scope admin.

    [bold]Example[/]

    holdfast erasures ls
    """
    with connect(find_address(url, api_key)) as client:
        show_list(client.erasures(limit=limit), ERASURE_COLUMNS, output, empty="nothing was erased yet")


@erasures.command(epilog=WHERE)
def show(
    erasure_id: Annotated[str, typer.Argument(metavar="ERASURE_ID", help="As 'erase' prints it.")],
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Show how far an erasure is and, at its end, what is left.

    [bold]Example[/]

    holdfast erasures show 01a20ce1-a999-7253-85bb-3c3e269307a2
    """
    with connect(find_address(url, api_key)) as client:
        _print(client.erasure(erasure_id), output)


def _print(erasure: Erasure, output: Output) -> None:
    if output is Output.json:
        print_json(erasure.raw)
        return
    print(f"{erasure.id}  {erasure.state}  {erasure.erased} erased, {erasure.waiting} waiting", flush=True)
    for what, value in (erasure.remains or {}).items():
        if value:
            print(f"  left: {what.replace('_', ' ')}: {value}", flush=True)
