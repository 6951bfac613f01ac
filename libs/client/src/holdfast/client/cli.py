"""The ``holdfast`` command."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from holdfast.client import VERSION, Client, ClientError, Gap, Status, UpdateReceived, watch
from holdfast.client.connection import find_address
from holdfast.client.errors import ApiProblem
from holdfast.client.render import update_line

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Send events to Holdfast and watch what becomes of them."
)
events = typer.Typer(no_args_is_help=True, help="Look at events.")
keys = typer.Typer(no_args_is_help=True, help="Create and revoke API keys; needs the database (HOLDFAST_DATABASE_URL).")
app.add_typer(events, name="events")
app.add_typer(keys, name="keys")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Url = Annotated[str | None, typer.Option("--url", envvar="HOLDFAST_URL", help="Address of ingest.")]
Key = Annotated[str | None, typer.Option("--api-key", envvar="HOLDFAST_API_KEY", help="An API key, hf_….")]
LiveUrl = Annotated[str | None, typer.Option("--live-url", envvar="HOLDFAST_LIVE_URL", help="ws://…/v1/live")]


class Output(StrEnum):
    table = "table"
    json = "json"


Format = Annotated[Output, typer.Option("-o", "--output", help="For people, or JSON lines for programs.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(f"holdfast {VERSION}")
        raise typer.Exit


@app.command()
def send(
    type_: Annotated[
        str | None, typer.Option("--type", "-t", help="Event type, such as com.acme.order.placed.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @file, or - for standard input.")] = None,
    source: Annotated[str, typer.Option(help="Who it comes from.")] = "/holdfast/cli",
    subject: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    audience: Annotated[
        str | None, typer.Option(help="Who should see it live; becomes the topic audience:<value>.")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Identity, with the source; sending one twice is harmless.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="CloudEvents, one JSON object a line; - for stdin.")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Send one event, or a file of them.

    Examples:

      holdfast send --type com.acme.order.placed --data '{"order_id": "1"}' --audience user-42

      holdfast send --file events.jsonl
    """
    if (file is None) == (type_ is None):
        raise typer.BadParameter("give either --type (one event) or --file (many)")
    attributes = {"type": type_, "source": source, "subject": subject, "audience": audience, "id": id_}
    one = {name: value for name, value in attributes.items() if value is not None}
    if data is not None:
        one["data"] = _read_data(data)
    with _client(url, api_key) as client:
        if file is None:
            _print_sent(client.send(one), output)
        else:
            _send_file(client, file, output)


@app.command(name="watch")
def watch_command(
    topics: Annotated[list[str] | None, typer.Argument(help="event:<id>, audience:<value>, tenant:<id>")] = None,
    url: Url = None,
    api_key: Key = None,
    live_url: LiveUrl = None,
    until_settled: Annotated[int | None, typer.Option(help="Stop after so many processed or dead events.")] = None,
    output: Format = Output.table,
) -> None:
    """Show updates of topics as they happen, until Ctrl-C. Reconnects and misses nothing.

    Example: holdfast watch audience:user-42
    """
    if not topics:
        raise typer.BadParameter("name at least one topic: event:<id>, audience:<value> or tenant:<id>")
    address = find_address(url, api_key, live_url)
    with _client(url, api_key) as client:
        token = client.token(topics)
        where = address.live_url or token.live_url
        if where is None:
            raise typer.BadParameter("nobody says where the gateway is: give --live-url ws://…/v1/live")
        show = _print_json if output is Output.json else _print_update
        asyncio.run(_watch(where, lambda: client.token(topics).token, topics, show, until_settled))


