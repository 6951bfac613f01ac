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
"""A live token, or a function, plain or ``async``, that gets a new one for the same subject."""

HEALTHY_SECONDS = 5.0
"""After a connection that lasted this long, the pauses between attempts start small again."""

MAX_FRAME_BYTES = 8 * 1024
"""Longest frame that a gateway accepts."""
FRAME_OVERHEAD_BYTES = 256
"""Upper bound on the rest of a hello or subscribe: all but token, topics and positions."""
TOPIC_OVERHEAD_BYTES = 24
"""Per topic, beside its name (twice in a hello) and position: field names, quotes, colons, commas."""

PROTOCOL, FORBIDDEN = 4500, 4502


async def watch(
    live_url: str,
    token: TokenSource,
    *,
    topics: Iterable[str],
    positions: Mapping[str, str] | None = None,
) -> AsyncGenerator[Frame, None]:
    """Watch topics until the caller stops. Reconnects and resumes by itself.

    Yields each update of an event once, even if several of the topics have it. Leave it with
    ``async with contextlib.aclosing(watch(…)) as frames`` to close the connection at once.

    Args:
        live_url: ``ws://…/v1/live``.
        token: a live token, or a function that gets a new one for the same subject. The function is called before each
            connection (a plain one in a thread), so the watch outlives a token. When it raises, it is called again after a
            pause, unless the API refused the request for good.
        topics: names such as ``audience:user-42``.
        positions: by topic, the last ``pos`` of an earlier watch, to resume after it.

    Raises:
        LiveClosed: the gateway refused for good.
        Unreachable: there is no gateway at ``live_url``, or its certificate is not valid.
        ApiProblem: the API refused a token for good.
    """
    watching = _Watch(map(spelled, topics), {spelled(topic): pos for topic, pos in (positions or {}).items()})
    failures, is_reported = 0, False
    while True:
        link, began = None, time.monotonic()
        try:
            fresh = await _token(token)
            opening = [watching.hello(fresh), *watching.subscribes(fresh)]
            async with await Link.open(live_url, opening) as link:
                while True:
                    if (frame := watching.take(await link.next())) is not None:
                        is_reported = False
                        yield frame
        except Lost as exc:
            lost = exc
        failures = 1 if link and time.monotonic() - began > HEALTHY_SECONDS else failures + 1
        if not is_reported and (link is None or failures > 1):
            is_reported = True
            yield Status("disconnected", str(lost))
        await asyncio.sleep(lost.delay_seconds + backoff_seconds(failures, random.random()))  # noqa: S311 (jitter)


def spelled(topic: str) -> str:
    """A topic as the gateway spells it in its frames: an event's id in lower case and with hyphens."""
    kind, _, value = topic.partition(":")
    try:
        return f"event:{UUID(value)}" if kind == "event" else topic
    except ValueError:
        return topic  # the gateway's error will name the fault


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
    """The state kept between connections: session, positions, and the highest version of each event."""

    def __init__(self, topics: Iterable[str], positions: dict[str, str]) -> None:
        self._topics = list(topics)
        self._positions = positions
        self._versions = Versions()
        self._session = ""
        self._attempts = 0

    def hello(self, token: str) -> str:
        """The first frame of a connection: topics, and the positions to resume from."""
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
        # The session makes the gateway close an older connection that it still believes alive, and restore all its topics:
        # those whose positions do not fit into this frame would resume without the updates they missed.
        return _compact(hello | ({"session": self._session} if self._session and not others else {}))

    def subscribes(self, token: str) -> list[str]:
        """The frames after the hello, for topics that did not fit into it; usually none."""
        batches = [
            [{"topic": topic, "since": self._positions.get(topic)} for topic in topics]
            for topics in self._split(token)[1:]
        ]
        return [_compact({"type": "subscribe", "id": id_, "topics": topics}) for id_, topics in enumerate(batches)]

    def _split(self, token: str) -> list[list[str]]:
        """The topics by frame: those of the hello, possibly none, then those of each subscribe."""
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
        """The frame as the caller sees it; ``None`` if it is not for the caller.

        Raises:
            Lost: the gateway refuses for now; a new connection, with a new token, may succeed.
            LiveClosed: the gateway refuses for good.
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
            return None  # welcome, or a type that a newer gateway added
        topic, pos = frame["topic"], frame["pos"]
        self._positions[topic] = pos
        if frame["type"] == "update":
            return UpdateReceived(topic, pos, frame["event"]) if self._versions.is_news(frame["event"]) else None
        if frame["type"] == "subscribed":
            return Subscribed(topic, pos, frame["recovered"])
        return Gap(topic, pos, frame["reason"], frame["jitter_ms"])
