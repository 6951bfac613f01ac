"""Node's `ws` as a live server: installed by npm from its lock, run for one measurement at a time."""

import asyncio
import contextlib
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.crowd import PATIENCE_SECONDS, text_frame, upgrade
from bench.live import an_update
from bench.peers.environment import FOLDER, INSTALL_SECONDS, ROOT
from holdfast.local.process import Guarded
from holdfast.local.services import environment
from holdfast.local.stack import Stack
from holdfast.messaging.contracts import encode_update

__all__ = ["NodeServer", "for_node", "node_server"]

SOURCE = Path(__file__).parent / "node_ws"
FILES = ("package.json", "package-lock.json", "server.js")
POSITION = "0b5d6b1c-6c0f-4b57-9f5c-6d0c5f3a1a2b:1000"


def for_node(*, say: Callable[[str], object]) -> Path | None:
    """The folder of the server with its `ws`, or ``None``, which is said, where there is no Node.

    Raises:
        RuntimeError: npm could not install.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        say("Node's ws is left out: neither `node` nor `npm` may be missing; install Node 18 or newer")
        return None
    folder, wanted = FOLDER / "node-ws", hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in FILES))
    stamp = folder / ".stamp"
    if not stamp.exists() or stamp.read_text() != wanted.hexdigest():
        say(f"installing {(SOURCE / FILES[1]).relative_to(ROOT)} into {folder.relative_to(ROOT)}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(SOURCE / name, folder)
        _npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
        stamp.write_text(wanted.hexdigest())
    return folder


@contextlib.contextmanager
def node_server(stack: Stack, folder: Path) -> Iterator["NodeServer"]:
    """A new server, stopped afterwards.

    Raises:
        RuntimeError: it did not start; with the end of its log.
    """
    process = Guarded("node-ws", log=stack.logs / "node-ws.log")
    process.log.write_text("")
    process.start(["node", str(folder / "server.js")], environment({}))
    try:
        yield NodeServer(process.pid, _port(process))
    finally:
        process.stop()


class NodeServer:
    """A ``bench.live.Server``."""

    def __init__(self, pid: int, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/"
        self.pid = pid
        self._port = port
        self._publisher: asyncio.StreamWriter | None = None

    def hello(self, number: int, topic: str) -> bytes:
        """As long as the gateway's would be makes no difference: it is read once."""
        return json.dumps({"number": number, "topics": [topic]}).encode()

    async def publish(self, topics: Iterable[str]) -> None:
        """Over a WebSocket of its own: frames as long as the gateway's, all in one write."""
        if self._publisher is None:
            reader, self._publisher = await asyncio.open_connection("127.0.0.1", self._port)
            self._publisher.write(upgrade(f"{self.url}publish"))
            await reader.readuntil(b"\r\n\r\n")
        self._publisher.write(b"".join(text_frame(_frame(topic)) for topic in topics))


def _frame(topic: str) -> bytes:
    body = encode_update(an_update(topic))
    return f'{{"type":"update","topic":"{topic}","pos":"{POSITION}","event":{body}}}'.encode()


def _port(process: Guarded) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "listening on " not in process.tail():
        if not process.is_running or time.monotonic() > deadline:
            raise RuntimeError(f"Node's ws did not start; the end of {process.log}:\n{process.tail()}")
        time.sleep(0.05)
    return int(process.tail().rpartition("listening on ")[2])


def _npm(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        ["npm", *arguments], cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"npm {arguments[0]} failed; check the network and try again:\n{done.stderr.strip()}")
