"""``holdfast events`` and ``holdfast dead``: show events."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from holdfast.client.cli_columns import EVENT_COLUMNS, GROUP_COLUMNS
from holdfast.client.cli_options import WHERE, After, Before, Format, Key, State, Url, connect
from holdfast.client.cli_output import Output, out, print_json
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.events import Attempt, StoredEvent
from holdfast.client.made import EventGroup, Step
from holdfast.client.render import error_words, event_line, one_line, seconds, update_line

__all__ = ["dead", "events"]

events = typer.Typer(no_args_is_help=True, help="Show events.")
dead = typer.Typer(no_args_is_help=True, help="Show dead letters: events that need an operator.")

Source = Annotated[str | None, typer.Option(help="Where it came from.")]
Type = Annotated[str | None, typer.Option("--type", "-t", help="Event type.")]
Id = Annotated[str | None, typer.Option("--id", help="The sender's id; with --source, one event.")]
Subject = Annotated[str | None, typer.Option(help="What it is about.")]
Audience = Annotated[str | None, typer.Option(help="Who sees it live.")]
Handler = Annotated[str | None, typer.Option(help="Handler of the last error.")]
Fingerprint = Annotated[
    str | None, typer.Option(help="Fingerprint of the last error, as 'holdfast dead groups' shows it.")
]
ErrorType = Annotated[str | None, typer.Option(help="Type of the last error, such as KeyError.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")]
EventId = Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event_id that 'holdfast send' prints.")]


MAX_RESULT = 200
"""Characters of a step's result on its line; JSON has all of it."""


