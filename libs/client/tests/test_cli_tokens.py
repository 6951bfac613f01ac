"""``holdfast token`` against a real server that speaks from a script."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_a_token_is_printed_alone(cli: Cli, script: Any) -> None:
    script.answers = [(201, {"token": "jwt", "expires_at": 7, "live_url": "ws://live"}, {})]

    done = cli("token", "audience:user-42", "event:*", "--sub", "user-42", "--ttl", "60")

    assert (done.returncode, done.stdout, done.stderr) == (0, "jwt\n", "")
    [(path, _, body)] = script.requests
    assert (path, body) == (
        "/v1/tokens", {"topics": ["audience:user-42", "event:*"], "sub": "user-42", "ttl_seconds": 60},
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [("create", "audience:user-42"), ("--sub", "user-42", "audience:user-42")],
    ids=["named", "an option first"],
)
def test_a_token_is_printed_however_it_is_asked_for(cli: Cli, script: Any, arguments: tuple[str, ...]) -> None:
    script.answers = [(201, {"token": "jwt", "expires_at": 7, "live_url": None}, {})]

    assert cli("token", *arguments).stdout == "jwt\n"
    assert script.requests[0][2]["topics"] == ["audience:user-42"]


@pytest.mark.parametrize(
    ("option", "value"), [("sub", "user-42"), ("jti", "7d1f3c52"), ("sub", "👩\u200d👧")], ids=ascii
)
def test_tokens_are_revoked(cli: Cli, script: Any, option: str, value: str) -> None:
    script.answers = [(200, {option: value, "revoked_at": 7, "immediate": True}, {})]

    done = cli("token", "revoke", f"--{option}", value)

    assert (done.returncode, done.stderr) == (0, "revoked\n")
    assert (script.requests[0][0], script.requests[0][2]) == ("/v1/tokens/revoke", {option: value})


def test_a_revocation_that_redis_did_not_take_is_told(cli: Cli, script: Any) -> None:
    script.answers = [(200, {"sub": "u", "revoked_at": 7, "immediate": False}, {})]

    assert "when Redis is back" in cli("token", "revoke", "--sub", "u").stderr


@pytest.mark.parametrize("arguments", [(), ("--sub", ""), ("--sub", "a", "--jti", "b")], ids=str)
def test_a_revocation_of_nothing_is_refused(cli: Cli, script: Any, arguments: tuple[str, ...]) -> None:
    done = cli("token", "revoke", *arguments)

    assert done.returncode == 2
    assert "--sub or --jti" in done.stderr
    assert script.requests == []


def test_a_token_that_is_refused_is_told(cli: Cli, script: Any) -> None:
    script.answers = [(403, {"code": "forbidden_topic", "detail": "tenant:other is another tenant's"}, {})]

    done = cli("token", "tenant:other")

    assert (done.returncode, done.stdout) == (1, "")
    assert "another tenant's" in done.stderr


def test_tokens_are_json_for_programs(cli: Cli, script: Any) -> None:
    script.answers = [
        (201, {"token": "jwt", "expires_at": 7, "live_url": None}, {}), (200, {"immediate": False}, {}),
    ]  # fmt: skip

    made = cli("token", "audience:a", "-o", "json")
    revoked = cli("token", "revoke", "--sub", "a", "-o", "json")

    assert json.loads(made.stdout) == {"token": "jwt", "expires_at": 7, "live_url": None}
    assert json.loads(revoked.stdout) == {"immediate": False}
