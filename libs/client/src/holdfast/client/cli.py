"""The ``holdfast`` command."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.client import VERSION, ClientError, cli_events, cli_operate, cli_tokens
from holdfast.client.cli_options import WHERE, Format, Key, LiveUrl, Url, connect
from holdfast.client.cli_output import Output, explain, say
from holdfast.client.cli_send import print_sent, read_data, send_file
from holdfast.client.cli_watch import Follower, grants_for, printer, topics_of
from holdfast.client.connection import find_address

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, epilog=WHERE, rich_markup_mode="rich",
    help="Send events to Holdfast and watch how they are processed.",
)  # fmt: skip
keys = typer.Typer(no_args_is_help=True, help="Create and revoke API keys; needs the database (HOLDFAST_DATABASE_URL).")


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

    holdfast send --file events.jsonl
    """
    attributes = {"type": type_, "source": source, "subject": subject, "audience": audience, "id": id_}
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
app.command(epilog=WHERE)(cli_operate.discard)
app.add_typer(cli_events.events, name="events")
app.add_typer(cli_events.dead, name="dead")
app.add_typer(cli_operate.replays, name="replays")
app.add_typer(cli_tokens.tokens, name="token")
app.add_typer(keys, name="keys")


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant whose events the key is for.")],
    name: Annotated[str, typer.Option(help="A name for the key, such as that of its user.")],
    scope: Annotated[list[str] | None, typer.Option(help="Repeatable; default events:write and events:read.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 12h or 90d; default: never.")] = None,
) -> None:
    """Create an API key and print it, once.

    [bold]Example[/]

    HOLDFAST_DATABASE_URL=postgresql://… holdfast keys create --tenant acme --name shop-backend
    """
    arguments = ["keys", "create", "--tenant", tenant, "--name", name]
    for each in scope or []:
        arguments += ["--scope", each]
    if expires is not None:
        arguments += ["--expires", expires]
    _admin(arguments)


@keys.command("ls")
def list_keys(tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None) -> None:
    """List API keys, the newest first: scopes, when they were created and last used, when they expire."""
    _admin(["keys", "ls", *([] if tenant is None else ["--tenant", tenant])])


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The part between 'hf_' and the next '_'.")]) -> None:
    """Revoke an API key; it stops working within a minute."""
    _admin(["keys", "revoke", key_id])


@app.command()
def migrate(wait_seconds: Annotated[float, typer.Option(help="How long to wait for the database.")] = 60.0) -> None:
    """Apply missing database migrations; needs HOLDFAST_DATABASE_URL."""
    _admin(["migrate", "--wait-seconds", str(wait_seconds)])


def main(arguments: list[str] | None = None) -> None:
    """Entry point: expected failures are a few lines on stderr and exit status 1."""
    try:
        app(arguments, prog_name="holdfast")
    except ClientError as exc:
        say(explain(exc), "red")
        sys.exit(1)


def _admin(arguments: list[str]) -> None:
    """Run a command of the storage package, which only the extra ``admin`` installs."""
    try:
        from holdfast.storage.__main__ import main as storage_main
    except ModuleNotFoundError as exc:
        say(f"this command needs the database packages ({exc}): pip install 'holdfast-client[admin]'", "red")
        raise typer.Exit(1) from exc
    raise typer.Exit(storage_main(arguments))


if __name__ == "__main__":
    main()
