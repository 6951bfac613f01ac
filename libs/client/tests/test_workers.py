"""What runs where and why an event waits: the client and its commands against a real server that answers from a script."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.client import Client

Cli = Callable[..., Any]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"
NODE_ID = "3f9c21ab77d0"

RUN = {"event_id": EVENT_ID, "handler": "order", "attempt": 2, "since": "2026-11-28T09:30:00Z"}


def node(state: str = "active", **changes: Any) -> dict[str, Any]:
    worker = {
        "name": "worker-0", "pid": 11, "started_at": "2026-11-28T09:00:00Z", "last_beat_at": "2026-11-28T09:30:01Z",
        "last_poll_at": "2026-11-28T09:30:00Z", "is_stale": False, "is_for_suspects": False, "is_draining": False,
        "is_broker_away": False, "slots": 8, "busy": 2, "running": [RUN], "running_for_others": 3,
    }  # fmt: skip
    return {
        "node_id": NODE_ID, "service": "processor", "host": "box\x1b[2J", "pid": 10, "version": "1.0", "state": state,
        "started_at": "2026-11-28T09:00:00Z", "last_beat_at": "2026-11-28T09:30:01Z",
        "last_poll_at": "2026-11-28T09:30:00Z", "drain_since": None, "drained_by": None, "types": ["com.[red]acme", "b"],
        "slots": 9, "busy": 2, "workers": [worker], **changes,
    }  # fmt: skip


def listed(*nodes: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
    return 200, {"items": list(nodes)}, {}


def event(waiting: Any, state: str = "queued") -> dict[str, Any]:
    shown = {
        "event_id": EVENT_ID, "event": {"id": "1", "source": "/s", "type": "t"}, "state": state, "version": 1, "attempt": 0,
        "received_at": "2026-11-24T09:30:00.1Z", "last_error": None,
    }  # fmt: skip
    return shown | ({"waiting": waiting} if waiting else {})


TURN = {
    "reason": "turn", "summary": "it waits for its turn: 2 events of subject c\x1b[2J ahead", "subject": "c", "ahead": 2,
    "front": {"event_id": EVENT_ID, "state": "processing"}, "nodes": ["a", "b"], "since": None,
}  # fmt: skip


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as client:
        yield client


def test_the_client_reads_nodes(script: Any, client: Client) -> None:
    script.answers = [listed(node())]

    [found] = client.workers()

    assert (found.node_id, found.state, found.slots, found.busy) == (NODE_ID, "active", 9, 2)
    [worker] = found.workers
    assert (worker.running[0].event_id, worker.running_for_others) == (EVENT_ID, 3)
    assert found.raw == node()


@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_the_client_drains_and_undrains(script: Any, client: Client, verb: str) -> None:
    script.answers = [(202, node("draining"), {})]

    assert getattr(client, verb)(NODE_ID).state == "draining"

    assert script.requests[-1][0] == f"/v1/workers/{NODE_ID}/{verb}"


def test_the_client_reads_why_an_event_waits(script: Any, client: Client) -> None:
    script.answers = [(200, event(TURN), {}), (200, event(None, "processed"), {})]

    waiting = client.get(EVENT_ID).waiting

    assert waiting is not None
    assert (waiting.reason, waiting.facts["ahead"]) == ("turn", 2)
    assert client.get(EVENT_ID).waiting is None


def test_nodes_are_listed_in_aligned_columns(script: Any, cli: Cli) -> None:
    script.answers = [listed(node(), node("stale", node_id="0" * 12, service="maintenance", host="b", slots=0))]

    done = cli("workers", "ls", "--running", "--types")

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0].split()[:5] == ["NODE", "SERVICE", "HOST", "STATE", "BUSY"]
    assert lines[0].index("STATE") == lines[1].index("active")
    assert "\x1b" not in done.stdout
    assert "2/9" in lines[1]
    assert lines[1].endswith("com.[red]acme, b")
    assert "stale" in lines[2]
    assert lines[5].split()[:5] == [NODE_ID, "worker-0", "order", EVENT_ID, "2"]
    assert lines[7] == "and 6 of other tenants", "of both nodes"


def test_nodes_are_listed_as_json(script: Any, cli: Cli) -> None:
    script.answers = [listed(node())]

    assert json.loads(cli("workers", "ls", "-o", "json").stdout) == node()


def test_draining_waits_until_nothing_is_left(script: Any, cli: Cli) -> None:
    script.answers = [
        listed(node()), (202, node("draining"), {}), (200, node("draining", busy=1), {}), (200, node("drained", busy=0), {}),
    ]  # fmt: skip

    done = cli("workers", "drain", NODE_ID[:4], "--wait")

    assert done.returncode == 0
    assert "drained  0 of 9 slots busy" in done.stdout
    assert "2 of 9 slots busy" in done.stderr
    assert [path for path, *_ in script.requests][1] == f"/v1/workers/{NODE_ID}/drain", "by the beginning of its id"


def test_draining_that_does_not_end_in_time_fails(script: Any, cli: Cli) -> None:
    script.answers = [listed(node()), (202, node("draining"), {})]

    done = cli("workers", "drain", NODE_ID, "--wait", "--timeout", "0")

    assert (done.returncode, "draining" in done.stdout) == (1, True)


def test_undraining_an_unknown_node_says_so(script: Any, cli: Cli) -> None:
    script.answers = [
        listed(node(), node(node_id="3f00")),
        (404, {"code": "not_found", "detail": "there is no such node"}, {}),
    ]

    done = cli("workers", "undrain", "3f")

    assert done.returncode == 1
    assert "there is no such node" in done.stderr
    assert script.requests[-1][0] == "/v1/workers/3f/undrain", "what could be two nodes is none"


def test_why_says_a_sentence_and_the_facts(script: Any, cli: Cli) -> None:
    script.answers = [(200, event(TURN), {})]

    done = cli("why", EVENT_ID)

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"queued  {EVENT_ID}"
    assert lines[1] == "it waits for its turn: 2 events of subject c [2J ahead"
    assert "  front.state     processing" in lines
    assert "  nodes           a, b" in lines
    assert not any("since" in line for line in lines), "what is not known is left out"


def test_why_of_an_event_that_is_done_with(script: Any, cli: Cli) -> None:
    script.answers = [(200, event(None, "processed"), {})]

    assert "it waits for nothing" in cli("why", EVENT_ID).stdout
    assert json.loads(cli("why", EVENT_ID, "-o", "json").stdout) == {
        "event_id": EVENT_ID, "state": "processed", "waiting": None,
    }  # fmt: skip
