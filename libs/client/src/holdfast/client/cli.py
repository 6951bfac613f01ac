"""The ``holdfast`` command."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from holdfast.client import (
    VERSION,
    ClientError,
    cli_audit,
    cli_cancel,
    cli_completion,
    cli_develop,
    cli_discard,
    cli_doctor,
    cli_events,
    cli_keeping,
    cli_keys,
    cli_operate,
    cli_pauses,
    cli_replays,
    cli_schedules,
    cli_stats,
    cli_tenants,
    cli_tokens,
    cli_workers,
)
from holdfast.client.cli_database import run_on_database
from holdfast.client.cli_options import (
    WHERE,
    Debounce,
    DebounceKey,
    DebounceMax,
    Format,
    Key,
    LiveUrl,
    Unique,
    UniqueKey,
    Url,
    connect,
    window_attributes,
)
from holdfast.client.cli_output import Output, asks_for_json, error_fields, explain, print_error, say
from holdfast.client.cli_send import print_sent, read_data, send_file
from holdfast.client.cli_watch import Follower, grants_for, printer, topics_of
from holdfast.client.connection import find_address

__all__ = ["app", "main"]

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])
"""What typer raises for a wrong command line; it does not export it."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, epilog=WHERE, rich_markup_mode="rich",
    help="Send events to Holdfast and watch how they are processed.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"holdfast {VERSION}")
        raise typer.Exit


@app.command(epilog=WHERE)
def send(
    type_: Annotated[
        str | None, typer.Option("--type", "-t", help="Event type, such as com.acme.order.placed.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @file, or - for standard input.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from; default /holdfast/cli.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    audience: Annotated[
        str | None, typer.Option(help="Who should see it live; becomes the topic audience:<value>.")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Identity, with the source; sending one twice is harmless.")
    ] = None,
    debounce: Debounce = None,
    debounce_key: DebounceKey = None,
    debounce_max: DebounceMax = None,
    unique: Unique = None,
    unique_key: UniqueKey = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="CloudEvents, one JSON object per line; - for standard input."),
    ] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Send one event, or a file of them.

    Exit status 1: an event was rejected; stderr names it and the reason.

    [bold]Examples[/]

    holdfast send --type com.acme.order.placed --data '{"order_id": "1"}' --audience user-42

    holdfast send --type com.acme.order.placed --data @order.json --source /shop --id order-1

    holdfast send --type com.acme.index.stale --subject doc-1 --debounce 30

    holdfast send --file events.jsonl
    """
    attributes = {
        "type": type_, "source": source, "subject": subject, "audience": audience, "id": id_,
        **window_attributes(debounce, debounce_key, debounce_max, unique, unique_key),
    }  # fmt: skip
    one: dict[str, Any] = {name: value for name, value in attributes.items() if value is not None}
    if (file is None) == (type_ is None):
        raise typer.BadParameter("give either --type (one event) or --file (many)")
    if file is not None and (one or data is not None):
        raise typer.BadParameter(
            "the events in a --file have their own attributes and data; use --file without --data and attributes"
        )
    with connect(find_address(url, api_key)) as client:
        if file is not None:
            raise typer.Exit(1 if send_file(client, file, output).rejected else 0)
        if data is not None:
            one["data"] = read_data(data)
        print_sent(client.send({"source": "/holdfast/cli", **one}), output)


@app.command(name="watch", epilog=WHERE)
def watch_command(
    topics: Annotated[
        list[str] | None, typer.Argument(metavar="TOPIC", help="audience:<value>, tenant:<id> or event:<id>.")
    ] = None,
    event: Annotated[list[str] | None, typer.Option("--event", "-e", help="Event id; repeatable.")] = None,
    until_settled: Annotated[
        int | None,
        typer.Option(min=1, metavar="COUNT", help="Stop after this many processed, dead or discarded events."),
    ] = None,
    url: Url = None,
    api_key: Key = None,
    live_url: LiveUrl = None,
    output: Format = Output.table,
) -> None:
    """Show updates as they happen, until Ctrl-C. Reconnects by itself, and says so if updates were missed.

    For an --event, what has happened so far comes first.

    [bold]Examples[/]

    holdfast watch audience:user-42

    holdfast watch tenant:acme -o json | jq .event.state

    holdfast watch --event 01a20ce1-a999-7253-85bb-3c3e269307a2 --until-settled 1
    """
    names = topics_of(topics or [], event or [])
    if not names:
        raise typer.BadParameter(
            "name at least one topic: audience:<value>, tenant:<your tenant>, or --event <event id>"
        )
    address = find_address(url, api_key, live_url)
    with connect(address) as client:
        token = client.token(grants_for(names))
        where = address.live_url or token.live_url
        if where is None:
            raise typer.BadParameter("the gateway's address is unknown: give --live-url ws://…/v1/live")
        follower = Follower(client, printer(output), until_settled=until_settled)
        asyncio.run(follower.follow(where, lambda: client.token(grants_for(names)).token, names))


app.command(epilog=WHERE)(cli_operate.replay)
app.command(epilog=WHERE)(cli_discard.discard)
app.command(epilog=WHERE)(cli_cancel.cancel)
app.command(epilog=WHERE)(cli_workers.why)
app.command(epilog=WHERE)(cli_audit.audit)
app.add_typer(cli_events.events, name="events")
app.add_typer(cli_events.dead, name="dead")
app.add_typer(cli_replays.replays, name="replays")
app.add_typer(cli_schedules.schedules, name="schedules")
app.add_typer(cli_keeping.retention, name="retention")
app.command(epilog=WHERE)(cli_keeping.erase)
app.add_typer(cli_keeping.erasures, name="erasures")
app.add_typer(cli_workers.workers, name="workers")
app.add_typer(cli_tokens.tokens, name="token")
app.add_typer(cli_keys.keys, name="keys")
app.add_typer(cli_tenants.tenants, name="tenants")
cli_stats.register(app)
cli_pauses.register(app)
app.command(epilog=WHERE)(cli_doctor.doctor)
app.command()(cli_completion.completion)
app.command()(cli_develop.dev)
cli_stats.handlers.command()(cli_develop.check)


@app.command()
def migrate(wait_seconds: Annotated[float, typer.Option(help="How long to wait for the database.")] = 60.0) -> None:
    """Apply missing database migrations; needs HOLDFAST_DATABASE_URL."""
    run_on_database(["migrate", "--wait-seconds", str(wait_seconds)])


def main(arguments: list[str] | None = None) -> None:
    """Entry point: expected failures are a few lines on stderr, or with ``-o json`` a JSON line, and exit status 1; a wrong
    option is exit status 2.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if asks_for_json(arguments):
        sys.exit(_for_programs(arguments))
    try:
        app(arguments, prog_name="holdfast")
    except ClientError as exc:
        say(explain(exc), "red")
        sys.exit(1)


def _for_programs(arguments: list[str]) -> int:
    """Run with errors as JSON on stderr; returns the exit status."""
    try:
        return app(arguments, prog_name="holdfast", standalone_mode=False) or 0
    except ClientError as exc:
        fields, status = error_fields(exc), 1
    except UsageError as exc:
        fields, status = {"code": "usage", "detail": exc.format_message()}, exc.exit_code
    except typer.Abort:
        fields, status = {"code": "aborted", "detail": "nothing was done"}, 1
    print_error(fields | {"exit_status": status})
    return status


if __name__ == "__main__":
    main()
