"""What is kept in memory for clients that come back, and what is read for all of them at once."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError
from websockets.asyncio.client import connect

from holdfast.domain.position import GapReason, Position
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.redis.echo import Echo
from holdfast.gateway.topics.history import History
from holdfast.gateway.topics.replay import Replays
from holdfast.local.servers import Valkey
from holdfast.messaging.live import TopicReading

E1, E2 = "run1-1", "run2-2"


def frame(offset: int) -> Frame:
    return Frame(b"%05d" % offset)


def offsets(frames: list[Frame] | None) -> list[int] | None:
    return None if frames is None else [int(each.payload) for each in frames]


def history_of(*appended: int, begin: int = 0, frames: int = 100, size_bytes: int = 10_000) -> History:
    history = History(frames=frames, size_bytes=size_bytes)
    history.begin(Position(E1, begin))
    for offset in appended:
        history.append(Position(E1, offset), frame(offset))
    return history


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (Position(E1, 10), [11, 12, 13]),
        (Position(E1, 12), [13]),
        (Position(E1, 13), []),
        (Position(E1, 9), None),
        (Position(E1, 14), None),
        (Position(E2, 12), None),
    ],
)
def test_a_history_gives_everything_after_a_position_or_nothing(since: Position, expected: list[int] | None) -> None:
    assert offsets(history_of(11, 12, 13, begin=10).after(since)) == expected


def test_a_history_keeps_the_newest_within_its_bounds() -> None:
    by_count = history_of(*range(1, 8), frames=3)
    by_size = history_of(*range(1, 8), size_bytes=14)

    assert offsets(by_count.after(Position(E1, 4))) == [5, 6, 7]
    assert by_count.after(Position(E1, 3)) is None
    assert offsets(by_size.after(Position(E1, 5))) == [6, 7]
    assert by_size.after(Position(E1, 4)) is None


def test_a_history_with_a_hole_begins_anew() -> None:
    history = history_of(1, 2)

    history.append(Position(E1, 4), frame(4))

    assert history.after(Position(E1, 2)) is None
    assert history.after(Position(E1, 4)) == []


def test_a_history_is_filled_with_older_frames_that_lead_up_to_it() -> None:
    history = history_of(11, 12, begin=10)

    history.fill(Position(E1, 6), [frame(offset) for offset in range(7, 12)])
    history.fill(Position(E2, 0), [frame(99)] * 6)
    history.fill(Position(E1, 0), [frame(1), frame(2)])

    assert offsets(history.after(Position(E1, 6))) == [7, 8, 9, 10, 11, 12]
    assert history.after(Position(E1, 5)) is None


class Stream:
    """A topic's stream; counts how often it was read, and publishes one more after each reading."""

    def __init__(self, top: int, *, epoch: str = E1, first: int = 1, limit: int = 500) -> None:
        self.top = top
        self.epoch = epoch
        self.first = first
        self.limit = limit
        self.reads: list[int] = []

    async def read(self, since: int) -> TopicReading:
        self.reads.append(since)
        top = self.top
        self.top += 1
        await asyncio.sleep(0)
        is_complete = since < top and top - since <= self.limit and self.first <= since + 1
        entries = [(offset, b"%05d" % offset) for offset in range(since + 1, top + 1)] if is_complete else []
        return TopicReading(self.epoch, top, self.first, entries)


def ask(stream: Stream, *positions: Position) -> list[tuple[GapReason | None, list[int] | None]]:
    async def run() -> list[tuple[GapReason | None, list[int] | None]]:
        replays = Replays(
            history_of(), read=stream.read, frame=lambda _, __, body: Frame(body), replay_limit=stream.limit
        )
        answers = await asyncio.gather(*(replays.after(position) for position in positions))
        return [(answer.reason, offsets(answer.frames)) for answer in answers]

    return asyncio.run(run())


