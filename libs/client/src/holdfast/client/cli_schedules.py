"""``holdfast schedules``: events that come by the clock."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from holdfast.client.cli_columns import SCHEDULE_COLUMNS
from holdfast.client.cli_options import (
    WHERE,
    Debounce,
    DebounceKey,
    DebounceMax,
    Format,
    Key,
    Unique,
    UniqueKey,
    Url,
    connect,
    window_attributes,
)
from holdfast.client.cli_output import Output, out, print_json
from holdfast.client.cli_send import read_data
from holdfast.client.cli_table import show_list
from holdfast.client.connection import find_address
from holdfast.client.render import one_line, seconds
from holdfast.client.schedules import Schedule

__all__ = ["Missed", "Overlap", "schedules"]

schedules = typer.Typer(
    no_args_is_help=True, help="Events that come by the clock: make, show, pause and run schedules."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, as 'schedules ls' shows it.")]


class Missed(StrEnum):
    """Which ticks have an event that came while Holdfast was down."""

    latest = "latest"
    all = "all"
    skip = "skip"


class Overlap(StrEnum):
    """Whether a tick has an event while the one of the tick before is open."""

    allow = "allow"
    skip = "skip"


@schedules.command("ls", epilog=WHERE)
def list_schedules(
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="How many; default: all.")] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """List schedules by name, with their next and last ticks. Needs the scope operate.

    [bold]Examples[/]

    holdfast schedules ls

    holdfast schedules ls -o json | jq -r 'select(.paused) | .name'
    """
    with connect(find_address(url, api_key)) as client:
        show_list(
            client.schedules(limit=limit), SCHEDULE_COLUMNS, output,
            empty="there are no schedules; 'holdfast schedules set --help' shows how to make one",
        )  # fmt: skip


@schedules.command(epilog=WHERE)
def show(name: Name, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Show a schedule, its data and its next five ticks.

    [bold]Example[/]

    holdfast schedules show daily-report
    """
    with connect(find_address(url, api_key)) as client:
        _print_whole(client.schedule(name), output)


@schedules.command("set", epilog=WHERE)
def set_schedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dots, dashes and underscores.")],
    cron: Annotated[str, typer.Option("--cron", "-c", help="Five fields: minute, hour, day, month, day of week.")],
    type_: Annotated[str, typer.Option("--type", "-t", help="Event type, such as com.acme.report.due.")],
    timezone: Annotated[str, typer.Option("--tz", help="Time zone, such as Europe/Istanbul.")] = "UTC",
    data: Annotated[str | None, typer.Option("--data", "-d", help="JSON, @file, or - for standard input.")] = None,
    source: Annotated[str | None, typer.Option(help="Default: /holdfast/schedules/<name>.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the events are about.")] = None,
    audience: Annotated[str | None, typer.Option(help="Who should see the events live.")] = None,
    missed: Annotated[Missed, typer.Option(help="Ticks during a downtime: the latest, all, or none.")] = Missed.latest,
    overlap: Annotated[
        Overlap, typer.Option(help="skip: no event while that of the tick before is open.")
    ] = Overlap.allow,
    debounce: Debounce = None,
    debounce_key: DebounceKey = None,
    debounce_max: DebounceMax = None,
    unique: Unique = None,
    unique_key: UniqueKey = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Make a schedule, or replace the one of this name whole; a paused one stays paused. Needs the scope operate.

    [bold]Examples[/]

    holdfast schedules set daily-report --cron '0 7 * * mon-fri' --tz Europe/Istanbul --type com.acme.report.due

    holdfast schedules set poll --cron '*/5 * * * *' --type com.acme.poll --data '{"page": 1}' --overlap skip
    """
    given = {
        "cron": cron, "type": type_, "timezone": timezone, "source": source, "subject": subject, "audience": audience,
        "missed": missed.value, "overlap": overlap.value,
        **window_attributes(debounce, debounce_key, debounce_max, unique, unique_key),
    }  # fmt: skip
    wanted: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if data is not None:
        wanted["data"] = read_data(data)
    with connect(find_address(url, api_key)) as client:
        _print_whole(client.put_schedule(name, wanted), output)


@schedules.command("rm", epilog=WHERE)
def remove(name: Name, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Delete a schedule; its events stay. One that handlers declare comes back with the next start of a processor.

    [bold]Example[/]

    holdfast schedules rm daily-report
    """
    with connect(find_address(url, api_key)) as client:
        _print_line(client.delete_schedule(name), "deleted", output)


@schedules.command(epilog=WHERE)
def pause(name: Name, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Let a schedule rest until it is resumed. Its ticks until then are not made up for.

    [bold]Example[/]

    holdfast schedules pause daily-report
    """
    with connect(find_address(url, api_key)) as client:
        _print_line(client.pause_schedule(name), "paused", output)


@schedules.command(epilog=WHERE)
def resume(name: Name, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Let a paused schedule go on with its next tick.

    [bold]Example[/]

    holdfast schedules resume daily-report
    """
    with connect(find_address(url, api_key)) as client:
        _print_line(client.resume_schedule(name), "active", output)


@schedules.command(epilog=WHERE)
def run(name: Name, url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Record the event of a schedule now, paused or not. Its ticks go on as before.

    [bold]Example[/]

    holdfast schedules run daily-report
    """
    with connect(find_address(url, api_key)) as client:
        accepted = client.run_schedule(name)
    if output is Output.json:
        print_json(accepted.raw)
    else:
        print(f"{accepted.event_id}  {accepted.state}", flush=True)


def _print_line(schedule: Schedule, state: str, output: Output) -> None:
    if output is Output.json:
        print_json(schedule.raw)
        return
    following = f"  next {seconds(schedule.next_at)}" if state == "active" and schedule.next_at else ""
    print(f"{one_line(schedule.name)}  {state}{following}", flush=True)


def _print_whole(schedule: Schedule, output: Output) -> None:
    if output is Output.json:
        print_json(schedule.raw)
        return
    hidden = {"name", "next", "next_at", "links", "words"}
    facts = {key: value for key, value in schedule.raw.items() if key not in hidden and value is not None}
    out.print(Text.assemble((one_line(schedule.name), "bold"), f"  {one_line(schedule.words or '')}"))
    for key, value in facts.items():
        out.print(Text(f"  {key:<18} {one_line(str(value))}"))
    for number, tick in enumerate(schedule.next):
        out.print(Text(f"  {'' if number else 'next':<18} {seconds(tick)}"))
