"""``holdfast discard``: give events up, those named or all that a filter matches."""

from typing import Annotated

import typer

from holdfast.client.cli_operate import act_on_each, confirm
from holdfast.client.cli_options import After, Before, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json
from holdfast.client.connection import find_address
from holdfast.client.http import Client
from holdfast.client.replays import DiscardProgress

__all__ = ["discard"]

RUNS = "processing"

EventIds = Annotated[list[str] | None, typer.Argument(metavar="EVENT_ID", help="One event or several.")]


def discard(
    event_ids: EventIds = None,
    all_: Annotated[bool, typer.Option("--all", help="All events in that state, without a narrower filter.")] = False,
    state: Annotated[
        str | None, typer.Option("--state", "-s", help="dead (default), queued, failed or processing.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", "-t", help="Event type.")] = None,
    source: Annotated[str | None, typer.Option(help="Who it came from.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    error_type: Annotated[str | None, typer.Option(help="Type of the last error.")] = None,
    handler: Annotated[str | None, typer.Option(help="Handler that failed.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Fingerprint of a group of dead letters.")] = None,
    after: After = None,
    before: Before = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many events it would be.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With a filter: do not ask.")] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Discard events that are queued, failed or dead: those named, or all that a filter matches, once counted and confirmed.

    Events that run (--state processing) are cancelled: each ends within a second or so, unless it is done by then.

    A discarded event can still be replayed.

    [bold]Examples[/]

    holdfast discard 01a20ce1-a999-7253-85bb-3c3e269307a2

    holdfast discard --error-type KeyError --dry-run

    holdfast discard --error-type KeyError

    holdfast discard --state processing --type com.acme.report
    """
    filters = {
        "state": state, "type": type_, "source": source, "subject": subject, "error_type": error_type, "handler": handler,
        "fingerprint": fingerprint, "received_after": after, "received_before": before,
    }  # fmt: skip
    filter_ = {name: value for name, value in filters.items() if value is not None}
    is_many = all_ or bool(filter_.keys() - {"state"})
    if bool(event_ids) == is_many or (event_ids and filter_):
        raise typer.BadParameter(
            "give either event ids ('holdfast dead ls' lists dead letters) or a filter (--error-type …, or --all for all in"
            " that state)"
        )
    if dry_run and not is_many:
        raise typer.BadParameter("--dry-run goes with a filter")
    with connect(find_address(url, api_key)) as client:
        if not is_many:
            act_on_each(event_ids or [], client.discard, output)
        elif dry_run:
            _print_count(client.count_discard(filter_), _done(filter_.get("state")), output)
        else:
            _discard_many(client, filter_, output, is_confirmed=yes)


def _discard_many(client: Client, filter_: dict[str, str], output: Output, *, is_confirmed: bool) -> None:
    if not is_confirmed:
        count = client.count_discard(filter_)
        state = filter_.get("state", "dead")
        verb = "cancel" if state == RUNS else "discard"
        confirm(f"{verb} {count} events, all that are {state} and match?", _done(state))
    _print_progress(client.start_discard(filter_), output)


def _done(state: str | None) -> str:
    return "cancelled" if state == RUNS else "discarded"


def _print_count(count: int, done: str, output: Output) -> None:
    if output is Output.json:
        print_json({"count": count})
    else:
        print(f"{count} events would be {done}")


def _print_progress(progress: DiscardProgress, output: Output) -> None:
    if output is Output.json:
        print_json(progress.raw)
        return
    done = "to be cancelled" if progress.filter.get("state") == RUNS else "discarded"
    counts = f"{done} {progress.discarded}, skipped {progress.skipped}, remaining {progress.remaining}"
    print(f"{progress.discard_id}  {progress.state}  {counts} of {progress.total}")
