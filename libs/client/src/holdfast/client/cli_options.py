"""Options that commands share, and the client for them."""

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.client.cli_output import Output
from holdfast.client.cli_times import moment_option
from holdfast.client.connection import Address
from holdfast.client.http import Client

__all__ = ["WHERE", "After", "Before", "EventState", "Format", "Key", "LiveUrl", "State", "Url", "connect"]

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


class EventState(StrEnum):
    """The states of an event, as the API spells them."""

    queued = "queued"
    processing = "processing"
    failed = "failed"
    processed = "processed"
    dead = "dead"
    discarded = "discarded"


State = Annotated[EventState | None, typer.Option("--state", "-s", help="Where the event stands.")]


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