@events.command()
def show(event_id: str, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Show one event with its data and timeline."""
    with _client(url, api_key) as client:
        view = client.get(event_id, include=["data", "timeline"])
    if output is Output.json:
        return print(json.dumps(view, ensure_ascii=False))
    event = view["event"]
    out.print(f"[bold]{event['type']}[/] {view['event_id']}\nsource {event['source']}  id {event['id']}")
    out.print(f"{view['state']} (version {view['version']}, attempt {view['attempt']})")
    for entry in view["timeline"]:
        out.print(update_line({**entry, "type": event["type"], "id": view["event_id"]}))
    if "data" in event:
        out.print_json(data=event["data"])
    return None


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose events the key is for.")],
    name: Annotated[str, typer.Option(help="Whose key it is.")],
    scope: Annotated[list[str] | None, typer.Option(help="Repeatable; default events:write and events:read.")] = None,
) -> None:
    """Create an API key and print it, once.

    Example: holdfast keys create --tenant acme --name shop-backend
    """
    arguments = ["keys", "create", "--tenant", tenant, "--name", name]
    for each in scope or []:
        arguments += ["--scope", each]
    _admin(arguments)


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The part between 'hf_' and the next '_'.")]) -> None:
    """Revoke an API key; it stops working within a minute."""
    _admin(["keys", "revoke", key_id])


@app.command()
def migrate(wait_seconds: Annotated[float, typer.Option(help="How long to wait for the database.")] = 60.0) -> None:
    """Apply missing database migrations; needs HOLDFAST_DATABASE_URL."""
    _admin(["migrate", "--wait-seconds", str(wait_seconds)])


def main() -> None:
    """Entry point: expected failures are one line on stderr and exit status 1."""
    try:
        app()
    except ClientError as exc:
        err.print(f"[red]{type(exc).__name__}[/]: {exc}")
        for fault in getattr(exc, "errors", []):
            err.print(f"  {fault.get('pointer') or fault.get('header') or ''}: {fault.get('detail')}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _client(url: str | None, api_key: str | None) -> Client:
    address = find_address(url, api_key, None)
    if address.url is None or address.api_key is None:
        raise typer.BadParameter(
            "nobody says where Holdfast is: set HOLDFAST_URL and HOLDFAST_API_KEY, or start a local stack with 'make up'"
        )
    return Client(address.url, address.api_key)


def _read_data(data: str) -> Any:
    text = sys.stdin.read() if data == "-" else Path(data[1:]).read_text() if data.startswith("@") else data
    try:
        return json.loads(text)
    except ValueError as exc:
        raise typer.BadParameter(f"--data is not JSON: {exc}") from exc


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = sys.stdin if str(file) == "-" else file.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as exc:
                raise typer.BadParameter(f"{file}, line {number} is not JSON: {exc}") from exc


def _send_file(client: Client, file: Path, output: Output) -> None:
    accepted = duplicates = rejected = 0
    for number, event in track(list(_lines(file)), "sending", console=err, disable=not err.is_terminal, transient=True):
        try:
            sent = client.send(event)
        except ApiProblem as exc:
            rejected += 1
            err.print(f"line {number}: {exc}")
            continue
        accepted += 1
        duplicates += sent.is_duplicate
        if output is Output.json:
            _print_sent(sent, output)
    err.print(f"accepted {accepted} (of which {duplicates} duplicates), rejected {rejected}")
    if rejected:
        raise typer.Exit(1)


def _print_sent(sent: Any, output: Output) -> None:
    if output is Output.json:
        return print(json.dumps({name: getattr(sent, name) for name in sent.__slots__}))
    note = "  (a duplicate: nothing changed)" if sent.is_duplicate else ""
    return print(f"{sent.event_id}  {sent.state}{note}")


async def _watch(
    live_url: str,
    token: Callable[[], str],
    topics: list[str],
    show: Callable[[UpdateReceived], None],
    until: int | None,
) -> None:
    settled: set[str] = set()
    async for frame in watch(live_url, token, topics=topics):
        if isinstance(frame, UpdateReceived):
            show(frame)
            if frame.event["state"] in ("processed", "dead"):
                settled.add(frame.event["id"])
            if until is not None and len(settled) >= until:
                return
        elif isinstance(frame, Gap):
            err.print(f"[yellow]gap[/] in {frame.topic} ({frame.reason}): refetch what you show")
        elif isinstance(frame, Status):
            err.print(f"live updates are {frame.state}")


def _print_update(frame: UpdateReceived) -> None:
    out.print(update_line(frame.event))


def _print_json(frame: UpdateReceived) -> None:
    print(json.dumps({"topic": frame.topic, "pos": frame.pos, "event": frame.event}, ensure_ascii=False), flush=True)


def _admin(arguments: list[str]) -> None:
    try:
        from holdfast.storage.__main__ import main as storage_main
    except ImportError as exc:
        err.print("this command needs the database packages: pip install 'holdfast-client[admin]'")
        raise typer.Exit(1) from exc
    raise typer.Exit(storage_main(arguments))


if __name__ == "__main__":
    main()
