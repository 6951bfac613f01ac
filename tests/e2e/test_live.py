"""Live updates against the database's truth: snapshot then stream, and what becomes of both when Redis forgets or is away."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from holdfast.client import Client
from holdfast.local.stack import Stack

MakeEvent = Callable[..., dict[str, Any]]

SETTLED = frozenset({"processed", "dead", "discarded"})


class Page:
    """What a page shows: an audience's events, from a snapshot and the updates after it. Reads until it is told otherwise."""

    def __init__(self, stack: dict[str, Any], client: Client, audience: str) -> None:
        self.audience = audience
        self.topic = f"audience:{audience}"
        self.shown: dict[str, tuple[int, str]] = {}
        self.frames: list[str] = []
        self._database_url = stack["database_url"]
        self._live_url = stack["live_url"]
        self._token = client.token([self.topic], ttl_seconds=600).token

    @contextlib.contextmanager
    def open(self) -> Iterator[ClientConnection]:
        """Connect and say hello."""
        with connect(self._live_url, compression=None) as connection:
            connection.send(json.dumps({"type": "hello", "v": 1, "token": self._token, "topics": [self.topic]}))
            yield connection

    def read_until(self, connection: ClientConnection, is_done: Callable[["Page"], bool]) -> None:
        """Take frames in; on ``subscribed`` and on every ``gap`` fetch the snapshot."""
        deadline = time.monotonic() + 120
        while not is_done(self):
            frame = json.loads(connection.recv(timeout=deadline - time.monotonic()))
            self.frames.append(frame["type"])
            if frame["type"] == "ping":
                connection.send('{"type":"pong"}')
            elif frame["type"] in ("subscribed", "gap"):
                for id_, version, state in self.stored():
                    self._show(id_, version, state)
            elif frame["type"] == "update":
                self._show(frame["event"]["id"], frame["event"]["version"], frame["event"]["state"])

    def stored(self) -> list[tuple[str, int, str]]:
        """The truth."""
        with psycopg2.connect(self._database_url) as database, database.cursor() as cursor:
            cursor.execute(
                "SELECT event.id::text, version, state::text FROM event JOIN processing_state ON event_id = event.id"
                " WHERE audience = %s",
                [self.audience],
            )
            return [(id_, version, state) for id_, version, state in cursor.fetchall()]

    def has_settled(self, count: int) -> bool:
        return sum(state in SETTLED for _, state in self.shown.values()) >= count

    def _show(self, id_: str, version: int, state: str) -> None:
        if version > self.shown.get(id_, (0, ""))[0]:
            self.shown[id_] = (version, state)


def truth(page: Page) -> dict[str, tuple[int, str]]:
    return {id_: (version, state) for id_, version, state in page.stored()}


@pytest.mark.xdist_group("shared-stack")
def test_l23_a_snapshot_and_the_stream_after_it_are_the_database(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent
) -> None:
    page = Page(e2e_stack, client, f"user-{uuid4().hex}")
    has_begun = threading.Event()

    def write(index: int) -> None:
        client.send(push_event(audience=page.audience))
        if index == 50:
            has_begun.set()

    with ThreadPoolExecutor(8) as writers:
        writing = [writers.submit(write, index) for index in range(350)]  # about 1,000 changes of state
        assert has_begun.wait(60)
        with page.open() as connection:
            page.read_until(connection, lambda page: page.has_settled(350))
        for each in writing:
            each.result()

    assert page.shown == truth(page)
    assert len(page.shown) == 350
    assert page.frames.count("update") > 350


@pytest.fixture(scope="module")
def stack(server_folder: Path, pooler: Any) -> Iterator[Stack]:
    """A stack for the tests that break it."""
    with Stack(server_folder / uuid4().hex, pooler=pooler) as stack:
        yield stack


@pytest.mark.soak
def test_l09_redis_is_down_for_a_minute_while_events_are_processed(stack: Stack, push_event: MakeEvent) -> None:
    with Client(stack.ingest_url, stack.api_key) as client:
        page = Page(stack.describe(), client, f"user-{uuid4().hex}")
        with page.open() as connection:
            page.read_until(connection, lambda page: "subscribed" in page.frames)

            stack.redis.stop()
            page.read_until(connection, lambda page: "status" in page.frames)
            writing = threading.Thread(target=write_for, args=(60, client, push_event, page.audience))
            writing.start()
            with pytest.raises(InvalidStatus) as refused, page.open():
                pass
            while writing.is_alive():
                answer_pings(connection, seconds=1)
            processed = sum(state == "processed" for _, _, state in page.stored())
            stack.redis.start()
            page.read_until(connection, lambda page: page.has_settled(30))

        assert refused.value.response.status_code == 503
        assert processed >= 25
        assert page.shown == truth(page)


@pytest.mark.soak
def test_l10_after_a_flush_what_is_fetched_again_is_the_database(stack: Stack, push_event: MakeEvent) -> None:
    with Client(stack.ingest_url, stack.api_key) as client:
        page = Page(stack.describe(), client, f"user-{uuid4().hex}")
        with page.open() as connection:
            page.read_until(connection, lambda page: "subscribed" in page.frames)
            for _ in range(20):
                client.send(push_event(audience=page.audience))
            stack.redis.execute("FLUSHALL")
            for _ in range(20):
                client.send(push_event(audience=page.audience))
            page.read_until(connection, lambda page: "gap" in page.frames and page.has_settled(40))

        assert page.shown == truth(page)


def write_for(seconds: float, client: Client, push_event: MakeEvent, audience: str) -> None:
    """30 events, spread over the time."""
    pause = threading.Event()
    for _ in range(30):
        client.send(push_event(audience=audience))
        pause.wait(seconds / 30)


def answer_pings(connection: ClientConnection, *, seconds: float) -> None:
    try:
        frame = json.loads(connection.recv(timeout=seconds))
    except TimeoutError:
        return
    assert frame["type"] in ("ping", "status"), frame
    if frame["type"] == "ping":
        connection.send('{"type":"pong"}')
