"""The live client against a real WebSocket server that speaks from a script."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from holdfast.client import ApiProblem, Gap, LiveClosed, Status, Subscribed, Unreachable, UpdateReceived, watch

TOPIC = "audience:user-42"

Scene = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


def update(offset: int, version: int, *, step: int = 0, event_id: str = "e1", topic: str = TOPIC) -> str:
    event = {"id": event_id, "type": "t", "state": "queued", "version": version, "step": step, "attempt": 0}
    return json.dumps({"type": "update", "topic": topic, "pos": f"a:{offset}", "event": event})


def subscribed(offset: int, recovered: bool | None = None) -> str:
    return json.dumps({"type": "subscribed", "topic": TOPIC, "pos": f"a:{offset}", "recovered": recovered})


@asynccontextmanager
async def gateway(*scenes: Scene, ping_s: float = 25) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that plays a scene a connection, the last one again and again; yields its address and the hellos."""
    hellos: list[dict[str, Any]] = []
    welcome = {"type": "welcome", "session": "s", "ttl_s": 600, "ping_s": ping_s, "node": "n", "limits": {}}

    async def play(connection: ServerConnection) -> None:
        hellos.append(json.loads(await connection.recv()))
        await connection.send(json.dumps(welcome))
        await scenes[min(len(hellos), len(scenes)) - 1](connection, hellos[-1])

    async with serve(play, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", hellos


def telling(*frames: str) -> Scene:
    """A scene: these frames, and then nothing."""

    async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
        for frame in frames:
            await connection.send(frame)
        await connection.wait_closed()

    return scene


serving = telling(subscribed(1))
"""The topic is live, and nothing happens in it."""


async def collect(url: str, count: int, **options: Any) -> list[Any]:
    defaults = {"token": "jwt", "topics": [TOPIC]}
    frames = []
    async with asyncio.timeout(20), aclosing(watch(url, **(defaults | options))) as watching:
        async for frame in watching:
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def test_frames_come_as_values_in_their_order() -> None:
    gap = json.dumps({"type": "gap", "topic": TOPIC, "pos": "b:0", "reason": "epoch", "jitter_ms": 1})
    scene = telling(subscribed(7), '{"type":"status","state":"degraded"}', update(8, 1), gap)

    async def scenario() -> None:
        async with gateway(scene) as (url, hellos):
            frames = await collect(url, 4)
        assert [type(frame) for frame in frames] == [Subscribed, Status, UpdateReceived, Gap]
        assert hellos == [{"type": "hello", "v": 1, "token": "jwt", "attempt": 1, "topics": [TOPIC], "positions": {}}]

    asyncio.run(scenario())


def test_a_lost_connection_is_resumed_after_the_last_position() -> None:
    async def first(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(subscribed(7))
        await connection.send(update(8, 1))
        connection.transport.abort()

    second = telling(update(9, 2), subscribed(9, recovered=True))

    async def scenario() -> None:
        async with gateway(first, second) as (url, hellos):
            frames = await collect(url, 4)
        assert [frame.pos for frame in frames] == ["a:7", "a:8", "a:9", "a:9"]
        assert hellos[1]["positions"] == {TOPIC: "a:8"}
        assert [hello.get("session") for hello in hellos] == [None, "s"]
        assert [hello["attempt"] for hello in hellos] == [1, 2], "an abandoned connection's late hello is told by it"

    asyncio.run(scenario())


def test_a_token_function_that_fails_is_called_again() -> None:
    answers: list[Any] = [RuntimeError("the backend is away"), KeyError("token"), "second"]

    def token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def scenario() -> None:
        async with gateway(serving) as (url, hellos):
            frames = await collect(url, 2, token=token)
        assert frames[0] == Status("disconnected", "no token: the backend is away")
        assert isinstance(frames[1], Subscribed)
        assert [hello["token"] for hello in hellos] == ["second"]

    asyncio.run(scenario())


def test_a_token_function_may_be_async() -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return "from afar"

    async def scenario() -> None:
        for function in (token, lambda: token()):
            async with gateway(serving) as (url, hellos):
                await collect(url, 1, token=function)
            assert hellos[0]["token"] == "from afar"

    asyncio.run(scenario())


def test_positions_of_an_earlier_watch_are_resumed() -> None:
    async def scenario() -> None:
        async with gateway(telling(subscribed(9, recovered=True))) as (url, hellos):
            await collect(url, 1, positions={TOPIC: "a:3"})
        assert hellos[0]["positions"] == {TOPIC: "a:3"}

    asyncio.run(scenario())


def test_what_tells_nothing_new_of_an_event_is_dropped() -> None:
    known = [update(1, 2), update(2, 1), update(3, 2)]
    scene = telling(*known, update(4, 2, step=1), update(5, 1, event_id="e2"), update(6, 3))

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

    async def scenario() -> None:
        tokens = iter(["first", "second"])
        async with gateway(closing, serving) as (url, hellos):
            await collect(url, 1, token=lambda: next(tokens))
        assert [hello["token"] for hello in hellos] == ["first", "second"]

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [Unreachable("nobody there"), ApiProblem(503, {"code": "busy", "detail": "later"})])
def test_a_token_that_is_not_to_be_had_now_is_asked_for_again(failure: Exception) -> None:
    outcomes: list[Any] = [failure, "jwt"]

    def token() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    async def scenario() -> None:
        async with gateway(serving) as (url, hellos):
            status, _ = await collect(url, 2, token=token)
        assert (status.state, status.detail) == ("disconnected", f"no token: {failure}")
        assert len(hellos) == 1

    asyncio.run(scenario())


def test_a_token_that_is_refused_ends_the_watch() -> None:
    def token() -> str:
        raise ApiProblem(403, {"code": "forbidden", "detail": "this key may not"})

    with pytest.raises(ApiProblem, match="this key may not"):
        asyncio.run(collect("ws://127.0.0.1:1", 1, token=token))


def test_a_topic_that_is_refused_ends_the_watch() -> None:
    refusal = '{"type":"error","code":"forbidden","message":"not yours","temporary":false}'

    async def scenario() -> None:
        async with gateway(telling(refusal)) as (url, _):
            with pytest.raises(LiveClosed, match="forbidden: not yours"):
                await collect(url, 1)

    asyncio.run(scenario())


def test_an_event_that_comes_by_two_topics_is_told_once_and_both_positions_are_kept() -> None:
    other = "tenant:acme"

    async def first(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.send(update(1, 1))
        await connection.send(update(5, 1, topic=other))
        await connection.send(update(6, 2, topic=other))
        await connection.send(update(2, 2))
        await connection.close(4001, "drain")

    async def scenario() -> None:
        async with gateway(first, serving) as (url, hellos):
            frames = await collect(url, 3, topics=[TOPIC, other])
        assert [(frame.topic, frame.pos) for frame in frames[:2]] == [(TOPIC, "a:1"), (other, "a:6")]
        assert hellos[1]["positions"] == {TOPIC: "a:2", other: "a:6"}

    asyncio.run(scenario())


def test_pings_are_answered_while_the_caller_is_busy_with_a_frame() -> None:
    async def scenario() -> None:
        is_answered = asyncio.Event()

        async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
            await connection.send(subscribed(1))
            await connection.send('{"type":"ping"}')
            assert json.loads(await connection.recv()) == {"type": "pong"}
            is_answered.set()
            await connection.wait_closed()

        async with (
            gateway(scene) as (url, _),
            asyncio.timeout(20),
            aclosing(watch(url, "jwt", topics=[TOPIC])) as frames,
        ):
            await anext(frames)
            await is_answered.wait()  # nobody asks for the next frame meanwhile

    asyncio.run(scenario())


def test_a_gateway_that_falls_silent_is_left_for_another_connection() -> None:
    async def scenario() -> None:
        # Longer than 15 s after a ping was due is dead. Due this long ago, that is after a fifth of a second.
        async with gateway(serving, ping_s=-14.8) as (url, hellos):
            await collect(url, 2)
        assert len(hellos) == 2

    asyncio.run(scenario())


def test_a_gateway_that_goes_away_is_not_asked_again_before_it_said() -> None:
    async def leaving(connection: ServerConnection, _: dict[str, Any]) -> None:
        protocol = connection.protocol
        protocol.send_text(b'{"type":"ping"}')  # which cannot be answered: all three arrive in one piece
        protocol.send_text(b'{"type":"reconnect","after_ms":1000}')
        protocol.send_close(4001, "drain")
        connection.transport.write(b"".join(protocol.data_to_send()))
        await connection.wait_closed()

    async def scenario() -> None:
        async with gateway(leaving, serving) as (url, hellos):
            began = time.monotonic()
            await collect(url, 1)
        assert time.monotonic() - began >= 1
        assert len(hellos) == 2

    asyncio.run(scenario())


def test_a_gateway_that_is_not_there_is_said_once_and_asked_again_until_it_is() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        async with asyncio.timeout(20), aclosing(watch(f"ws://127.0.0.1:{port}", "jwt", topics=[TOPIC])) as frames:
            status = await anext(frames)
            following = asyncio.ensure_future(anext(frames))
            async with serve(answering, "127.0.0.1", port):
                assert await following == Subscribed(TOPIC, "a:1", None)
        assert isinstance(status, Status)
        assert status.state == "disconnected"
        assert str(port) in status.detail

    async def answering(connection: ServerConnection) -> None:
        await serving(connection, {})

    asyncio.run(scenario())


@asynccontextmanager
async def refusing(*statuses: int, retry_after: str = "0") -> AsyncIterator[str]:
    """A server that refuses handshakes with these statuses in their order, and then serves."""
    left = list(statuses)

    def process(connection: ServerConnection, _: Request) -> Response | None:
        if not left:
            return None
        response = connection.respond(left.pop(0), "no")
        response.headers["Retry-After"] = retry_after
        return response

    async def play(connection: ServerConnection) -> None:
        await serving(connection, {})

    async with serve(play, "127.0.0.1", 0, process_request=process) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_gateway_that_can_not_serve_now_is_asked_again_when_it_said() -> None:
    async def scenario() -> None:
        async with refusing(503, retry_after="1") as url:
            began = time.monotonic()
            status, live = await collect(url, 2)
        assert time.monotonic() - began >= 1
        assert "503" in status.detail
        assert live == Subscribed(TOPIC, "a:1", None)

    asyncio.run(scenario())


def test_an_address_that_is_no_gateway_s_ends_the_watch() -> None:
    async def scenario() -> None:
        async with refusing(404, 404) as url:
            with pytest.raises(Unreachable, match="HTTP 404; is it the gateway's address"):
                await collect(url, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/v1/live", "nonsense"])
def test_an_address_of_another_kind_ends_the_watch(address: str) -> None:
    with pytest.raises(Unreachable, match="cannot be used"):
        asyncio.run(collect(address, 1))


@pytest.mark.parametrize("said", ["hello!", "[]", "{}", '{"type":"welcome"}'])
def test_another_protocol_ends_the_watch(said: str) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(said)
        await connection.wait_closed()

    async def scenario() -> None:
        async with serve(play, "127.0.0.1", 0) as server:
            with pytest.raises(Unreachable, match=r"does not speak live\.v1"):
                await collect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1)

    asyncio.run(scenario())


def test_a_refusal_for_now_is_tried_again_on_a_new_connection() -> None:
    expired = '{"type":"error","code":"token_expired","message":"send a new one","temporary":true,"retry_ms":0}'

    async def scenario() -> None:
        async with gateway(telling(expired), serving) as (url, hellos):
            await collect(url, 1)
        assert len(hellos) == 2

    asyncio.run(scenario())


def test_topics_are_named_as_the_gateway_names_them() -> None:
    """Otherwise an event id in capitals would have a position under one name and be resumed under another."""

    async def scenario() -> None:
        async with gateway(serving) as (url, hellos):
            await collect(url, 1, topics=["event:01A20CE1A999725385BB3C3E269307A2", "event:x", "audience:A"])
        assert hellos[0]["topics"] == ["event:01a20ce1-a999-7253-85bb-3c3e269307a2", "event:x", "audience:A"]

    asyncio.run(scenario())


def test_leaving_closes_the_connection() -> None:
    async def scenario() -> None:
        is_closed = asyncio.Event()

        async def scene(connection: ServerConnection, _: dict[str, Any]) -> None:
            await connection.send(subscribed(1))
            await connection.wait_closed()
            is_closed.set()

        async with gateway(scene) as (url, _):
            await collect(url, 1)
            async with asyncio.timeout(5):
                await is_closed.wait()

    asyncio.run(scenario())
