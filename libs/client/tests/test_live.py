"""The live client against a real WebSocket server that speaks from a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from holdfast.client import Gap, LiveClosed, Status, Subscribed, UpdateReceived, watch

TOPIC = "audience:user-42"

Scene = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


def update(offset: int, version: int, *, step: int = 0, event_id: str = "e1") -> str:
    event = {"id": event_id, "type": "t", "state": "queued", "version": version, "step": step, "attempt": 0}
    return json.dumps({"type": "update", "topic": TOPIC, "pos": f"a:{offset}", "event": event})


def subscribed(offset: int, recovered: bool | None = None) -> str:
    return json.dumps({"type": "subscribed", "topic": TOPIC, "pos": f"a:{offset}", "recovered": recovered})


@asynccontextmanager
async def gateway(*scenes: Scene) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that plays a scene a connection, the last one again and again; yields its address and the hellos."""
    hellos: list[dict[str, Any]] = []

    async def play(connection: ServerConnection) -> None:
        hellos.append(json.loads(await connection.recv()))
        await connection.send('{"type":"welcome","session":"s","ttl_s":600,"ping_s":25,"node":"n","limits":{}}')
        await scenes[min(len(hellos), len(scenes)) - 1](connection, hellos[-1])

    async with serve(play, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", hellos


async def collect(url: str, count: int, **options: Any) -> list[Any]:
    frames = []
    async with asyncio.timeout(20), aclosing(watch(url, "jwt", topics=[TOPIC], **options)) as watching:
        async for frame in watching:
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def test_frames_come_as_values_in_their_order() -> None:
    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(7))
        await connection.send('{"type":"status","state":"degraded"}')
        await connection.send(update(8, 1))
        await connection.send(
            json.dumps({"type": "gap", "topic": TOPIC, "pos": "b:0", "reason": "epoch", "jitter_ms": 1})
        )
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(scene) as (url, hellos):
            frames = await collect(url, 4)
        assert [type(frame) for frame in frames] == [Subscribed, Status, UpdateReceived, Gap]
        assert hellos == [{"type": "hello", "v": 1, "token": "jwt", "topics": [TOPIC], "positions": {}}]

    asyncio.run(scenario())


def test_a_lost_connection_is_resumed_after_the_last_position() -> None:
    async def first(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(7))
        await connection.send(update(8, 1))
        connection.transport.abort()

    async def second(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(update(9, 2))
        await connection.send(subscribed(9, recovered=True))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(first, second) as (url, hellos):
            frames = await collect(url, 4)
        assert [frame.pos for frame in frames] == ["a:7", "a:8", "a:9", "a:9"]
        assert hellos[1]["positions"] == {TOPIC: "a:8"}

    asyncio.run(scenario())


def test_positions_of_an_earlier_watch_are_resumed() -> None:
    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(9, recovered=True))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(scene) as (url, hellos):
            await collect(url, 1, positions={TOPIC: "a:3"})
        assert hellos[0]["positions"] == {TOPIC: "a:3"}

    asyncio.run(scenario())


def test_what_tells_nothing_new_of_an_event_is_dropped() -> None:
    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(update(1, 2))
        await connection.send(update(2, 1))
        await connection.send(update(3, 2))
        await connection.send(update(4, 2, step=1))
        await connection.send(update(5, 1, event_id="e2"))
        await connection.send(update(6, 3))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(scene) as (url, _):
            frames = await collect(url, 4)
        assert [frame.pos for frame in frames] == ["a:1", "a:4", "a:5", "a:6"]

    asyncio.run(scenario())


def test_pings_are_answered() -> None:
    answers = []

    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send('{"type":"ping"}')
        answers.append(json.loads(await connection.recv()))
        await connection.send(subscribed(1))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(scene) as (url, _):
            await collect(url, 1)

    asyncio.run(scenario())
    assert answers == [{"type": "pong"}]


@pytest.mark.parametrize(
    ("code", "is_final"), [(4001, False), (4004, False), (4499, False), (4500, True), (4501, True)]
)
def test_close_codes_say_whether_to_come_back(code: int, is_final: bool) -> None:
    async def closing(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.close(code, "because")

    async def serving(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(1))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(closing, serving) as (url, hellos):
            if is_final:
                with pytest.raises(LiveClosed, match="because") as caught:
                    await collect(url, 1)
                assert caught.value.code == code
            else:
                await collect(url, 1)
            assert len(hellos) == (1 if is_final else 2)

    asyncio.run(scenario())


def test_every_connection_asks_for_a_token_of_its_own() -> None:
    async def closing(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.close(4004, "expired")

    async def serving(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(1))
        await connection.wait_closed()

    async def scenario() -> None:
        tokens = iter(["first", "second"])
        async with (
            gateway(closing, serving) as (url, hellos),
            asyncio.timeout(20),
            aclosing(watch(url, lambda: next(tokens), topics=[TOPIC])) as watching,
        ):
            await anext(watching)
        assert [hello["token"] for hello in hellos] == ["first", "second"]

    asyncio.run(scenario())


def test_a_topic_that_is_refused_ends_the_watch() -> None:
    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send('{"type":"error","code":"forbidden","message":"not yours","temporary":false}')
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(scene) as (url, _):
            with pytest.raises(LiveClosed, match="forbidden: not yours"):
                await collect(url, 1)

    asyncio.run(scenario())
