"""The load on ingest is honest: every answer is looked at, and no id is sent twice."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from bench.ingest import load


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that has had enough is no news."""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives everybody this answer; its address, and what it was sent."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.extend(sent if isinstance(sent, list) else [sent])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("batch", [1, 5])
def test_every_event_sent_is_counted_and_has_an_id_of_its_own(batch: int) -> None:
    with answering(202, b'{"duplicate": false}') as (url, received):
        count = load(url, "key", 0.3, batch)

    assert count == len(received) > batch
    assert len({event["id"] for event in received}) == count


@pytest.mark.parametrize(
    ("status", "body"), [(503, b"{}"), (202, b'{"duplicate": true}'), (202, b'{"accepted": 4, "duplicates": 1}')]
)
def test_an_answer_that_accepts_nothing_new_is_no_figure(status: int, body: bytes) -> None:
    with answering(status, body) as (url, _), pytest.raises(RuntimeError):
        load(url, "key", 5)
