"""``holdfast stats`` and ``holdfast handlers ls``: what happens, and how handlers do."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, explain, out, print_json
from holdfast.client.connection import find_address
from holdfast.client.errors import ClientError, Unreachable
from holdfast.client.http import Client
from holdfast.client.keyboard import keys
from holdfast.client.render_stats import handlers_table, page

__all__ = ["Window", "handlers", "list_handlers", "register", "stats"]

EVERY_SECONDS = 2.0

LINES_ABOVE = 12
"""Of the terminal, that handlers have no place in."""

handlers = typer.Typer(
    no_args_is_help=True, help="Show handlers: how often they run, fail, and how long they take. Check their code."
)


class Window(StrEnum):
    """A span of time until now."""

    hour = "hour"
    day = "day"
    quarter = "quarter"


Over = Annotated[Window, typer.Option("--window", "-w", help="hour, day, or quarter (90 days).")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog=WHERE)(stats)
    app.add_typer(handlers, name="handlers")


def stats(url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Show rates, the last hour and handlers; at a terminal live, every two seconds, until q.

    Elsewhere, and as JSON, what stands now is printed once.

    [bold]Examples[/]

    holdfast stats

    holdfast stats -o json | jq .stats.per_second
    """
    with connect(find_address(url, api_key)) as client:
        if output is Output.json:
            print_json({"stats": client.stats().raw, "handlers": client.handlers().raw})
        elif out.is_terminal:
            _follow(client)
        else:
            out.print(page(client.stats(), client.handlers()))


@handlers.command("ls", epilog=WHERE)
def list_handlers(
    window: Over = Window.hour, url: Url = None, api_key: Key = None, output: Format = Output.table
) -> None:
    """List handlers, the busiest first, and the types that nobody serves.

    [bold]Examples[/]

    holdfast handlers ls --window day

    holdfast handlers ls -o json | jq -r 'select(.run.p95_ms > 1000) | .name'
    """
    with connect(find_address(url, api_key)) as client:
        found = client.handlers(window)
    if output is Output.table:
        out.print(handlers_table(found))
        return
    for item in found.items:
        print_json(item.raw)


def _follow(client: Client) -> None:
    """Until q. An outage is shown, and is over by itself; what is wrong with the request ends the command."""
    shown: RenderableType = Text("")
    with keys() as wait, Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = page(client.stats(), client.handlers(), limit=max(1, out.height - LINES_ABOVE))
                above: list[RenderableType] = []
            except ClientError as exc:
                if not isinstance(exc, Unreachable):
                    raise
                above = [Text(explain(exc), "yellow")]
            live.update(Group(*above, shown, Text("q to leave", "dim")), refresh=True)
            if wait(EVERY_SECONDS) in ("q", "Q"):
                return
