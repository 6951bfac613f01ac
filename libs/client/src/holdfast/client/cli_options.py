"""Options that commands share, and the client for them."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from holdfast.client.cli_output import Output
from holdfast.client.cli_times import moment_option
from holdfast.client.connection import Address
from holdfast.client.http import Client

__all__ = [
    "WHERE", "After", "Before", "Debounce", "DebounceKey", "DebounceMax", "EventState", "Format", "Key", "LiveUrl", "State",
    "Unique", "UniqueKey", "Url", "connect", "window_attributes",
]  # fmt: skip

WHERE = (
    "Where Holdfast is: options, else HOLDFAST_URL, HOLDFAST_API_KEY and HOLDFAST_LIVE_URL, "
    "else .holdfast/stack.json of a local stack ('make up') in this folder or above."
)

Url = Annotated[str | None, typer.Option("--url", envvar="HOLDFAST_URL", help="Address of ingest.")]
Key = Annotated[str | None, typer.Option("--api-key", envvar="HOLDFAST_API_KEY", help="An API key, hf_….")]
LiveUrl = Annotated[
    str | None, typer.Option("--live-url", envvar="HOLDFAST_LIVE_URL", help="Address of the gateway, ws://…/v1/live.")
]
Format = Annotated[Output, typer.Option("-o", "--output", help="For people, or JSON lines for programs.")]

_TIME = "90s, 15m, 1h or 7d ago, or 2026-11-24T09:30:00Z"
After = Annotated[
    str | None,
    typer.Option("--after", metavar="TIME", callback=moment_option, help=f"Received at or after this time: {_TIME}."),
]
Before = Annotated[
    str | None,
    typer.Option("--before", metavar="TIME", callback=moment_option, help=f"Received before this time: {_TIME}."),
]

Debounce = Annotated[
    int | None, typer.Option(metavar="SECONDS", help="Run only the last event of a key, so long after it came.")
]
DebounceKey = Annotated[str | None, typer.Option(help="The key for --debounce; default the subject.")]
DebounceMax = Annotated[
    int | None,
    typer.Option(metavar="SECONDS", help="The longest wait of a debounced key; default ten times --debounce."),
]
Unique = Annotated[
    int | None, typer.Option(metavar="SECONDS", help="Run only the first event of a key within so long.")
]
UniqueKey = Annotated[str | None, typer.Option(help="The key for --unique; default the subject.")]


class EventState(StrEnum):
    """The states of an event, as the API spells them."""

    queued = "queued"
    processing = "processing"
    failed = "failed"
    processed = "processed"
    dead = "dead"
    discarded = "discarded"


State = Annotated[EventState | None, typer.Option("--state", "-s", help="Where the event stands.")]


def window_attributes(
    debounce: int | None, debounce_key: str | None, debounce_max: int | None, unique: int | None, unique_key: str | None
) -> dict[str, Any]:
    """The extension attributes of these options; ``None`` for those that are not given."""
    return {
        "debounceseconds": debounce, "debouncekey": debounce_key, "debouncemaxseconds": debounce_max,
        "uniqueseconds": unique, "uniquekey": unique_key,
    }  # fmt: skip


def connect(address: Address) -> Client:
    """A client for the API.

    Raises:
        typer.BadParameter: the address or the key is missing.
    """
    if address.url is None or address.api_key is None:
        needed = {"--url (HOLDFAST_URL)": address.url, "--api-key (HOLDFAST_API_KEY)": address.api_key}
        missing = " and ".join(name for name, value in needed.items() if value is None)
        raise typer.BadParameter(f"give {missing}, or start a local stack with 'make up'")
    return Client(address.url, address.api_key)