@events.command("ls", epilog=WHERE)
def list_events(
    source: Source = None,
    id_: Id = None,
    type_: Type = None,
    state: State = None,
    subject: Subject = None,
    audience: Audience = None,
    error_type: ErrorType = None,
    handler: Handler = None,
    fingerprint: Fingerprint = None,
    request_id: Annotated[str | None, typer.Option(help="The x-request-id of the POST that brought it.")] = None,
    trace_id: Annotated[
        str | None, typer.Option(help="Of the trace that it belongs to: 32 hexadecimal digits.")
    ] = None,
    parent_id: Annotated[str | None, typer.Option(help="Emitted by the handler of this event.")] = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 50,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List events, newest first.

    [bold]Examples[/]

    holdfast events ls --state failed

    holdfast events ls --trace-id 4bf92f3577b34da6a3ce929d0e0e4736

    holdfast events ls --audience user-42 --after 1h -o json | jq -r .event_id
    """
    filters = {
        "source": source, "id": id_, "type": type_, "state": state, "subject": subject, "audience": audience,
        "error_type": error_type, "handler": handler, "fingerprint": fingerprint, "request_id": request_id,
        "trace_id": trace_id, "parent_id": parent_id, "received_after": after, "received_before": before,
    }  # fmt: skip
    _print_events(url, api_key, output, limit, filters)


@events.command(epilog=WHERE)
def show(
    event_id: EventId,
    attempts: Annotated[bool, typer.Option("--attempts", help="With the tracebacks of failed attempts.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="With what its handler's steps have stored.")] = False,
    groups_: Annotated[bool, typer.Option("--groups", help="With the groups of events that it made.")] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Show one event with its timeline and data.

    [bold]Examples[/]

    holdfast events show 01a20ce1-a999-7253-85bb-3c3e269307a2 --attempts

    holdfast events show 01a20ce1-a999-7253-85bb-3c3e269307a2 --steps --groups -o json | jq .groups
    """
    with connect(find_address(url, api_key)) as client:
        event = client.get(event_id, include=["data", *(["attempts"] if attempts else []), "timeline"])
        made_steps = client.steps(event_id) if steps else None
        made_groups = client.groups(event_id) if groups_ else None
    if output is Output.json:
        beside = {"steps": made_steps, "groups": made_groups}
        shown = {name: [each.raw for each in found] for name, found in beside.items() if found is not None}
        print_json({**event.raw, **shown})
        return
    _print_event(event, made_steps or (), made_groups or ())


@events.command(epilog=WHERE)
def data(event_id: EventId, url: Url = None, api_key: Key = None) -> None:
    """Write an event's data to standard output, byte by byte as it was sent. Nothing for an event without data.

    [bold]Example[/]

    holdfast events data 01a20ce1-a999-7253-85bb-3c3e269307a2 > order.json
    """
    with connect(find_address(url, api_key)) as client:
        content = client.data(event_id)
    sys.stdout.buffer.write(content or b"")


@events.command(epilog=WHERE)
def wait(
    event_id: EventId,
    timeout_seconds: Annotated[float, typer.Option("--timeout", min=0, help="Longest wait, in seconds.")] = 60.0,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Wait until an event is processed, dead or discarded. Exit status 1 unless it was processed.

    [bold]Example[/]

    holdfast events wait "$(holdfast send -t com.acme.order.placed -o json | jq -r .event_id)"
    """
    with connect(find_address(url, api_key)) as client:
        event = client.wait(event_id, timeout_seconds)
    if output is Output.json:
        print_json(event.raw)
    else:
        out.print(event_line(event))
    raise typer.Exit(0 if event.state == "processed" else 1)


@dead.command("ls", epilog=WHERE)
def list_dead(
    source: Source = None,
    id_: Id = None,
    type_: Type = None,
    subject: Subject = None,
    audience: Audience = None,
    error_type: ErrorType = None,
    handler: Handler = None,
    fingerprint: Fingerprint = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 50,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List dead letters, newest first.

    [bold]Examples[/]

    holdfast dead ls --error-type KeyError --after 1h

    holdfast dead ls --handler book-order -o json | jq -r .event_id
    """
    filters = {
        "state": "dead", "source": source, "id": id_, "type": type_, "subject": subject, "audience": audience,
        "error_type": error_type, "handler": handler, "fingerprint": fingerprint, "received_after": after,
        "received_before": before,
    }  # fmt: skip
    _print_events(url, api_key, output, limit, filters)


@dead.command(epilog=WHERE)
def groups(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many, the largest first.")] = 50,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Show what kills events: dead letters by handler, error type and fingerprint.

    [bold]Example[/]

    holdfast dead groups
    """
    with connect(find_address(url, api_key)) as client:
        show_list(client.dead_letters(limit=limit), GROUP_COLUMNS, output, empty="there are no dead letters")


def _print_events(
    url: str | None, api_key: str | None, output: Output, limit: int, filters: dict[str, str | None]
) -> None:
    with connect(find_address(url, api_key)) as client:
        show_list(client.events(limit=limit, **filters), EVENT_COLUMNS, output, empty="no event matches")


def _print_event(event: StoredEvent, steps: Iterable[Step], groups: Iterable[EventGroup]) -> None:
    attributes = event.cloudevent
    out.print(Text.assemble((one_line(attributes["type"]), "bold"), f"  {event.event_id}"))
    for name in ("source", "id", "subject", "audience", "time"):
        if name in attributes:
            out.print(Text(f"{name:<10}{one_line(attributes[name])}"))
    for name, value in (("request", event.request_id), ("trace", event.trace_id)):
        if value:
            out.print(Text(f"{name:<10}{one_line(value)}"))
    if event.replay_of:
        out.print(Text(f"replay of {event.replay_of}"))
    if event.parent_id:
        out.print(Text(f"emitted by {event.parent_id}"))
    out.print(Text(f"{'state':<10}{event.state} (version {event.version}, attempt {event.attempt})"))
    for entry in event.timeline or ():
        out.print(update_line({"type": attributes["type"], "id": event.event_id, **entry.raw}))
    for attempt in event.attempts or ():
        _print_attempt(attempt)
    for step in steps:
        out.print(_step_line(step))
    for group in groups:
        out.print(_group_line(group))
    if "data" in attributes:
        out.print_json(data=attributes["data"])


def _step_line(step: Step) -> Text:
    line = Text.assemble((f"{'sleep' if step.wake_at else 'step':<10}", ""), (one_line(step.name), "bold"))
    if step.wake_at:
        line.append(f" until {seconds(step.wake_at)}")
    else:
        line.append(f" in {step.duration_ms} ms")
    line.append(f", attempt {step.attempt} of {one_line(step.handler)}", "dim")
    if step.result is not None:
        line.append(f": {one_line(json.dumps(step.result, ensure_ascii=False))[:MAX_RESULT]}")
    return line


def _group_line(group: EventGroup) -> Text:
    then = f"followed at {seconds(group.completed_at)} by" if group.completed_at else "then comes"
    counts = f"{group.open} open, {group.processed} processed, {group.dead} dead, {group.discarded} discarded"
    return Text(f"{'group':<10}{counts} of {group.size}; {then} {one_line(group.type)}")


def _print_attempt(attempt: Attempt) -> None:
    error = attempt.error
    what = error_words(error.type, error.message) if error else "processed"
    out.print(Text(f"attempt {attempt.attempt} by {attempt.handler}: {what}", "bold"))
    # Line by line: a traceback has line breaks, and nothing else in it may move the cursor.
    for line in ((error and error.traceback) or "").splitlines():
        out.print(Text(f"    {one_line(line)}", "dim"))
