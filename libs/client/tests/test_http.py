"""The HTTP client against a real server that answers from a script."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from holdfast.client import ApiProblem, Client, Unreachable, WaitTimedOut

ACCEPTED: "Answer" = (
    202,
    {"event_id": "e1", "state": "queued", "version": 1, "duplicate": False, "enqueued": True},
    {},
)

Answer = tuple[int, dict[str, Any], dict[str, str]]


class Script:
    """A server that gives its answers in order, the last one again and again, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, sent: Any) -> None:
                script.requests.append((self.path, dict(self.headers), sent))
                status, body, headers = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client(script.url + "/", "hf_key") as client:
        yield client


def test_a_sent_event_is_a_whole_cloudevent(script: Script, client: Client) -> None:
    script.answers = [ACCEPTED]

    sent = client.send({"type": "com.acme.order.placed", "data": {"n": 1}})

    path, headers, event = script.requests[0]
    assert (path, headers["Content-Type"], headers["Authorization"]) == (
        "/v1/events", "application/cloudevents+json", "Bearer hf_key",
    )  # fmt: skip
    assert {"specversion", "id", "source", "time", "type", "data"} == event.keys()
    assert (sent.event_id, sent.state, sent.is_duplicate) == ("e1", "queued", False)


def test_the_same_event_is_sent_again_while_the_server_is_busy(script: Script, client: Client) -> None:
    script.answers = [(503, {}, {"Retry-After": "0"}), (429, {}, {}), ACCEPTED]

    client.send({"type": "t"})

    assert len({event["id"] for _, _, event in script.requests}) == 1
    assert len(script.requests) == 3


def test_a_problem_is_raised_with_what_it_says(script: Script, client: Client) -> None:
    errors = [{"pointer": "/id", "code": "missing", "detail": "the attribute id is required"}]
    script.answers = [(400, {"code": "missing", "detail": "the id", "request_id": "r1", "errors": errors}, {})]

    with pytest.raises(ApiProblem, match=r"400 missing: the id \[r1\]") as caught:
        client.send({"type": "t"})

    assert (caught.value.status, caught.value.errors) == (400, errors)
    assert len(script.requests) == 1


def test_nobody_there_is_said_with_the_address() -> None:
    with (
        Client("http://127.0.0.1:1", "hf_key") as client,
        pytest.raises(Unreachable, match=r"http://127[.]0[.]0[.]1:1"),
    ):
        client.get("e1")


def test_waiting_asks_until_the_event_is_settled(script: Script, client: Client) -> None:
    script.answers = [(200, {"state": state}, {}) for state in ("queued", "processing", "failed", "processed")]

    assert client.wait("e1", timeout_seconds=10)["state"] == "processed"


def test_waiting_has_an_end(script: Script, client: Client) -> None:
    script.answers = [(200, {"state": "queued"}, {})]

    with pytest.raises(WaitTimedOut, match="still queued"):
        client.wait("e1", timeout_seconds=0.2)


def test_a_token_is_asked_for_with_what_was_given(script: Script, client: Client) -> None:
    script.answers = [(201, {"token": "jwt", "expires_at": 7, "live_url": None}, {})]

    token = client.token(["event:*"], ttl_seconds=60)

    assert (token.token, token.expires_at, token.live_url) == ("jwt", 7, None)
    assert script.requests[0][2] == {"topics": ["event:*"], "ttl_seconds": 60}
