"""``holdfast cancel``: end events that run."""

from typing import Annotated

import typer

from holdfast.client.cli_operate import act_on_each
from holdfast.client.cli_options import Format, Key, Url, connect
from holdfast.client.cli_output import Output, say
from holdfast.client.connection import find_address
from holdfast.client.errors import WaitTimedOut
from holdfast.client.events import Accepted
from holdfast.client.http import Client

__all__ = ["cancel"]

EventIds = Annotated[list[str], typer.Argument(metavar="EVENT_ID", help="One event or several.")]


def cancel(
    event_ids: EventIds,
    wait: Annotated[float, typer.Option(min=0, help="Wait this many seconds for each one to have ended.")] = 10.0,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Cancel events: the handler of one that runs is ended, its effects undone; one that waits is discarded.

    A handler without a transaction is asked to stop first and has five seconds for it. One that ends by itself at that
    moment is faster, and the event is then processed, say. A cancelled event can be replayed.

    [bold]Examples[/]

    holdfast cancel 01a20ce1-a999-7253-85bb-3c3e269307a2

    holdfast cancel 01a20ce1-a999-7253-85bb-3c3e269307a2 --wait 0
    """
    with connect(find_address(url, api_key)) as client:
        act_on_each(event_ids, lambda event_id: _cancel(client, event_id, wait), output)


def _cancel(client: Client, event_id: str, wait_seconds: float) -> Accepted:
    accepted = client.cancel(event_id)
    if accepted.state != "processing" or not wait_seconds:
        return accepted
    try:
        ended = client.wait(event_id, wait_seconds)
    except WaitTimedOut as exc:
        say(f"{exc}; it ends as soon as its handler can be reached, or its worker is found to be lost")
        return accepted
    return Accepted.read({**accepted.raw, "state": ended.state, "version": ended.version})
