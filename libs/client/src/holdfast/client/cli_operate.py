"""``holdfast replay``: send events round again."""

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from holdfast.client.cli_options import After, Before, Format, Key, Url, connect
from holdfast.client.cli_output import Output, error_fields, explain, print_error, print_json, say
from holdfast.client.cli_replays import print_replay
from holdfast.client.cli_send import read_data
from holdfast.client.connection import find_address
from holdfast.client.errors import ApiProblem
from holdfast.client.events import Accepted
from holdfast.client.http import Client
from holdfast.client.render import one_line

__all__ = ["Replayable", "act_on_each", "confirm", "confirm_by_name", "replay"]

EventIds = Annotated[list[str] | None, typer.Argument(metavar="EVENT_ID", help="One event or several.")]


class Replayable(StrEnum):
    """States out of which an event can be replayed."""

    dead = "dead"
    discarded = "discarded"
    processed = "processed"


def replay(
    event_ids: EventIds = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Other data for the replay of one processed event: JSON, @file or -."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All events in that state, without a narrower filter.")] = False,
    state: Annotated[Replayable | None, typer.Option("--state", "-s", help="Which; default dead.")] = None,
    type_: Annotated[str | None, typer.Option("--type", "-t", help="Event type.")] = None,
    source: Annotated[str | None, typer.Option(help="Who it came from.")] = None,
    error_type: Annotated[str | None, typer.Option(help="Type of the last error.")] = None,
    handler: Annotated[str | None, typer.Option(help="Handler that failed.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Fingerprint of a group of dead letters.")] = None,
    after: After = None,
    before: Before = None,
    rate: Annotated[float, typer.Option("--rate", help="Events a second.")] = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many events it would be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Replay events: those named, or, at a bounded rate, all that a filter matches.

    A dead or discarded event is queued again and gets all its attempts. A processed event is recorded again as a new one.

    [bold]Examples[/]

    holdfast replay 01a20ce1-a999-7253-85bb-3c3e269307a2

    holdfast replay --error-type KeyError --dry-run

    holdfast replay --error-type KeyError --rate 5
    """
    filters = {
        "state": state, "type": type_, "source": source, "error_type": error_type, "handler": handler,
        "fingerprint": fingerprint, "received_after": after, "received_before": before,
    }  # fmt: skip
    filter_ = {name: value for name, value in filters.items() if value is not None}
    is_many = all_ or bool(filter_.keys() - {"state"})
    if bool(event_ids) == is_many or (event_ids and filter_):
        raise typer.BadParameter("give either event ids or a filter (--error-type …, or --all for all in that state)")
    if data is not None and (is_many or len(event_ids or []) != 1):
        raise typer.BadParameter("--data goes with one event id")
    if dry_run and not is_many:
        raise typer.BadParameter("--dry-run goes with a filter")
    edit = None if data is None else {"data": read_data(data)}
    with connect(find_address(url, api_key)) as client:
        if is_many:
            if all_ and not dry_run and not yes:
                count = client.count_replay(filter_)
                confirm(f"replay {count} events, all that are {filter_.get('state', 'dead')} and match?", "replayed")
            _replay_many(client, filter_, rate, dry_run, output)
        else:
            act_on_each(event_ids or [], lambda event_id: client.replay(event_id, edit=edit), output)


def _replay_many(client: Client, filter_: dict[str, str], rate: float, dry_run: bool, output: Output) -> None:
    if not dry_run:
        print_replay(client.start_replay(filter_, rate_per_s=rate), output)
        return
    count = client.count_replay(filter_)
    if output is Output.json:
        print_json({"count": count})
    else:
        print(f"{count} events would be replayed")


def confirm(question: str, done: str) -> None:
    """Ask before something is done to many events. If stdin is not a terminal, nothing is ``done``."""
    _require_terminal(question, done)
    typer.confirm(question, abort=True, err=True)


def confirm_by_name(question: str, name: str, done: str) -> None:
    """As :func:`confirm`, of what is too much for a yes: a name has to be typed."""
    _require_terminal(one_line(question), done)
    typed = typer.prompt(f"{one_line(question)} Type {one_line(name)} to go on", err=True)
    if typed != name:
        say(f"that is not its name, so nothing was {done}")
        raise typer.Exit(1)


def _require_terminal(question: str, done: str) -> None:
    if not sys.stdin.isatty():
        say(f"{question} stdin is not a terminal, so nothing was {done}; add --yes")
        raise typer.Exit(1)


def act_on_each(event_ids: list[str], act: Callable[[str], Accepted], output: Output) -> None:
    """Act on every event. A refusal is explained on stderr, and the other events are still acted on."""
    refused = 0
    for event_id in event_ids:
        try:
            accepted = act(event_id)
        except ApiProblem as exc:
            if exc.is_temporary or exc.status in (401, 403):
                raise
            refused += 1
            if output is Output.json:
                print_error({"event_id": event_id, **error_fields(exc)})
            else:
                say(f"{event_id}: {explain(exc)}")
            continue
        if output is Output.json:
            print_json(accepted.raw)
        else:
            new = f"  (a new event for {event_id})" if accepted.event_id != event_id.lower() else ""
            print(f"{accepted.event_id}  {accepted.state}{new}")
    raise typer.Exit(1 if refused else 0)
