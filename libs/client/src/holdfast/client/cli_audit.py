"""``holdfast audit``: who did what, when, and from where."""

from typing import Annotated

import typer

from holdfast.client.cli_columns import AUDIT_COLUMNS
from holdfast.client.cli_options import Format, Key, Url, connect
from holdfast.client.cli_output import Output
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address

__all__ = ["audit"]


def audit(
    action: Annotated[
        str | None, typer.Option(help="Such as replay, discard, start_replay, create_key or revoke_subject.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Name or id of a key or a person.")] = None,
    event: Annotated[str | None, typer.Option("--event", "-e", help="Event id.")] = None,
    replay: Annotated[str | None, typer.Option("--replay", help="Id of a replay or a discard by filter.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="At or after this time: 2026-11-24T09:30:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 50,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Show who did what, when, and from where, newest first. Needs the scope operate.

    [bold]Examples[/]

    holdfast audit --actor ann

    holdfast audit --action start_replay --since 2026-11-24T00:00:00Z

    holdfast audit --event 01a20ce1-a999-7253-85bb-3c3e269307a2 -o json
    """
    filters = {
        "action": action, "actor": actor, "event_id": event, "replay_id": replay, "since": since, "until": until,
    }  # fmt: skip
    with connect(find_address(url, api_key)) as client:
        show_list(client.audit(limit=limit, **filters), AUDIT_COLUMNS, output, empty="nothing is noted")
