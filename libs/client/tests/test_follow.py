"""Snapshot, then stream, against a WebSocket server that speaks from a script and a snapshot that the test decides."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from holdfast.client import ApiProblem, StoredEvent, Unreachable, follow

TOPICS = ["audience:a", "audience:b"]

Told = list[tuple[str, int, str]]


class Gateway:
    """A gateway that the test scripts, and the events that were yielded so far."""

    def __init__(self) -> None:
        self.url = ""
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.told: Told = []
        self._tells = asyncio.Condition()

    async def tell(self, event: Mapping[str, Any]) -> int:
        async with self._tells:
            self.told.append((event.get("id") or event["event_id"], event["version"], event["state"]))
            self._tells.notify_all()
        return len(self.told)

    async def until_told(self, count: int) -> None:
        async with self._tells:
            await self._tells.wait_for(lambda: len(self.told) >= count)

    async def play(self, connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(json.dumps({"type": "welcome", "session": "s", "ping_s": 25}))
        await self.connections.put(connection)
        await connection.wait_closed()


async def say(connection: ServerConnection, type_: str, topic: str = TOPICS[0], **more: Any) -> None:
    await connection.send(json.dumps({"type": type_, "topic": topic, "pos": "a:1", "recovered": None, **more}))


async def move(
    connection: ServerConnection, event_id: str, version: int, *, step: int = 0, state: str = "live"
) -> None:
    await say(connection, "update", event={"id": event_id, "version": version, "step": step, "state": state})


def stored(event_id: str, version: int) -> dict[str, Any]:
    """As the API lists an event."""
    return {"event_id": event_id, "version": version, "state": "stored"}


def run(scenario: Callable[[Gateway, ServerConnection], Any], fetch: Callable[[], Any], *, count: int) -> Told:
    """The first ``count`` events yielded while the gateway plays the scenario."""
    gateway = Gateway()

    async def watch() -> None:
        async with aclosing(follow(gateway.url, "jwt", topics=TOPICS, fetch=fetch)) as events:
            async for event in events:
                if await gateway.tell(event) == count:
                    return

    async def play() -> None:
        async with asyncio.timeout(20), serve(gateway.play, "127.0.0.1", 0) as server:
            gateway.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch())
                await scenario(gateway, await gateway.connections.get())

    asyncio.run(play())
    return gateway.told


async def go_live(_: Gateway, connection: ServerConnection) -> None:
    for topic in TOPICS:
        await say(connection, "subscribed", topic)


def test_nothing_is_told_before_the_snapshot_and_nothing_older_after_it() -> None:
    asked, let_go = threading.Event(), threading.Event()

    def fetch() -> Any:
        asked.set()
        assert let_go.wait(10)
        return iter([stored("e1", 2), stored("e2", 1)])

    async def scenario(gateway: Gateway, connection: ServerConnection) -> None:
        await move(connection, "e3", 1)  # before the topics are live
        await go_live(gateway, connection)
        await asyncio.to_thread(asked.wait, 10)
        await move(connection, "e1", 2)  # the snapshot has it
        await move(connection, "e2", 3)
        await move(connection, "e2", 2)  # by another topic, late
        let_go.set()
        await move(connection, "e1", 3)

    assert run(scenario, fetch, count=5) == [
        ("e1", 2, "stored"), ("e2", 1, "stored"), ("e3", 1, "live"), ("e2", 3, "live"), ("e1", 3, "live"),
    ]  # fmt: skip


def test_what_is_kept_back_is_told_in_the_order_in_which_it_came() -> None:
    all_has_come = threading.Event()

    def fetch_in_vain() -> Any:
        assert all_has_come.wait(10)
        return []

    def fetch_again() -> Any:  # for the gap, and so after all that came before it
        all_has_come.set()
        return []

    fetches = [fetch_in_vain, fetch_again]

    async def scenario(gateway: Gateway, connection: ServerConnection) -> None:
        await go_live(gateway, connection)
        for event_id, version in [("e1", 2), ("e2", 1), ("e1", 3)]:
            await move(connection, event_id, version)
        await say(connection, "gap", reason="epoch", jitter_ms=0)

    assert run(scenario, lambda: fetches.pop(0)(), count=2) == [("e2", 1, "live"), ("e1", 3, "live")]


def test_the_snapshot_is_fetched_once_all_topics_are_live() -> None:
    fetches: list[int] = []

    async def scenario(_: Gateway, connection: ServerConnection) -> None:
        await say(connection, "subscribed", TOPICS[0])
        await say(connection, "gap", TOPICS[0], reason="epoch", jitter_ms=0)
        fetches.append(0)
        await say(connection, "subscribed", TOPICS[1])

    def fetch() -> Any:
        fetches.append(1)
        return [stored("e1", 1)]

    assert run(scenario, fetch, count=1) == [("e1", 1, "stored")]
    assert fetches == [0, 1]


def test_after_a_gap_it_is_fetched_again() -> None:
    snapshots = [[stored("e1", 1)], [stored("e1", 4), stored("e2", 1)]]

    async def scenario(gateway: Gateway, connection: ServerConnection) -> None:
        await go_live(gateway, connection)
        await move(connection, "e1", 2)
        await gateway.until_told(2)
        await say(connection, "gap", reason="epoch", jitter_ms=5)
        await say(connection, "subscribed", recovered=False)

    assert run(scenario, lambda: snapshots.pop(0), count=4)[2:] == [("e1", 4, "stored"), ("e2", 1, "stored")]


def test_a_snapshot_that_is_not_to_be_had_now_is_asked_for_again() -> None:
    answers: list[Any] = [Unreachable("no"), ApiProblem(503, {"code": "busy"}), KeyError("items"), [stored("e1", 1)]]

    def fetch() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert run(go_live, fetch, count=1) == [("e1", 1, "stored")]


def test_a_snapshot_may_be_fetched_by_an_async_function() -> None:
    async def fetch() -> Any:
        await asyncio.sleep(0)
        return (stored(name, 1) for name in ("e1", "e2"))

    assert run(go_live, fetch, count=2) == [("e1", 1, "stored"), ("e2", 1, "stored")]
    assert run(go_live, lambda: fetch(), count=2) == [("e1", 1, "stored"), ("e2", 1, "stored")]


def test_a_snapshot_may_have_mappings_and_the_client_s_events(event_body: Callable[..., dict[str, Any]]) -> None:
    listed = StoredEvent.read(event_body(event_id="e2", version=3, state="stored"))

    async def fetch() -> Any:
        return [stored("e1", 1), listed]

    async def scenario(gateway: Gateway, connection: ServerConnection) -> None:
        await go_live(gateway, connection)
        await gateway.until_told(2)
        await move(connection, "e2", 3)  # the snapshot has it
        await move(connection, "e2", 4)

    expected = [("e1", 1, "stored"), ("e2", 3, "stored"), ("e2", 4, "live")]
    assert run(scenario, fetch, count=3) == expected
    assert run(scenario, lambda: iter([stored("e1", 1), listed]), count=3) == expected


def test_a_snapshot_that_is_refused_ends_it() -> None:
    def fetch() -> Any:
        raise ApiProblem(403, {"code": "forbidden"})

    with pytest.raises(ExceptionGroup) as raised:
        run(go_live, fetch, count=1)

    assert raised.group_contains(ApiProblem)
