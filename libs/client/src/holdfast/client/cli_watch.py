"""``holdfast watch``: updates as they happen."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from holdfast.client.cli_output import Output, out, print_json, say
from holdfast.client.frames import Frame, Gap, Status, Subscribed, UpdateReceived
from holdfast.client.http import Client
from holdfast.client.live import spelled, watch
from holdfast.client.render import update_line

__all__ = ["Follower", "grants_for", "printer", "topics_of"]

SETTLED = ("processed", "dead", "discarded")

MOST_EVENT_GRANTS = 20
"""For more events than this, the token grants ``event:*`` instead: a token must fit into one frame of 8 KiB."""

Show = Callable[[UpdateReceived], None]


def topics_of(names: Iterable[str], event_ids: Iterable[str]) -> list[str]:
    """Topics as the gateway spells them, each once."""
    topics = [*names, *(f"event:{event_id}" for event_id in event_ids)]
    return list(dict.fromkeys(map(spelled, topics)))


def grants_for(topics: list[str]) -> list[str]:
    """The grants that a token needs for these topics."""
    others = [topic for topic in topics if not topic.startswith("event:")]
    return topics if len(topics) - len(others) <= MOST_EVENT_GRANTS else [*others, "event:*"]


def printer(output: Output) -> Show:
    """A function that prints one update on stdout."""
    if output is Output.json:
        return lambda frame: print_json({"topic": frame.topic, "pos": frame.pos, "event": frame.event})
    return lambda frame: out.print(update_line(frame.event))


class Follower:
    """Follows topics. For an event's own topic, shows its timeline first: without it, a watch for an event that is settled
    already would never end.
    """

    def __init__(self, client: Client, show: Show, *, until_settled: int | None) -> None:
        self._client = client
        self._show = show
        self._until_settled = until_settled
        self._shown: dict[str, tuple[int, int]] = {}  # (version, step) of each event that has its own topic here
        self._settled: set[str] = set()
        self._is_disconnected = False

    async def follow(self, live_url: str, token: Callable[[], str], topics: list[str]) -> None:
        """Show updates, until ``until_settled`` events are settled if that is set.

        Raises:
            ClientError: as ``watch`` and ``Client.get``.
        """
        events = (topic.partition(":")[2] for topic in topics if topic.startswith("event:"))
        self._shown = dict.fromkeys(events, (0, 0))
        async with aclosing(watch(live_url, token, topics=topics)) as frames:
            async for frame in frames:
                await self._take(frame)
                if self._until_settled is not None and len(self._settled) >= self._until_settled:
                    return

    async def _take(self, frame: Frame) -> None:
        match frame:
            case UpdateReceived():
                self._show_if_new(frame)
            case Subscribed():
                if self._is_disconnected:
                    self._is_disconnected = False
                    say("reconnected")
                if frame.recovered is None:
                    await self._catch_up(frame)
            case Gap():
                if not await self._catch_up(frame):
                    say(f"updates of {frame.topic} were missed ({frame.reason}); refetch what you show", "yellow")
            case Status("disconnected"):
                self._is_disconnected = True
                say(f"{frame.detail}; reconnecting until it works", "yellow")
            case Status():
                say(f"live updates are {frame.state}")

    async def _catch_up(self, frame: Subscribed | Gap) -> bool:
        """Show the timeline of the event whose topic this is. Returns ``False`` if the topic is not a single event's."""
        kind, _, event_id = frame.topic.partition(":")
        if kind != "event":
            return False
        stored = await asyncio.to_thread(self._client.get, event_id, ["timeline"])
        for entry in stored.timeline or ():
            event = {"id": stored.event_id, "type": stored.cloudevent["type"], "step": 0, **entry.raw}
            self._show_if_new(UpdateReceived(frame.topic, frame.pos, event))
        return True

    def _show_if_new(self, frame: UpdateReceived) -> None:
        event: dict[str, Any] = frame.event
        if event["id"] in self._shown:
            version = (event["version"], event["step"])
            if version <= self._shown[event["id"]]:
                return
            self._shown[event["id"]] = version
        self._show(frame)
        if event["state"] in SETTLED and self._until_settled is not None:
            self._settled.add(event["id"])