def test_everybody_who_asks_at_once_is_answered_by_one_reading() -> None:
    stream = Stream(20)

    answers = ask(stream, *(Position(E1, offset) for offset in (17, 15, 20, 15)))

    assert stream.reads == [15]
    assert answers == [(None, [18, 19, 20]), (None, [16, 17, 18, 19, 20]), (None, []), (None, [16, 17, 18, 19, 20])]


def test_one_who_missed_too_much_does_not_spoil_it_for_the_others() -> None:
    stream = Stream(1000)

    answers = ask(stream, Position(E1, 1), Position(E1, 998), Position(E1, 400), Position("another", 990))

    assert stream.reads == [1, 998]
    assert answers == [
        (GapReason.TOO_MANY, []), (None, [999, 1000, 1001]), (GapReason.TOO_MANY, []), (GapReason.EPOCH, []),
    ]  # fmt: skip


def test_what_left_the_window_is_a_gap_for_those_who_needed_it() -> None:
    stream = Stream(20, first=15)

    answers = ask(stream, Position(E1, 3), Position(E1, 14))

    assert answers == [(GapReason.TRIMMED, []), (None, [15, 16, 17, 18, 19, 20, 21])]


def test_a_later_asker_is_told_of_later_updates() -> None:
    stream = Stream(20)

    async def run() -> list[int | None]:
        replays = Replays(history_of(), read=stream.read, frame=lambda _, __, body: Frame(body), replay_limit=500)
        first = asyncio.ensure_future(replays.after(Position(E1, 20)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stream.reads == [20], "the first reading is under way"
        second = await replays.after(Position(E1, 20))
        return [(await first).position.offset, second.position.offset]

    assert asyncio.run(run()) == [20, 21]


def test_an_echo_serves_all_who_asked_before_its_call() -> None:
    calls: list[bytes] = []

    async def run() -> None:
        is_called = asyncio.Event()

        async def call(payload: bytes) -> None:
            calls.append(payload)
            is_called.set()

        echo = Echo(call)
        waiting = [asyncio.ensure_future(echo.wait()) for _ in range(3)]
        await is_called.wait()
        is_called.clear()
        later = asyncio.ensure_future(echo.wait())
        echo.heard(calls[0])
        await asyncio.gather(*waiting)
        await is_called.wait()
        assert not later.done()
        echo.lost()
        with pytest.raises(RedisConnectionError):
            await later

    asyncio.run(run())

    assert len(calls) == 2


@pytest.mark.parametrize("clients", [200, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_storm_of_clients_that_come_back_costs_one_reading_a_topic(
    own_valkey: Valkey,
    serve: Callable[..., Any],
    start_gateway: Callable[..., Any],
    join: Any,
    tenant: Any,
    clients: int,
) -> None:
    own = type(tenant)(own_valkey.url())
    first = join(serve(redis_url=SecretStr(own_valkey.url())), own.token(), own.topic)
    start = first.take("subscribed")["pos"]
    own.publish(*range(1, 101))
    first.connection.close()
    second = start_gateway(own_valkey.url())
    before = readings(own_valkey)
    hello = {"type": "hello", "v": 1, "token": own.token(), "topics": [own.topic], "positions": {own.topic: start}}

    async def come_back() -> list[int]:
        async with connect(second.live, compression=None, open_timeout=60) as connection:
            await connection.send(json.dumps(hello))
            frames = [json.loads(await connection.recv()) for _ in range(102)]
        assert [each["type"] for each in frames] == ["welcome", *["update"] * 100, "subscribed"]
        return [each["event"]["version"] for each in frames[1:-1]]

    async def storm() -> list[list[int]]:
        return await asyncio.gather(*(come_back() for _ in range(clients)))

    received = asyncio.run(storm())

    assert received == [list(range(1, 101))] * clients
    # The topic's own first reading, and one for the first who came; the second gateway's other clients cost none.
    assert readings(own_valkey) - before <= 3
    own.redis.close()


def readings(valkey: Valkey) -> int:
    """How often the read script looked for a topic's oldest entry; nothing else does."""
    statistics = valkey.execute("INFO", "commandstats")
    calls = statistics.get("cmdstat_xrange", {}).get("calls", 0)
    return int(calls)
