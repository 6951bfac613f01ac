"""Clients that keep to WebSocket's letter and to nothing else: floods of tiny frames, pings, endless messages."""

import contextlib
import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


@pytest.fixture
def raw(gateway: Any) -> Iterator[ClientConnection]:
    """A WebSocket that has said nothing, and whose socket takes any bytes."""
    with connect(gateway.live, compression=None, ping_interval=None, close_timeout=1) as connection:
        yield connection


def deaf(gateway: Any) -> socket.socket:
    """A WebSocket that is never read from."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", int(gateway.http.rpartition(":")[2])))
    sock.sendall(
        b"GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return sock


def pour(sock: socket.socket, *frames: bytes) -> None:
    """Send, as far as the gateway lets it."""
    with contextlib.suppress(OSError):
        for each in frames:
            sock.sendall(each)


def close_code(connection: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=10)
    return connection.close_code


def livez_seconds(gateway: Any) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(f"{gateway.http}/livez", timeout=10) as answer:  # noqa: S310 (loopback)
        assert answer.status == 200
    return time.monotonic() - began


def test_a_flood_of_empty_continuations_is_cut_and_holds_nobody_up(gateway: Any, raw: ClientConnection) -> None:
    flood = frame(Opcode.TEXT, b"{", fin=False) + frame(Opcode.CONT, fin=False) * 200_000  # 1.2 MB

    pour(raw.socket, flood)

    assert livez_seconds(gateway) < 3
    assert close_code(raw) in (4006, None), "closed, or dropped while it was still sending"


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("is_welcome", [True, False])
def test_control_frames_count_against_the_rate(
    raw: ClientConnection, tenant: Any, opcode: Opcode, is_welcome: bool
) -> None:
    if is_welcome:
        raw.send(json.dumps({"type": "hello", "v": 1, "token": tenant.token()}))
        assert json.loads(raw.recv(timeout=10))["type"] == "welcome"

    pour(raw.socket, frame(opcode, b"x" * 100) * 300)

    assert close_code(raw) == 4006


def test_a_message_in_endless_parts_is_refused(raw: ClientConnection) -> None:
    pour(raw.socket, frame(Opcode.TEXT, b"{", fin=False) + frame(Opcode.CONT, b" ", fin=False) * 70)

    assert close_code(raw) == 4500


def test_a_hello_in_some_parts_is_understood(raw: ClientConnection, tenant: Any) -> None:
    hello = json.dumps({"type": "hello", "v": 1, "token": tenant.token()}).encode()
    parts = [hello[start : start + 20] for start in range(0, len(hello), 20)][:30]
    parts[-1] = hello[20 * (len(parts) - 1) :]

    first, *others, last = parts
    pour(raw.socket, frame(Opcode.TEXT, first, fin=False), *(frame(Opcode.CONT, part, fin=False) for part in others))
    pour(raw.socket, frame(Opcode.PING, b"?"), frame(Opcode.CONT, last))

    assert json.loads(raw.recv(timeout=10))["type"] == "welcome"


def memory_kib(pid: int) -> int:
    [line] = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_answers_to_pings_that_nobody_reads_stay_bounded(start_gateway: Callable[..., Any], valkey: Any) -> None:
    gateway = start_gateway(valkey.url())
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(deaf(gateway)) for _ in range(20)]
        before = memory_kib(gateway.process.pid)

        for _ in range(100):
            for each in sockets:
                pour(each, frame(Opcode.PING, b"x" * 125) * 200)

        assert memory_kib(gateway.process.pid) - before < 20 * 1024, "20 clients sent 50 MiB of pings"
        assert livez_seconds(gateway) < 3


def test_joining_and_leaving_topics_without_end_is_cut(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token("audience:*"))

    with contextlib.suppress(ConnectionClosed):
        for turn in range(8):
            names = [f"audience:{turn}-{number}" for number in range(100)]
            client.send(type="subscribe", id=turn, topics=[{"topic": name} for name in names])
            client.send(type="unsubscribe", id=turn, topics=names)

    assert client.close_code() == 4006


def test_topics_without_updates_are_forgotten_soon(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(
        gateway,
        tenant.token("audience:*", tenant.topic),
        *(f"audience:quiet-{number}" for number in range(50)),
        tenant.topic,
    )
    for _ in range(51):
        client.take("subscribed")
    tenant.publish(1)
    client.take("update")

    lives = {key.decode(): tenant.redis.ttl(key) for key in tenant.redis.keys(f"live:meta:{tenant.name}:*")}

    quiet = [seconds for key, seconds in lives.items() if "quiet" in key]
    assert len(quiet) == 50
    assert max(quiet) <= 60
    assert all(seconds > 500 for key, seconds in lives.items() if "quiet" not in key), (
        "one with updates keeps its window"
    )
