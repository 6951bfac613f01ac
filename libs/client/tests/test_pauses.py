"""Pauses: the client and its commands against a real server that answers from a script."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.client import Client

Cli = Callable[..., Any]

PAUSE_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"


def paused(**changes: Any) -> dict[str, Any]:
    return {
        "pause_id": PAUSE_ID, "kind": "handler", "name": "charge-order", "tenant": None, "note": "bank\x1b[2J away",
        "paused_by": "ann", "paused_at": "2026-11-28T09:30:00Z", "links": {}, **changes,
    }  # fmt: skip


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as client:
        yield client


def test_the_client_lists_makes_and_ends_pauses(script: Any, client: Client) -> None:
    script.answers = [(200, {"items": [paused()]}, {}), (201, paused(), {}), (200, paused(), {})]

    [found] = client.pauses()
    made = client.pause("handler", "charge-order", note="bank away")
    ended = client.resume(made.pause_id)

    assert (found.kind, found.name, found.tenant, found.paused_by) == ("handler", "charge-order", None, "ann")
    assert found == made == ended
    assert found.raw == paused()
    assert [request[0] for request in script.requests] == ["/v1/pauses", "/v1/pauses", f"/v1/pauses/{PAUSE_ID}"]


def test_the_client_reads_the_tenant(script: Any, client: Client) -> None:
    body = {
        "name": "acme", "weight": 3, "waiting": 12,
        "backlog": {"limit_seconds": 600.0, "is_own": True, "oldest_due_seconds": 1.5},
    }  # fmt: skip
    script.answers = [(200, body, {})]

    found = client.tenant()

    assert (found.name, found.weight, found.backlog_limit_seconds, found.is_own_limit) == ("acme", 3, 600.0, True)
    assert (found.waiting, found.oldest_due_seconds) == (12, 1.5)


def test_commands_pause_list_and_resume(script: Any, cli: Cli) -> None:
    script.answers = [
        (201, paused(), {}), (200, {"items": [paused()]}, {}), (200, {"items": [paused()]}, {}), (200, paused(), {}),
    ]  # fmt: skip

    made = cli("pause", "handler", "charge-order", "--note", "bank away")
    listed = cli("pauses")
    ended = cli("resume", "handler", "charge-order")

    assert made.stdout == "handler charge-order is paused\n"
    assert "charge-order" in listed.stdout
    assert "\x1b[2J" not in listed.stdout
    assert ended.stdout == "handler charge-order goes on\n"
    assert script.requests[-1][0] == f"/v1/pauses/{PAUSE_ID}"


def test_what_is_not_paused_cannot_be_resumed(script: Any, cli: Cli) -> None:
    script.answers = [(200, {"items": [paused()]}, {})]

    done = cli("resume", "type", "charge-order")

    assert done.returncode == 1
    assert "type charge-order is not paused" in done.stderr
    assert len(script.requests) == 1


def test_json_is_the_pause_as_the_api_sent_it(script: Any, cli: Cli) -> None:
    script.answers = [(200, {"items": [paused()]}, {})]

    assert json.loads(cli("pauses", "-o", "json").stdout) == paused()
