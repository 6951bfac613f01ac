"""The proxy of the fault tests, between real sockets."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.chaos.proxy import REPLY, REQUEST, Direction, Proxy, Step

from holdfast.local.fixtures import Eventually

SILENCE_SECONDS = 0.2
"""How long to listen before taking it that nothing comes; a proxy on loopback forwards in well under a millisecond."""


class Server:
    """Takes lines and answers each with itself, until told to be quiet."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening; the connections end with their clients."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[client], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65_536):
                self.received.append(data)
                client.sendall(b"re:" + data)
        self.ended += 1


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def between(server: Server, proxy: Callable[[int], Proxy]) -> Proxy:
    return proxy(server.port)


@pytest.fixture
def connect(between: Proxy) -> Iterator[Callable[[], socket.socket]]:
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", between.port), timeout=30))


Connect = Callable[[], socket.socket]


def ask(client: socket.socket, request: bytes) -> bytes:
    client.sendall(request)
    return client.recv(65_536)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_SECONDS)
    try:
        client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        client.settimeout(30)
    return False


def test_bytes_pass_both_ways_on_every_connection(connect: Connect) -> None:
    first, second = connect(), connect()

    assert ask(first, b"one") == b"re:one"
    assert ask(second, b"two") == b"re:two"
    assert ask(first, b"three") == b"re:three"


def test_large_messages_arrive_whole(connect: Connect) -> None:
    client, body = connect(), b"0123456789" * 100_000
    received = bytearray()

    sending = threading.Thread(target=client.sendall, args=[body])
    sending.start()
    while received.replace(b"re:", b"") != body:
        received += client.recv(65_536)
    sending.join()


def test_a_stall_keeps_everything_back_until_it_is_resumed(connect: Connect, between: Proxy, server: Server) -> None:
    old = connect()
    ask(old, b"before")
    between.stall()
    new = connect()

    old.sendall(b"old")
    new.sendall(b"new")
    silent = is_silent(old) and is_silent(new)
    seen = list(server.received)
    between.resume()

    assert silent
    assert seen == [b"before"]
    assert (old.recv(100), new.recv(100)) == (b"re:old", b"re:new")
    assert ask(old, b"after") == b"re:after"


def test_a_trap_keeps_back_the_request_that_completes_its_steps(
    connect: Connect, between: Proxy, server: Server, eventually: Eventually
) -> None:
    trap = between.stall_at(Step(REQUEST, b"insert"), Step(REQUEST, b"commit"))
    client, bystander = connect(), connect()

    assert ask(client, b"commit") == b"re:commit", "a commit before the insert is none of its business"
    assert ask(client, b"insert") == b"re:insert"
    assert ask(bystander, b"commit") == b"re:commit", "nor is another connection's"
    client.sendall(b"commit")
    eventually(lambda: trap.is_sprung)

    assert is_silent(client)
    assert server.received.count(b"commit") == 2
    assert ask(bystander, b"insert") == b"re:insert"
    assert ask(bystander, b"commit") == b"re:commit", "it springs once"
    between.resume()
    assert client.recv(100) == b"re:commit"


def test_a_trap_keeps_back_a_reply_after_the_server_has_done_its_work(
    connect: Connect, between: Proxy, server: Server, eventually: Eventually
) -> None:
    trap = between.stall_at(Step(REQUEST, b"commit"), Step(REPLY, b"re:commit"))
    client = connect()

    client.sendall(b"commit")
    eventually(lambda: trap.is_sprung)

    assert server.received == [b"commit"]
    assert is_silent(client)


def test_a_pattern_split_over_two_reads_is_found(
    connect: Connect, between: Proxy, server: Server, eventually: Eventually
) -> None:
    trap = between.stall_at(Step(REQUEST, b"commit"))
    client = connect()

    assert ask(client, b"com") == b"re:com"
    client.sendall(b"mit")

    eventually(lambda: trap.is_sprung)
    assert server.received == [b"com"]


def test_a_reply_that_matches_is_lost_and_the_next_one_is_not(connect: Connect, between: Proxy) -> None:
    trap = between.drop_reply(Step(REPLY, b"two"))
    client = connect()

    assert ask(client, b"one") == b"re:one"
    client.sendall(b"two")

    assert is_silent(client)
    assert trap.is_sprung
    assert ask(client, b"three") == b"re:three"
    assert ask(client, b"two") == b"re:two", "it springs once"


def test_the_third_reply_is_lost(connect: Connect, between: Proxy) -> None:
    between.drop_reply(skip=2)
    client = connect()

    assert [ask(client, b"one"), ask(client, b"two")] == [b"re:one", b"re:two"]
    client.sendall(b"three")

    assert is_silent(client)
    assert ask(client, b"four") == b"re:four"


@pytest.mark.parametrize(("lost", "arrived"), [(REQUEST, []), (REPLY, [b"one"])], ids=["requests", "replies"])
def test_a_half_open_connection_loses_one_direction_and_stays_open(
    connect: Connect, between: Proxy, server: Server, lost: Direction, arrived: list[bytes]
) -> None:
    client = connect()
    between.half_open(lost)

    client.sendall(b"one")
    silent = is_silent(client)
    seen = list(server.received)
    between.accept()

    assert silent
    assert (seen, server.ended) == (arrived, 0)
    assert ask(client, b"two") == b"re:two"


def test_closed_connections_are_closed_at_both_ends(
    connect: Connect, between: Proxy, server: Server, eventually: Eventually
) -> None:
    clients = [connect(), connect()]
    for client in clients:
        ask(client, b"hello")

    between.close_connections()

    assert [client.recv(1) for client in clients] == [b"", b""]
    eventually(lambda: server.ended == 2)
    assert ask(connect(), b"again") == b"re:again"


def test_refused_connections_are_reset_and_open_ones_stay(connect: Connect, between: Proxy) -> None:
    client = connect()
    ask(client, b"hello")
    between.refuse()

    with pytest.raises(OSError, match="reset"):
        ask(connect(), b"refused")
    assert ask(client, b"still") == b"re:still"
    between.accept()
    assert ask(connect(), b"again") == b"re:again"


def test_a_client_that_dies_while_stalled_takes_its_bytes_with_it(
    connect: Connect, between: Proxy, server: Server, eventually: Eventually
) -> None:
    trap = between.stall_at(Step(REQUEST, b"commit"))
    client = connect()
    ask(client, b"hello")
    client.sendall(b"commit")
    eventually(lambda: trap.is_sprung)

    client.close()

    eventually(lambda: server.ended == 1, message="the server sees the end at once")
    between.resume()
    assert server.received == [b"hello"]


def test_a_server_that_is_down_is_a_reset(connect: Connect, server: Server) -> None:
    server.close()

    with pytest.raises(OSError, match="reset"):
        ask(connect(), b"hello")
