"""The live side: protocol ``live.v1`` over WebSocket, with reconnection and resume."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from holdfast.client.errors import LiveClosed

__all__ = ["Gap", "Status", "Subscribed", "UpdateReceived", "watch"]

TERMINAL = 4500
"""Close codes from here on say: do not reconnect."""

FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 10.0
MAX_FRAME_BYTES = 256 * 1024
REMEMBERED_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class UpdateReceived:
    """An event moved on. ``event`` is its full state; ``pos`` the position to resume after it."""

    topic: str
    pos: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The topic is live from ``pos`` on. ``recovered``: all that was missed came before this (``None``: nothing asked)."""

    topic: str
    pos: str
    recovered: bool | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Updates are missing and are not coming: refetch what you show."""

    topic: str
    pos: str
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """``ok``, or ``degraded``: updates may be late."""

    state: str


Frame = UpdateReceived | Subscribed | Gap | Status


async def watch(
    live_url: str,
    token: str | Callable[[], str],
    *,
    topics: Iterable[str],
    positions: Mapping[str, str] | None = None,
) -> AsyncGenerator[Frame, None]:
    """Watch topics until the caller stops. Reconnects and resumes by itself; yields each update of an event once.

    Leave it with ``async with contextlib.aclosing(watch(…)) as frames`` to close the connection at once.

    Args:
        live_url: ``ws://…/v1/live``.
        token: a live token, or a function that gets a new one; with a function the watch outlives a token.
        topics: names such as ``audience:user-42``.
        positions: where to resume topics, as kept from an earlier watch.

    Raises:
        LiveClosed: the gateway refused for good.
    """
    watching = _Watch(list(topics), dict(positions or {}))
    wait_seconds = FIRST_WAIT_SECONDS
    while True:
        try:
            connection = await _connect(live_url)
            try:
                await connection.send(watching.hello(await _token(token)))
                while (frame := await watching.next(connection)) is not None:
                    wait_seconds = FIRST_WAIT_SECONDS
                    yield frame
            finally:
                await connection.close()
        except ConnectionClosed as exc:
            code, reason = (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "connection lost")
            if code >= TERMINAL:
                raise LiveClosed(code, reason) from None
        except (OSError, TimeoutError, InvalidHandshake):
            pass  # unreachable, or 503 while it can not serve
        await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
        wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)


async def _connect(live_url: str) -> ClientConnection:
    return await connect(
        live_url, max_size=MAX_FRAME_BYTES, compression=None, ping_interval=None, close_timeout=2, proxy=None
    )  # fmt: skip


async def _token(token: str | Callable[[], str]) -> str:
    return token if isinstance(token, str) else await asyncio.to_thread(token)


class _Watch:
    """What outlives a connection: positions, and the highest version of each event seen."""

    def __init__(self, topics: list[str], positions: dict[str, str]) -> None:
        self._topics = topics
        self._positions = positions
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}

    def hello(self, token: str) -> str:
        """The first frame of a connection: what to watch, and from where."""
        frame = {"type": "hello", "v": 1, "token": token, "topics": self._topics, "positions": self._positions}
        return json.dumps(frame)

    async def next(self, connection: ClientConnection) -> Frame | None:
        """The next frame that is for the caller; ``None``: come back, what failed is said to be temporary.

        Raises:
            ConnectionClosed: by the gateway, or lost.
            LiveClosed: a topic is refused for good.
        """
        while True:
            frame = json.loads(await connection.recv())
            if frame["type"] == "ping":
                await connection.send('{"type":"pong"}')
            elif frame["type"] == "error" and frame.get("temporary"):
                return None
            elif frame["type"] == "error":
                raise LiveClosed(TERMINAL, f"{frame['code']}: {frame['message']}")
            elif (read := self._read(frame)) is not None:
                return read

    def _read(self, frame: dict[str, Any]) -> Frame | None:
        if frame["type"] == "status":
            return Status(frame["state"])
        if frame["type"] not in ("update", "subscribed", "gap"):
            return None
        topic, pos = frame["topic"], frame["pos"]
        self._positions[topic] = pos
        if frame["type"] == "update":
            return UpdateReceived(topic, pos, frame["event"]) if self._is_news(topic, frame["event"]) else None
        if frame["type"] == "subscribed":
            return Subscribed(topic, pos, frame["recovered"])
        return Gap(topic, pos, frame["reason"])

    def _is_news(self, topic: str, event: dict[str, Any]) -> bool:
        """Whether this tells more about the event than this topic has told before."""
        key = (topic, event["id"])
        told = (event["version"], event["step"])
        if told <= self._seen.get(key, (0, 0)):
            return False
        self._seen.pop(key, None)
        self._seen[key] = told
        if len(self._seen) > REMEMBERED_EVENTS:
            del self._seen[next(iter(self._seen))]
        return True
