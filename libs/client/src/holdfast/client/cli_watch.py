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
"""Beyond so many single events a token asks for all events instead: a token travels in one frame of 8 KiB."""

Show = Callable[[UpdateReceived], None]


def topics_of(names: Iterable[str], event_ids: Iterable[str]) -> list[str]:
    """Topics in the spelling in which the gateway names them, each once."""
    topics = [*names, *(f"event:{event_id}" for event_id in event_ids)]
    return list(dict.fromkeys(map(spelled, topics)))


def grants_for(topics: list[str]) -> list[str]:
    """What a token has to grant for these topics."""
    others = [topic for topic in topics if not topic.startswith("event:")]
    return topics if len(topics) - len(others) <= MOST_EVENT_GRANTS else [*others, "event:*"]


def printer(output: Output) -> Show:
    """A function that prints one update on stdout."""
    if output is Output.json:
        return lambda frame: print_json({"topic": frame.topic, "pos": frame.pos, "event": frame.event})
    return lambda frame: out.print(update_line(frame.event))


class Follower:
    """Follows topics. What happened to an event before its own topic was subscribed is shown first, from its timeline: an
    event that is settled already would otherwise be waited for in vain.
    """

    def __init__(self, client: Client, show: Show, *, until_settled: int | None) -> None:
        self._client = client
        self._show = show
        self._until_settled = until_settled
        self._shown: dict[str, tuple[int, int]] = {}  # of the events that have a topic here, not of all there are
        self._settled: set[str] = set()
        self._is_disconnected = False

    async def follow(self, live_url: str, token: Callable[[], str], topics: list[str]) -> None:
        """Show updates until enough events are settled, if a number was given.

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
                self._tell(frame)
            case Subscribed():
                if self._is_disconnected:
                    self._is_disconnected = False
                    say("connected again")
                if frame.recovered is None:
                    await self._catch_up(frame)
            case Gap():
                if not await self._catch_up(frame):
                    say(f"updates of {frame.topic} were missed ({frame.reason}); read again what you show", "yellow")
            case Status("disconnected"):
                self._is_disconnected = True
                say(f"{frame.detail}; trying again until it works", "yellow")
            case Status():
                say(f"live updates are {frame.state}")

    async def _catch_up(self, frame: Subscribed | Gap) -> bool:
        """Show the past of the event whose topic this is; ``False``: it is the topic of many."""
        kind, _, event_id = frame.topic.partition(":")
        if kind != "event":
            return False
        stored = await asyncio.to_thread(self._client.get, event_id, ["timeline"])
        for entry in stored.timeline or ():
            event = {"id": stored.event_id, "type": stored.cloudevent["type"], "step": 0, **entry.raw}
            self._tell(UpdateReceived(frame.topic, frame.pos, event))
        return True

    def _tell(self, frame: UpdateReceived) -> None:
        event: dict[str, Any] = frame.event
        if event["id"] in self._shown:
            told = (event["version"], event["step"])
            if told <= self._shown[event["id"]]:
                return
            self._shown[event["id"]] = told
        self._show(frame)
        if event["state"] in SETTLED and self._until_settled is not None:
            self._settled.add(event["id"])
