"""``holdfast replays``: replays of many events, and how far they are."""

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from holdfast.client.cli_columns import REPLAY_COLUMNS
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, err, print_json
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.replays import ReplayProgress

__all__ = ["ReplayState", "print_replay", "replays"]

replays = typer.Typer(no_args_is_help=True, help="List replays of many events, show how far one is, or stop it.")

POLL_SECONDS = 0.5
"""Between two looks at a replay that is followed."""

ReplayId = Annotated[str, typer.Argument(metavar="REPLAY_ID", help="The id that 'holdfast replay' prints.")]


class ReplayState(StrEnum):
    """Where a replay stands."""

    running = "running"
    done = "done"
    cancelled = "cancelled"


@replays.command("ls", epilog=WHERE)
def list_replays(
    state: Annotated[ReplayState | None, typer.Option("--state", "-s", help="Only those.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 50,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List replays, newest first.

    [bold]Example[/]

    holdfast replays ls --state running
    """
    with connect(find_address(url, api_key)) as client:
        show_list(client.replays(state=state, limit=limit), REPLAY_COLUMNS, output, empty="there are no replays")


@replays.command(epilog=WHERE)
def show(
    replay_id: ReplayId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it is over; exit status 1 if cancelled.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Show how far a replay is, with --follow until it is over. Ctrl-C ends the showing, and not the replay.

    [bold]Examples[/]

    holdfast replays show 01a20ce1-a999-7253-85bb-3c3e269307a2

    holdfast replays show 01a20ce1-a999-7253-85bb-3c3e269307a2 --follow
    """
    with connect(find_address(url, api_key)) as client:
        if not follow:
            print_replay(client.replay_progress(replay_id), output)
            return
        last = _follow(lambda: client.replay_progress(replay_id), output)
    raise typer.Exit(0 if last.state == ReplayState.done else 1)


@replays.command(epilog=WHERE)
def cancel(replay_id: ReplayId, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Stop a replay. Events that it has already replayed stay replayed.

    [bold]Example[/]

    holdfast replays cancel 01a20ce1-a999-7253-85bb-3c3e269307a2
    """
    with connect(find_address(url, api_key)) as client:
        print_replay(client.cancel_replay(replay_id), output)


def print_replay(progress: ReplayProgress, output: Output) -> None:
    """One replay on stdout."""
    if output is Output.json:
        print_json(progress.raw)
        return
    counts = f"replayed {progress.replayed}, skipped {progress.skipped}, remaining {progress.remaining}"
    line = f"{progress.replay_id}  {progress.state}  {counts} of {progress.total} at {progress.rate_per_s:g}/s"
    print(line, flush=True)


def _follow(look: Callable[[], ReplayProgress], output: Output) -> ReplayProgress:
    """Show every change until the replay is over, and return its end: a bar at a terminal, otherwise a line each."""
    if output is Output.table and err.is_terminal:
        last = _draw(_changes(look))
        print_replay(last, output)
        return last
    for progress in _changes(look):
        print_replay(progress, output)
    return progress


def _draw(changes: Iterator[ReplayProgress]) -> ReplayProgress:
    columns = (
        TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, note="")
        for progress in changes:
            note = f"skipped {progress.skipped}" + (f", failing: {progress.last_error}" if progress.failures else "")
            bar.update(task, total=progress.total, completed=progress.total - progress.remaining, note=note)
    return progress


def _changes(look: Callable[[], ReplayProgress]) -> Iterator[ReplayProgress]:
    """What it is now, then each change, up to its end."""
    last = look()
    yield last
    while last.state == ReplayState.running:
        time.sleep(POLL_SECONDS)
        if (now := look()) != last:
            last = now
            yield last
