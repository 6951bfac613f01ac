"""A token that was revoked stays revoked, whatever becomes of Redis."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from holdfast.client.cli import main
from holdfast.local.fixtures import Eventually, StartStack
from holdfast.local.stack import Stack

Outcome = tuple[str, int]


def greet(stack: Stack, token: str) -> Outcome:
    """What comes of a hello: the type of the first frame, or how the connection was closed."""
    with connect(stack.live_url, compression=None) as client:
        client.send(json.dumps({"type": "hello", "v": 1, "token": token}))
        try:
            return str(json.loads(client.recv(timeout=10))["type"]), 0
        except ConnectionClosed:
            return "close", int(client.close_code or 0)


def end_of(watching: ClientConnection) -> int:
    """The code with which the gateway closes, whatever comes before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            watching.recv(timeout=15)
    return int(watching.close_code or 0)


def stream(stack: Stack, token: str) -> int:
    """The status of an event stream."""
    url = stack.live_url.replace("ws:", "http:") + "/sse?topics=audience:user-42"
    with httpx.stream("GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=10) as answer:
        return answer.status_code


def mint(stack: Stack, sub: str) -> str:
    answer = httpx.post(
        f"{stack.ingest_url}/v1/tokens",
        json={"topics": ["audience:user-42"], "sub": sub},
        headers={"Authorization": f"Bearer {stack.api_key}"},
    )
    return str(answer.json()["token"])


@pytest.fixture
def revoke(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stack, str], None]:
    """``holdfast token revoke``."""

    def run(stack: Stack, sub: str) -> None:
        monkeypatch.setenv("HOLDFAST_URL", stack.ingest_url)
        monkeypatch.setenv("HOLDFAST_API_KEY", stack.api_key)
        with pytest.raises(SystemExit) as done:
            main(["token", "revoke", "--sub", sub])
        assert done.value.code == 0

    return run


def refused_until(
    stack: Stack, token: str, outcome: Outcome, eventually: Eventually, *, timeout_seconds: float = 15
) -> list[Outcome]:
    """Try to get in until this comes of it; everything that came of it, which must never be a welcome."""
    seen: list[Outcome] = []

    def is_there() -> bool:
        seen.append(greet(stack, token))
        return seen[-1] == outcome

    eventually(is_there, timeout_seconds=timeout_seconds, message=f"{outcome}; seen: {seen}")
    return seen


def test_a_revoked_token_never_works_again_although_redis_is_emptied(
    start_stack: StartStack, revoke: Any, eventually: Eventually
) -> None:
    stack = start_stack()
    token, other = mint(stack, "user-42"), mint(stack, "user-7")
    assert greet(stack, token) == ("welcome", 0)
    revoke(stack, "user-42")
    assert greet(stack, token) == ("close", 4506)

    for who_is_away in ("", "", "maintenance"):
        if who_is_away:  # ingest fills Redis again too
            stack.hold(who_is_away)
        stack.redis.execute("FLUSHALL")
        assert stream(stack, token) in (403, 503)
        assert set(refused_until(stack, token, ("close", 4506), eventually)) <= {("close", 4008), ("close", 4506)}
        assert stream(stack, token) == 403
        # A gateway that has just lost its copy lets nobody in (4008) until it knows.
        eventually(lambda: greet(stack, other) == ("welcome", 0), timeout_seconds=10, message="others are let in")


def test_a_token_revoked_while_redis_is_away_is_refused_once_it_is_back(
    start_stack: StartStack, revoke: Any, eventually: Eventually
) -> None:
    stack = start_stack()
    token = mint(stack, "user-42")
    with connect(stack.live_url, compression=None) as watching:
        watching.send(json.dumps({"type": "hello", "v": 1, "token": token}))
        assert json.loads(watching.recv(timeout=10))["type"] == "welcome"
        stack.redis.stop()
        revoke(stack, "user-42")

        stack.redis.start()

        assert end_of(watching) == 4506
    refused_until(stack, token, ("close", 4506), eventually)
