"""Real servers that speak from a script, and the ``holdfast`` command as a process."""

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.client.cli import main

Answer = tuple[int, Any, dict[str, str]]


class Script:
    """A server that gives its answers in order, repeats the last one, and records the requests.

    An answer is a status, a body (bytes as they are, anything else as JSON) and headers.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_DELETE(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(json.loads(body) if body else None)

            def do_PUT(self) -> None:
                self.do_POST()

            def answer(self, sent: Any) -> None:
                script.requests.append((self.path, dict(self.headers), sent))
                status, body, headers = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    thread = threading.Thread(target=made.server.serve_forever, args=[0.02])
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def environment(script: Script) -> dict[str, str]:
    """Variables for a process: no settings but the address of ``script`` and a key."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    own = {"HOLDFAST_URL": script.url, "HOLDFAST_API_KEY": "hf_key", "NO_COLOR": "1", "COLUMNS": "200"}
    return inherited | own


@pytest.fixture
def command() -> list[str]:
    """Arguments that start the command as a process, whether or not its script is on the path."""
    return [sys.executable, "-m", "holdfast.client.cli"]


EventBody = Callable[..., dict[str, Any]]


@pytest.fixture
def event_body() -> EventBody:
    """Makes an event as the API answers with it: a queued one, with any other fields that are named."""

    def make(**changes: Any) -> dict[str, Any]:
        body = {
            "event_id": "01a20ce1-a999-7253-85bb-3c3e269307a2", "event": {"id": "1", "source": "/s", "type": "t"},
            "state": "queued", "version": 1, "attempt": 0, "received_at": "2026-11-24T09:30:00.1Z",
            "available_at": "2026-11-24T09:30:00.1Z", "finished_at": None, "last_error": None, "replay_of": None,
        }  # fmt: skip
        return body | changes

    return make


@dataclass(frozen=True)
class Done:
    """The output and exit status of a command."""

    returncode: int | str | None
    stdout: str
    stderr: str


@pytest.fixture
def cli(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run the command to its end, in an empty folder; ``settings`` are added to its environment. In this process, because a
    new one takes most of a second to import everything.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", **settings: str) -> Done:
        for name, value in (environment | settings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main(list(arguments))
        said = capsys.readouterr()
        return Done(exited.value.code, said.out, said.err)

    return run
