"""One connection on a real socket: order, deadlines, a client that does not read. Time is told, not waited for."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from holdfast.ingest.edge.connection import (
    DISCARD_SECONDS,
    FLUSH_SECONDS,
    HEAD_SECONDS,
    KEEP_ALIVE_SECONDS,
    Connection,
    House,
)
from holdfast.ingest.edge.crowd import Crowd
from holdfast.ingest.edge.reading import Limits, Request

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
REQUEST_SECONDS = 20.0


class Bench:
    """A server whose requests the test answers, and a client."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.served: list[tuple[Connection, Request]] = []
        self.crowd: Crowd[Connection] = Crowd(most_connections=100, most_bytes=1 << 20)
        self.house = House(
            crowd=self.crowd, limits=Limits(1000, 5000), request_seconds=REQUEST_SECONDS, clock=lambda: self.now,
            serve=lambda connection, request: self.served.append((connection, request)),
            buffer=memoryview(bytearray(4096)),
        )  # fmt: skip
        self.client: socket.socket

    async def run(self, test: "Callable[[Bench], Awaitable[None]]") -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self.house), "127.0.0.1", 0)
        self.client = socket.socket()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.client.setblocking(False)
        try:
            await loop.sock_connect(self.client, server.sockets[0].getsockname())
            await self.eventually(lambda: bool(self.crowd.everybody()))
            await test(self)
        finally:
            self.client.close()
            for connection in self.crowd.everybody():
                connection.evict()
            server.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def request(self) -> Request:
        """The next one that is served."""
        await self.eventually(lambda: bool(self.served))
        return self.served[0][1]

    def answer(self, data: bytes = b"answer", *, is_last: bool = False) -> None:
        connection, request = self.served.pop(0)
        connection.answer(request, data, is_last=is_last)

    async def received(self) -> bytes:
        """Everything until the server closes."""
        data = b""
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                while piece := await asyncio.get_running_loop().sock_recv(self.client, 65536):
                    data += piece
        return data

    async def settle(self) -> None:
        """Let the server read what has been sent: the loop's turns that it takes, counted generously."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def look_at(self, now: float) -> None:
        """Some time later."""
        await self.settle()
        self.now = now
        for connection in self.crowd.everybody():
            connection.look(now)
        await self.settle()

    async def eventually(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 (a turn of the loop, not a while)
                await asyncio.sleep(0)

    @property
    def has_left(self) -> bool:
        return not self.crowd.everybody()


def on_a_connection(test: Callable[[Bench], Awaitable[None]]) -> None:
    asyncio.run(Bench().run(test))


def test_requests_sent_together_are_served_one_after_the_other() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"".join(GET % number for number in range(3)))
        for number in range(3):
            assert (await bench.request()).path == b"/%d" % number
            assert len(bench.served) == 1
            bench.answer(b"%d" % number, is_last=number == 2)
        assert await bench.received() == b"012"

    on_a_connection(test)


def test_a_broken_request_is_refused_behind_the_answers_before_it() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 + GET % 2 + b"\x00\r\n\r\n")
        await bench.request()
        bench.answer(b"one ")
        await bench.request()
        bench.answer(b"two ")
        answers = await bench.received()
        assert answers.startswith(b"one two HTTP/1.1 400 Bad Request\r\n")
        assert answers.count(b"HTTP/1.1 4") == 1

    on_a_connection(test)


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_that_closes_its_side_gets_its_answers(count: int) -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"".join(GET % number for number in range(count)))
        bench.client.shutdown(socket.SHUT_WR)
        for number in range(count):
            await bench.request()
            await bench.settle()
            bench.answer(b"%d" % number)
        assert await bench.received() == b"01"[:count]

    on_a_connection(test)


def test_a_client_that_closes_its_side_within_a_request_gets_none() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        bench.client.shutdown(socket.SHUT_WR)
        assert await bench.received() == b""
        await bench.eventually(lambda: bench.has_left)
        assert not bench.served

    on_a_connection(test)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_asks_is_told_to_go_on(version: str) -> None:
    async def test(bench: Bench) -> None:
        head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
        await bench.send(head.encode())
        await bench.settle()
        await bench.send(b"ab")
        assert bytes((await bench.request()).body) == b"ab"
        bench.answer(is_last=True)
        told = b"HTTP/1.1 100 Continue\r\n\r\n" if version == "1.1" else b""
        assert await bench.received() == told + b"answer"

    on_a_connection(test)


def test_a_client_that_asks_behind_another_request_is_told_after_its_answer() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 + b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await bench.request()
        bench.answer(b"one ")
        await bench.settle()
        await bench.send(b"ab")
        await bench.request()
        bench.answer(b"two", is_last=True)
        assert await bench.received() == b"one HTTP/1.1 100 Continue\r\n\r\ntwo"

    on_a_connection(test)


def test_a_body_that_is_announced_too_long_need_not_be_sent() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        request = await bench.request()
        assert (len(request.body), request.is_whole, request.keep_alive) == (1001, False, False)
        bench.answer(is_last=True)
        assert await bench.received() == b"answer"

    on_a_connection(test)


def test_a_body_that_is_too_long_is_not_waited_for() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + b"a" * 2000)
        await bench.look_at(bench.now + DISCARD_SECONDS - 0.1)
        assert not bench.served
        await bench.look_at(bench.now + 0.2)
        assert len((await bench.request()).body) == 1001

    on_a_connection(test)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", HEAD_SECONDS),
        (b"P", HEAD_SECONDS),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", REQUEST_SECONDS),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", REQUEST_SECONDS),
    ],
)
def test_what_does_not_arrive_in_time_ends_the_connection(sent: bytes, seconds: float) -> None:
    async def test(bench: Bench) -> None:
        await bench.send(sent)
        await bench.look_at(bench.now + seconds - 0.1)
        assert not bench.has_left
        await bench.look_at(bench.now + 0.2)
        answer = await bench.received()
        assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""

    on_a_connection(test)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"GET /1 HTTP/1.1\r\n")
        await bench.settle()
        await bench.send(b"Host: x\r\n\r\n")
        await bench.request()
        bench.answer()
        await bench.look_at(bench.now + KEEP_ALIVE_SECONDS - 0.1)
        assert not bench.has_left
        await bench.look_at(bench.now + 0.2)
        assert await bench.received() == b"answer"

    on_a_connection(test)


def test_the_time_of_a_request_that_came_with_another_begins_after_its_answer() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 + b"GET /")
        await bench.request()
        await bench.look_at(bench.now + 10 * HEAD_SECONDS)
        bench.answer(b"one ")
        await bench.look_at(bench.now + HEAD_SECONDS - 0.1)
        await bench.send(b"2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await bench.request()
        bench.answer(b"two", is_last=True)
        assert await bench.received() == b"one two"

    on_a_connection(test)


def test_a_client_that_does_not_read_gets_nothing_more_and_has_to_go() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 + GET % 2)
        await bench.request()
        bench.answer(b"a" * 8_000_000)
        await bench.settle()
        assert not bench.served  # the second one waits until the first answer has been taken
        await bench.look_at(bench.now + FLUSH_SECONDS - 0.1)
        assert not bench.has_left
        await bench.look_at(bench.now + 0.2)
        await bench.eventually(lambda: bench.has_left)

    on_a_connection(test)


def test_a_client_that_reads_late_gets_the_rest() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 + GET % 2)
        await bench.request()
        bench.answer(b"a" * 8_000_000)
        reading = asyncio.create_task(bench.received())
        await bench.request()
        bench.answer(b"b", is_last=True)
        assert await reading == b"a" * 8_000_000 + b"b"

    on_a_connection(test)


async def flood(bench: Bench) -> None:
    """More than a kernel keeps for a server that does not read."""
    data = GET % 3 * 1000
    for _ in range((32 << 20) // len(data)):
        async with asyncio.timeout(1):
            await bench.send(data)


@pytest.mark.parametrize("count", [1, 2])
def test_no_more_is_read_while_requests_wait(count: int) -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1 * count)
        await bench.request()
        with pytest.raises(TimeoutError):
            await flood(bench)

    on_a_connection(test)


def test_the_memory_of_requests_is_given_back() -> None:
    async def test(bench: Bench) -> None:
        body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + b"a" * 500
        await bench.send(body * 3 + body[:-100])
        await bench.request()
        bench.answer()
        await bench.request()
        assert bench.crowd._bytes > 1000
        bench.client.close()
        bench.answer()
        await bench.eventually(lambda: bench.has_left)
        if bench.served:
            bench.answer()
        assert bench.crowd._bytes == 0

    on_a_connection(test)


def test_a_stop_ends_idle_connections_at_once_and_others_behind_their_answer() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(GET % 1)
        await bench.request()
        bench.house.is_stopping = True
        for connection in bench.crowd.everybody():
            connection.retire()
        await bench.settle()
        assert not bench.has_left
        bench.answer()
        assert await bench.received() == b"answer"

    on_a_connection(test)
