"""The live side: protocol ``live.v1`` over WebSocket, with reconnection and resume."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from holdfast.client.callbacks import call, is_final
from holdfast.client.errors import LiveClosed
from holdfast.client.frames import Frame, Gap, Status, Subscribed, UpdateReceived
from holdfast.client.link import Link, Lost
from holdfast.client.retry import backoff_seconds
from holdfast.client.versions import Versions

__all__ = ["Gap", "Status", "Subscribed", "TokenSource", "UpdateReceived", "spelled", "watch"]

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A live token, or a function, plain or ``async``, that gets a new one of the same subject."""

HEALTHY_SECONDS = 5.0
"""A connection that lasted this long was a good one: after it the pauses between attempts start small again."""

MAX_FRAME_BYTES = 8 * 1024
"""Longest frame that a gateway takes."""
FRAME_OVERHEAD_BYTES = 256
"""What a hello or a subscribe has beside token, topics and positions, with something to spare."""
TOPIC_OVERHEAD_BYTES = 24
"""What a topic has beside its name, which a hello has twice, and its position: field names, quotes, colons, commas."""

PROTOCOL, FORBIDDEN = 4500, 4502


async def watch(
    live_url: str,
    token: TokenSource,
    *,
    topics: Iterable[str],
    positions: Mapping[str, str] | None = None,
) -> AsyncGenerator[Frame, None]:
    """Watch topics until the caller stops. Reconnects and resumes by itself; yields each update of an event once, also
    when it comes by several of the topics.

    Leave it with ``async with contextlib.aclosing(watch(…)) as frames`` to close the connection at once.

    Args:
        live_url: ``ws://…/v1/live``.
        token: a live token, or a function that gets a new one, of the same subject. It is called before each connection (a
            plain one in a thread), so with a function the watch outlives a token. When it raises it is called again after a
            pause, unless the API refused it for good.
        topics: names such as ``audience:user-42``.
        positions: where to resume topics, as kept from an earlier watch.

    Raises:
        LiveClosed: the gateway refused for good.
        Unreachable: what is at ``live_url`` is no gateway, or its certificate is not valid.
        ApiProblem: the function that gets tokens was refused one for good.
    """
    watching = _Watch(map(spelled, topics), {spelled(topic): pos for topic, pos in (positions or {}).items()})
    failures, is_told = 0, False
    while True:
        link, began = None, time.monotonic()
        try:
            fresh = await _token(token)
            opening = [watching.hello(fresh), *watching.subscribes(fresh)]
            async with await Link.open(live_url, opening) as link:
                while True:
                    if (frame := watching.take(await link.next())) is not None:
                        is_told = False
                        yield frame
        except Lost as exc:
            lost = exc
        failures = 1 if link and time.monotonic() - began > HEALTHY_SECONDS else failures + 1
        if not is_told and (link is None or failures > 1):
            is_told = True
            yield Status("disconnected", str(lost))
        await asyncio.sleep(lost.delay_seconds + backoff_seconds(failures, random.random()))  # noqa: S311 (jitter)


def spelled(topic: str) -> str:
    """A topic as the gateway names it in its frames: an event's id in lower case and with hyphens."""
    kind, _, value = topic.partition(":")
    try:
        return f"event:{UUID(value)}" if kind == "event" else topic
    except ValueError:
        return topic  # the gateway says what is wrong with it


async def _token(token: TokenSource) -> str:
    if isinstance(token, str):
        return token
    try:
        return await call(token)
    except Exception as exc:
        if is_final(exc):
            raise
        raise Lost(f"no token: {exc or type(exc).__name__}") from exc


def _compact(frame: dict[str, Any]) -> str:
    return json.dumps(frame, separators=(",", ":"))


class _Watch:
    """What outlives a connection: session, positions, and the highest version of each event seen."""

    def __init__(self, topics: Iterable[str], positions: dict[str, str]) -> None:
        self._topics = list(topics)
        self._positions = positions
        self._versions = Versions()
        self._session = ""
        self._attempts = 0

    def hello(self, token: str) -> str:
        """The first frame of a connection: what to watch, and from where."""
        topics, *others = self._split(token)
        positions = {topic: self._positions[topic] for topic in topics if topic in self._positions}
        self._attempts += 1
        hello = {
            "type": "hello",
            "v": 1,
            "token": token,
            "attempt": self._attempts,
            "topics": topics,
            "positions": positions,
        }
        # The session makes the gateway close an older connection that it still takes for alive. It would bring all topics
        # back, and those whose positions do not fit into this frame without what they missed.
        return _compact(hello | ({"session": self._session} if self._session and not others else {}))

    def subscribes(self, token: str) -> list[str]:
        """The frames after it, for topics that with their positions did not fit into one frame; most often none."""
        wanted = [
            [{"topic": topic, "since": self._positions.get(topic)} for topic in topics]
            for topics in self._split(token)[1:]
        ]
        return [_compact({"type": "subscribe", "id": id_, "topics": topics}) for id_, topics in enumerate(wanted)]

    def _split(self, token: str) -> list[list[str]]:
        """The topics by frame: the hello's, which it may have none, and those of each subscribe."""
        batches: list[list[str]] = [[]]
        room = MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES - len(token)
        for topic in self._topics:
            size = 2 * len(json.dumps(topic)) + len(self._positions.get(topic, "")) + TOPIC_OVERHEAD_BYTES
            if size > room:
                batches.append([])
                room = MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES
            batches[-1].append(topic)
            room -= size
        return batches

    def take(self, frame: dict[str, Any]) -> Frame | None:
        """What a frame says to the caller, if anything.

        Raises:
            Lost: something is refused for now; a new connection, with a new token, may help.
            LiveClosed: something is refused for good.
        """
        if frame["type"] != "error":
            return self._read(frame)
        reason = f"{frame['code']}: {frame['message']}"
        if frame["temporary"]:
            raise Lost(reason, delay_seconds=(frame.get("retry_ms") or 0) / 1000)
        raise LiveClosed(FORBIDDEN if frame["code"] == "forbidden" else PROTOCOL, reason)

    def _read(self, frame: dict[str, Any]) -> Frame | None:
        if frame["type"] == "status":
            return Status(frame["state"])
        if frame["type"] == "welcome":
            self._session = frame["session"]
        if frame["type"] not in ("update", "subscribed", "gap"):
            return None  # of a newer gateway
        topic, pos = frame["topic"], frame["pos"]
        self._positions[topic] = pos
        if frame["type"] == "update":
            return UpdateReceived(topic, pos, frame["event"]) if self._versions.is_news(frame["event"]) else None
        if frame["type"] == "subscribed":
            return Subscribed(topic, pos, frame["recovered"])
        return Gap(topic, pos, frame["reason"], frame["jitter_ms"])
