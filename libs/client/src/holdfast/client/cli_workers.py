"""``holdfast workers`` and ``holdfast why``: what runs where, and what an event waits for."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from holdfast.client.cli_columns import node_columns, run_columns
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, out, print_json, say
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.http import Client
from holdfast.client.nodes import Node, Waiting
from holdfast.client.render import STYLES, one_line

__all__ = ["why", "workers"]

workers = typer.Typer(no_args_is_help=True, help="Show what runs where, and let a processor take nothing new.")

NodeId = Annotated[
    str, typer.Argument(metavar="NODE", help="Id of a node, or its beginning, as 'workers ls' shows it.")
]

POLL_SECONDS = 1.0


@workers.command("ls", epilog=WHERE)
def list_workers(
    running: Annotated[bool, typer.Option("--running", help="With the events that handlers have now.")] = False,
    types: Annotated[bool, typer.Option("--types", help="With the event types that each node serves.")] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List the nodes: every running service, with its busy and all slots. Needs the scope operate.

    A node that has said nothing for half a minute is stale: it was killed, is cut off, or is frozen.

    [bold]Examples[/]

    holdfast workers ls --running

    holdfast workers ls -o json | jq -r 'select(.state == "stale") | .host'
    """
    with connect(find_address(url, api_key)) as client:
        listed = client.workers()
    now = datetime.now(UTC)
    show_list(
        listed, node_columns(now, with_types=types), output, empty="no service was heard of in the last ten minutes"
    )
    if running and output is Output.table:
        out.print()
        held = [(node, worker, run) for node in listed for worker in node.workers for run in worker.running]
        show_list(held, run_columns(now), output, empty="handlers have no event of yours now")
        if others := sum(worker.running_for_others for node in listed for worker in node.workers):
            out.print(Text(f"and {others} of other tenants", "dim"))


@workers.command(epilog=WHERE)
def drain(
    node: NodeId,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has nothing left.")] = False,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", min=0, help="With --wait: the longest wait, in seconds.")
    ] = 600.0,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Let a processor finish what it has and take nothing new, until it is undrained or restarted. Needs the scope admin.

    Exit status 1 with --wait: it is not idle after the time.

    [bold]Example[/]

    holdfast workers drain 3f9c21ab77d0 --wait
    """
    with connect(find_address(url, api_key)) as client:
        found = client.drain(_resolve(client, node))
        if wait:
            found = _until_idle(client, found, timeout_seconds, output)
    _print_node(found, output)
    raise typer.Exit(1 if wait and found.state == "draining" else 0)


@workers.command(epilog=WHERE)
def undrain(node: NodeId, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Let a drained processor take events again. Needs the scope admin.

    [bold]Example[/]

    holdfast workers undrain 3f9c21ab77d0
    """
    with connect(find_address(url, api_key)) as client:
        found = client.undrain(_resolve(client, node))
    _print_node(found, output)


def why(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event_id that 'holdfast send' prints.")],
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Say why an event has not been processed yet, and what it waits for.

    [bold]Example[/]

    holdfast why 01a20ce1-a999-7253-85bb-3c3e269307a2
    """
    with connect(find_address(url, api_key)) as client:
        event = client.get(event_id)
    if output is Output.json:
        print_json({"event_id": event.event_id, "state": event.state, "waiting": event.raw.get("waiting")})
        return
    out.print(Text.assemble((event.state, STYLES.get(event.state, "")), f"  {event.event_id}"))
    if event.waiting is None:
        out.print(Text("it waits for nothing: it is done with"))
    else:
        _print_waiting(event.waiting)


def _print_waiting(waiting: Waiting) -> None:
    out.print(Text(one_line(waiting.summary), "bold"))
    facts = {"reason": waiting.reason, **_flat(waiting.facts)}
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            out.print(Text(f"  {name:<{width}}  {one_line(str(value))}"))


def _flat(facts: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _resolve(client: Client, text: str) -> str:
    """The id of the one node whose id begins so; the text itself where it is none or several: the API says so."""
    found = [node.node_id for node in client.workers() if text and node.node_id.startswith(text)]
    return found[0] if len(found) == 1 else text


def _until_idle(client: Client, node: Node, timeout_seconds: float, output: Output) -> Node:
    deadline, told = time.monotonic() + timeout_seconds, ""
    while node.state == "draining" and time.monotonic() < deadline:
        if (progress := f"{node.busy} of {node.slots} slots busy") != told and output is not Output.json:
            say(f"{node.node_id} on {one_line(node.host)} is draining: {progress}")
            told = progress
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        node = client.worker(node.node_id)
    return node


def _print_node(node: Node, output: Output) -> None:
    if output is Output.json:
        print_json(node.raw)
    else:
        print(f"{node.node_id}  {one_line(node.host)}  {node.state}  {node.busy} of {node.slots} slots busy")
