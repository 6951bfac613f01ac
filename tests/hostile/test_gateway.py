"""A gateway beside clients that come, say little and stay."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import free_port
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("hostile-gateway")

DEADLINE_SECONDS = 10
"""For a head, and for a body (``gateway.protocol.frames.LIMITS``)."""

HOSTILE = {
    "one byte": (200, b"G"),
    "an unfinished head": (200, b"GET /v1/live HTTP/1.1\r\nHost: x\r\nX-Slow: "),
    "an unfinished body": (200, b"POST /v1/live/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc"),
    "silence": (2000, b""),
}


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """This process holds the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    with Stack(server_folder / uuid4().hex) as stack:
        yield stack


def open_all(port: int) -> list[socket.socket]:
    sockets = []
    for count, said in HOSTILE.values():
        for _ in range(count):
            sockets.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            sockets[-1].sendall(said)
            sockets[-1].setblocking(False)
    return sockets


def is_gone(sock: socket.socket) -> bool:
    """Whether the gateway has closed it; what it said before does not matter."""
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def livez_seconds(url: str) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (loopback)
        assert answer.status == 200
    return time.monotonic() - began


async def welcome_seconds(stack: Stack, token: str, topic: str, act: Callable[[], str]) -> tuple[float, list[str]]:
    """How long a hello takes to be answered, and the states that an event then sent went through."""
    began = time.monotonic()
    async with connect(stack.live_url, compression=None) as live:
        await live.send(json.dumps({"type": "hello", "v": 1, "token": token, "topics": [topic]}))
        assert json.loads(await live.recv())["type"] == "welcome"
        took = time.monotonic() - began
        event_id = await asyncio.to_thread(act)
        states: list[str] = []
        async with asyncio.timeout(20):
            while "processed" not in states:
                frame = json.loads(await live.recv())
                if frame["type"] == "update" and frame["event"]["id"] == event_id:
                    states.append(frame["event"]["state"])
    return took, states


def test_a_real_client_beside_thousands_that_say_nothing(stack: Stack, eventually: Eventually) -> None:
    port = int(stack.live_url.split(":")[2].split("/")[0])
    topic = f"audience:{uuid4().hex}"
    with Client(stack.ingest_url, stack.api_key) as client, contextlib.ExitStack() as opened:
        token = client.token([topic]).token

        def send() -> str:
            data = {"ref": "refs/heads/main", "repository": {"full_name": f"acme/{uuid4().hex}"}}
            event = {
                "type": "com.github.push",
                "source": "/t",
                "audience": topic.removeprefix("audience:"),
                "data": data,
            }
            return client.send(event).event_id

        hostile = [opened.enter_context(each) for each in open_all(port)]
        began = time.monotonic()
        took, states = asyncio.run(welcome_seconds(stack, token, topic, send))
        slowest = max(livez_seconds(f"http://127.0.0.1:{port}/livez") for _ in range(5))

        assert took < 6
        assert slowest < 3
        assert states[0] == "queued"
        eventually(lambda: all(map(is_gone, hostile)), timeout_seconds=DEADLINE_SECONDS + 15, message="all are gone")
        assert time.monotonic() - began < DEADLINE_SECONDS + 15


def test_a_byte_now_and_then_moves_no_deadline(stack: Stack, eventually: Eventually) -> None:
    port = int(stack.live_url.split(":")[2].split("/")[0])
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        slow.setblocking(False)

        def drip() -> bool:
            with contextlib.suppress(OSError):
                slow.send(b"x")
            return is_gone(slow)

        eventually(drip, timeout_seconds=DEADLINE_SECONDS + 5)

    assert time.monotonic() - began >= DEADLINE_SECONDS - 1


@pytest.fixture
def small_gateway(redis_url: str, tmp_path: Path, eventually: Eventually) -> Iterator[tuple[str, Path]]:
    """A gateway that may have 64 descriptors; its address and log."""
    port, log = free_port(), tmp_path / "gateway.log"
    settings = {
        "HOLDFAST_REDIS_URL": redis_url, "HOLDFAST_GATEWAY_PORT": str(port), "HOLDFAST_LIVE_TOKEN_SECRET": "x" * 32,
        "HOLDFAST_LOG_FORMAT": "json",
    }  # fmt: skip
    command = ["sh", "-c", 'ulimit -n 64; exec "$0" -m holdfast.gateway', sys.executable]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=output)
    eventually(lambda: "started" in log.read_text(), message="the gateway starts")
    yield f"http://127.0.0.1:{port}", log
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def test_a_gateway_with_few_descriptors_turns_the_rest_away(
    small_gateway: tuple[str, Path], eventually: Eventually
) -> None:
    url, log = small_gateway
    port = int(url.rpartition(":")[2])
    before = len(log.read_text().splitlines())

    with contextlib.ExitStack() as opened:
        idle = [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(150)]
        for each in idle:
            each.setblocking(False)
        eventually(lambda: sum(map(is_gone, idle)) >= 100, message="those beyond the limit are closed")
        assert len(log.read_text().splitlines()) - before < 20
        eventually(lambda: all(map(is_gone, idle)), timeout_seconds=DEADLINE_SECONDS + 15, message="the idle ones too")

    assert livez_seconds(f"{url}/livez") < 3
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    assert [line["message"] for line in lines if "too many connections" in line["message"]] != []
    assert len(lines) < 20
