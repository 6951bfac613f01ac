"""An erasure through the API on a whole stack: afterwards no table, no key of Redis and no log has anything of a subject."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis
from tests.searching import in_database, in_logs, in_redis
from websockets.sync.client import connect

from holdfast.client import ApiProblem, Client, Sent
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.timeout(480)

MARKER = "marker-of-a-person-41"

SUBJECT, AUDIENCE = f"person/{MARKER}", f"user-{MARKER}"

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """All services at debug."""
    settings = {"HOLDFAST_HANDLERS": "erased_handlers:handlers", "HOLDFAST_LOG_LEVEL": "debug"}
    here = str(Path(__file__).parent)
    with Stack(server_folder / uuid4().hex, settings=settings, python_path=here) as made:
        yield made


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as made:
        yield made


def event(type_: str, **attributes: Any) -> dict[str, Any]:
    """One that has the marker in whatever is the sender's to say."""
    return {
        "type": type_, "source": f"/crm/{MARKER}", "id": f"{MARKER}-{uuid4().hex}", "subject": SUBJECT, "audience": AUDIENCE,
        "plan": f"gold-{MARKER}", "data": {"said": MARKER}, **attributes,
    }  # fmt: skip


def execute(stack: Stack, statement: str) -> list[Any]:
    """Rows, where it returns any."""
    with psycopg2.connect(stack.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def places(stack: Stack, wanted: str) -> list[str]:
    """In both databases of Redis too: doorbells and the live window."""
    return [
        *in_database(stack.database_url, wanted),
        *(key for database in (0, 1) for key in in_redis(stack.redis.url(database), wanted)),
    ]


def split(found: list[str]) -> tuple[list[str], list[str]]:
    """Sessions of live clients, and everything else."""
    sessions = [place for place in found if place.startswith("live:session:")]
    return sessions, [place for place in found if place not in sessions]


def watch(stack: Stack, client: Client, count: int) -> list[dict[str, Any]]:
    """The events of updates that somebody sees who follows the audience, until so many have ended."""
    topic = f"audience:{AUDIENCE}"
    token = client.token([topic], sub=AUDIENCE, ttl_seconds=600).token
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + 150
    with connect(stack.live_url, compression=None) as connection:
        connection.send(json.dumps({"type": "hello", "v": 1, "token": token, "topics": [topic], "from": {topic: "0"}}))
        while len({each["id"] for each in seen if each["state"] in ("processed", "dead", "discarded")}) < count:
            assert time.monotonic() < deadline, "; ".join(f"{each['type']} {each['state']}" for each in seen)
            try:
                frame = json.loads(connection.recv(timeout=5))
            except TimeoutError:
                continue
            if frame["type"] == "subscribed":
                send_all(stack, client)
            elif frame["type"] == "update":
                seen.append(frame["event"])
            elif frame["type"] == "ping":
                connection.send('{"type":"pong"}')
    return seen


def send_all(stack: Stack, client: Client) -> None:
    """Events that are processed, dead, cancelled, replaced, refused and open."""
    first = event("test.talks")
    client.send(first)
    client.send(event("test.broken"))
    client.send(event("test.refused"))
    client.send(event("test.nobody"))
    for _ in range(2):
        client.send(event("test.child", debounceseconds=3600, debouncekey=MARKER))
    assert not client.send(event("test.child", uniqueseconds=3600, uniquekey=MARKER)).is_duplicate
    assert client.send(event("test.child", uniqueseconds=3600, uniquekey=MARKER)).is_duplicate
    for wrong in (first | {"data": {"said": f"other {MARKER}"}}, event("test.talks", time=MARKER), event("")):
        with pytest.raises(ApiProblem):
            client.send(wrong)
    cancel(client, client.send(event("test.endless")), stack)


def cancel(client: Client, sent: Sent, stack: Stack) -> None:
    """End it once it runs."""
    deadline = time.monotonic() + 60
    while client.get(sent.event_id).state != "processing":
        assert time.monotonic() < deadline, in_logs(stack.logs, sent.event_id)
    client.cancel(sent.event_id)


def erase(stack: Stack) -> str:
    """By the command, as an administrator does it; the erasure's id."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    done = subprocess.run(
        [HOLDFAST, "erase", "--subject", SUBJECT, "--yes", "-o", "json"], capture_output=True, text=True, timeout=60,
        env=inherited | {"HOLDFAST_URL": stack.ingest_url, "HOLDFAST_API_KEY": stack.api_key}, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout)["erasure_id"])


def test_nothing_of_a_subject_is_left_anywhere(stack: Stack, client: Client, eventually: Eventually) -> None:
    # Two that are refused or have no handler, one that fails, one that talks with its two children and their group's event,
    # one that was replaced, the first of its key, and one that was cancelled.
    seen = watch(stack, client, 10)
    assert MARKER in json.dumps(seen)
    listed = list(client.events(subject=SUBJECT))
    assert sorted(each.state for each in listed) == ["dead"] * 3 + ["discarded"] * 2 + ["processed"] * 5 + ["queued"]
    client.replay(next(each.event_id for each in listed if each.state == "dead"))
    before = places(stack, MARKER)
    assert {place.split(".")[0] for place in before if "." in place} >= {
        "event", "event_update", "processed_event_log", "attempt_error", "event_step", "event_group",
    }, "the search of the database finds what is there"  # fmt: skip
    assert any(place.startswith("live:stream:") for place in before), "and that of Redis"
    assert {line.split(":")[0] for line in in_logs(stack.logs, "holdfast")} == {
        "ingest.log", "processor.log", "maintenance.log", "scheduler.log", "ws-gateway.log",
    }, "and that of logs reads those of all services"  # fmt: skip

    erasure_id = erase(stack)

    def is_done() -> bool:
        # The job's lock first, as maintenance has it: otherwise the two would wait for each other.
        execute(stack, "UPDATE erasure_job SET next_at = now() WHERE state = 'running'")
        execute(stack, "UPDATE event_identity SET made_at = made_at - interval '2 min'")
        return client.erasure(erasure_id).state == "done"

    eventually(is_done, timeout_seconds=120, message="the erasure is done")
    assert client.erasure(erasure_id).erased == 11
    sessions, left = split(places(stack, MARKER))
    assert left == []
    assert in_logs(stack.logs, MARKER) == []
    assert len(sessions) == 1, "whom the client said it is, and what it follows"
    with redis.Redis.from_url(stack.redis.url(1)) as server:
        assert 0 < server.ttl(sessions[0]) <= 600, "which goes by itself"
