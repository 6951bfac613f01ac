"""Live clients that record every frame, and do what an application does with them: keep the newest state of each event,
resume by position, and fetch again after a gap.

Records: ``client``, ``at``, ``kind`` and

- ``update``: topic, pos, event, version, step, state
- ``subscribed``: topic, pos, recovered
- ``gap``: topic, pos, reason
- ``lost``: reason (of the connection's end)
- ``fetched``: event, version, state; one for each event that was news in what was fetched after a gap
"""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from holdfast.client import Client, ClientError
from holdfast.client.link import Link, Lost

from .history import Recorder
from .load import AUDIENCES, Tenant

__all__ = ["LiveClients"]

REFRESH_SECONDS = 1800.0
"""A token is valid for an hour."""
PAUSE_SECONDS = 1.0
DROP_SECONDS = (5.0, 40.0)
"""After so long, drawn anew each time, a client drops its connection by itself, without a word."""

FETCH = """
SELECT e.id::text, s.version, s.state FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.tenant = %s AND (%s OR e.audience = ANY (%s))
"""


@dataclass
class _Token:
    text: str = ""
    minted: float = 0.0


@dataclass
class _LiveClient:
    """One client: its topics, where it stands in them, and what it knows of each event as ``(version, state)``."""

    name: str
    tenant: Tenant
    topics: list[str]
    live_url: str
    ingest_url: str
    database_url: str
    recorder: Recorder
    draw: random.Random
    positions: dict[str, str] = field(default_factory=dict)
    known: dict[str, tuple[int, str]] = field(default_factory=dict)
    token: _Token = field(default_factory=_Token)
    gap_seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Read and fetch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reading())
            tasks.create_task(self._fetching())

    async def _reading(self) -> None:
        """Connect, read, and connect again."""
        while True:
            try:
                await self._connection()
            except (Lost, ClientError, TimeoutError) as exc:
                self._record("lost", reason=str(exc) or type(exc).__name__)
            await asyncio.sleep(PAUSE_SECONDS * (0.5 + self.draw.random()))

    async def _connection(self) -> None:
        token = await asyncio.to_thread(self._fresh_token)
        async with (
            asyncio.timeout(self.draw.uniform(*DROP_SECONDS)),
            await Link.open(self.live_url, [self._hello(token)]) as link,
        ):
            while True:
                self._take(await link.next())

    def _fresh_token(self) -> str:
        if time.monotonic() - self.token.minted > REFRESH_SECONDS or not self.token.text:
            with Client(self.ingest_url, self.tenant.key) as client:
                self.token = _Token(client.token(self.topics, ttl_seconds=3600).token, time.monotonic())
        return self.token.text

    def _hello(self, token: str) -> str:
        hello = {"type": "hello", "v": 1, "token": token, "topics": self.topics, "positions": self.positions}
        return json.dumps(hello, separators=(",", ":"))

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind not in ("update", "subscribed", "gap"):
            return
        self.positions[frame["topic"]] = frame["pos"]
        if kind == "update":
            event = frame["event"]
            news = {"event": event["id"], "version": event["version"], "step": event["step"], "state": event["state"]}
            self._learn(event["id"], event["version"], event["state"])
        else:
            news = {name: frame[name] for name in ("recovered", "reason") if name in frame}
            if kind == "gap":
                self.gap_seen.set()
        self._record(kind, topic=frame["topic"], pos=frame["pos"], **news)

    def _learn(self, event: str, version: int, state: str) -> bool:
        """Whether this is newer than what is known."""
        is_news = version > self.known.get(event, (0, ""))[0]
        if is_news:
            self.known[event] = (version, state)
        return is_news

    async def _fetching(self) -> None:
        """After a gap fetch what the application shows, from the database: the application's own list page."""
        while True:
            await self.gap_seen.wait()
            self.gap_seen.clear()  # before the fetch: a gap that comes meanwhile asks for another one
            try:
                rows = await asyncio.to_thread(self._rows)
            except psycopg2.Error:
                self.gap_seen.set()
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for event, version, state in rows:
                if self._learn(event, version, state):
                    self._record("fetched", event=event, version=version, state=state)

    def _rows(self) -> list[tuple[str, int, str]]:
        audiences = [topic.partition(":")[2] for topic in self.topics if topic.startswith("audience:")]
        has_all = len(audiences) < len(self.topics)
        with (
            contextlib.closing(psycopg2.connect(self.database_url, connect_timeout=5)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(FETCH, [self.tenant.name, has_all, audiences])
            return cursor.fetchall()

    def _record(self, kind: str, **what: Any) -> None:
        self.recorder.add("frames", {"client": self.name, "at": time.time(), "kind": kind, **what})


class LiveClients:
    """All clients, in an event loop in a thread of its own: per tenant one of everything, one for each audience, and one
    that watches two topics at once."""

    def __init__(
        self,
        tenants: Iterable[Tenant],
        recorder: Recorder,
        *,
        seed: int,
        live_url: str,
        ingest_url: str,
        database_url: str,
    ) -> None:
        def client(tenant: Tenant, name: str, topics: list[str]) -> _LiveClient:
            recorder.add("clients", {"client": name, "tenant": tenant.name, "topics": topics})
            draw = random.Random(f"{seed} {name}")
            return _LiveClient(name, tenant, topics, live_url, ingest_url, database_url, recorder, draw)

        self._clients = [
            client(tenant, f"{tenant.name} {number}", topics)
            for tenant in tenants
            for number, topics in enumerate(_topics(tenant))
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="live clients", daemon=True)
        self._running: list[Future[None]] = []

    def start(self) -> None:
        """Connect."""
        self._thread.start()
        self._running = [asyncio.run_coroutine_threadsafe(client.run(), self._loop) for client in self._clients]

    def are_subscribed(self) -> bool:
        """Whether every client is live on every topic, for the first time."""
        self._raise_errors()
        return all(topic in client.positions for client in self._clients for topic in client.topics)

    def know(self, states: Callable[[str, Sequence[str]], dict[str, tuple[int, str]]]) -> bool:
        """Whether every client knows what ``states(tenant, topics)`` says."""
        self._raise_errors()
        return all(client.known == states(client.tenant.name, client.topics) for client in self._clients)

    def stop(self) -> None:
        """Disconnect; nothing is recorded after it."""
        for future in self._running:
            future.cancel()
        asyncio.run_coroutine_threadsafe(_others_end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _raise_errors(self) -> None:
        """A client that ended ended with an error of the soak's own."""
        for future in self._running:
            if future.done():
                future.result()


async def _others_end() -> None:
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})


def _topics(tenant: Tenant) -> list[list[str]]:
    audiences = [f"audience:user-{number}" for number in range(AUDIENCES)]
    return [[f"tenant:{tenant.name}"], *([audience] for audience in audiences), [f"tenant:{tenant.name}", audiences[0]]]
