"""Debounce and unique windows over HTTP: what is answered and shown, faults, and many senders on several processes."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey
from holdfast.messaging.live import topic_keys

Post = Callable[..., httpx.Response]

PROCESSES = 3


def states(ingest: Any, type_: str) -> dict[str, int]:
    with ingest.database.transaction() as session:
        rows = session.execute(
            text(
                "SELECT s.state, count(*) AS events FROM processing_state s JOIN event e ON e.id = s.event_id"
                " WHERE e.type = :type GROUP BY s.state"
            ),
            {"type": type_},
        )
        return {row.state: row.events for row in rows}


def test_the_last_of_a_key_waits_and_the_others_say_why_they_ended(
    post: Post, get: Callable[..., httpx.Response], make_event: Any, live: Any
) -> None:
    first = post(make_event(type="test.last", debounceseconds=600, debouncekey="doc-1"))
    second = post(make_event(type="test.last", debounceseconds=600, debouncekey="doc-1"))

    one, two = first.json(), second.json()
    assert (first.status_code, second.status_code) == (202, 202)
    assert (one["state"], one["duplicate"], one["enqueued"], "deliver_at" in one) == ("queued", False, False, True)
    assert one["event_id"] != two["event_id"]
    ended = get(one["event_id"], "timeline").json()
    assert ended["state"] == "discarded"
    assert ended["timeline"][-1]["detail"] == {"reason": "superseded", "superseded_by": two["event_id"]}
    waiting = get(two["event_id"]).json()["waiting"]
    assert waiting["reason"] == "debounced"
    assert waiting["summary"].startswith("debounced until ")
    entries: Any = live.xrange(topic_keys("acme", f"event:{one['event_id']}").stream)
    assert [json.loads(fields[b"u"])["state"] for _, fields in entries] == ["queued", "discarded"], "it is told live"


def test_events_that_were_replaced_are_in_the_metrics(ingest: Any, post: Post, make_event: Any) -> None:
    def superseded() -> float:
        lines = httpx.get(f"{ingest.metrics_url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("holdfast_events_superseded_total"))

    before = superseded()
    for _ in range(3):
        post(make_event(type="test.counted", debounceseconds=600, debouncekey="doc-1"))

    assert superseded() == before + 2


def test_one_of_a_batch_that_was_replaced_in_it_is_answered_so(post: Post, make_event: Any) -> None:
    batch = [make_event(type="test.batch", debounceseconds=600, subject="a") for _ in range(3)]

    answer = post(json.dumps(batch).encode(), Content_Type="application/cloudevents-batch+json").json()

    assert [each["state"] for each in answer["events"]] == ["discarded", "discarded", "queued"]
    assert {each.get("superseded_by") for each in answer["events"][:2]} == {answer["events"][2]["event_id"]}
    assert (answer["accepted"], answer["duplicates"]) == (3, 0)


def test_a_further_one_of_a_unique_key_is_a_duplicate_of_the_first(ingest: Any, post: Post, make_event: Any) -> None:
    first = post(make_event(type="test.first", uniqueseconds=60, subject="a")).json()
    second = post(make_event(type="test.first", uniqueseconds=60, subject="a", data={"other": 1}))

    body = second.json()
    assert second.status_code == 202
    assert (body["duplicate"], body["event_id"], body["state"]) == (True, first["event_id"], "queued")
    assert second.headers["Location"] == f"/v1/events/{first['event_id']}"
    assert body["unique_until"].endswith("Z")
    assert "unique_until" not in first
    assert states(ingest, "test.first") == {"queued": 1}


def test_windows_travel_in_headers(ingest: Any, key: str) -> None:
    headers = {
        "Authorization": f"Bearer {key}", "ce-specversion": "1.0", "ce-source": "/s", "ce-type": "test.binary",
        "ce-uniqueseconds": "60", "ce-uniquekey": "Z%C3%BCrich",
    }  # fmt: skip
    answers = [httpx.post(f"{ingest.url}/v1/events", headers=headers | {"ce-id": each}).json() for each in "12"]

    assert [each["duplicate"] for each in answers] == [False, True]


@pytest.mark.parametrize(
    ("attributes", "name", "says"),
    [
        ({"debounceseconds": "soon"}, "debounceseconds", "from 1 to 86400, such as 30; not 'soon'"),
        ({"debounceseconds": 0}, "debounceseconds", "not 0"),
        ({"debounceseconds": -5}, "debounceseconds", "not -5"),
        ({"debounceseconds": 1.5}, "debounceseconds", "not 1.5"),
        ({"debounceseconds": True}, "debounceseconds", "not True"),
        ({"debounceseconds": "٣"}, "debounceseconds", "not '٣'"),
        ({"debounceseconds": 86401}, "debounceseconds", "not 86401"),
        ({"debounceseconds": "9" * 1000}, "debounceseconds", "999…"),
        ({"debounceseconds": [1]}, "debounceseconds", "not a list"),
        ({"debouncekey": "a"}, "debouncekey", "send debounceseconds too"),
        ({"debounceseconds": 5, "debouncekey": ""}, "debouncekey", "has 0"),
        ({"debounceseconds": 5, "debouncekey": "ü" * 128}, "debouncekey", "this one has 256"),
        ({"debounceseconds": 5, "debouncekey": 7}, "debouncekey", "is a string; not 7"),
        ({"debounceseconds": 50, "debouncemaxseconds": 49}, "debouncemaxseconds", "at least debounceseconds, which is 50"),
        ({"debouncemaxseconds": 49}, "debouncemaxseconds", "send debounceseconds too"),
        ({"debounceseconds": 5, "deliverat": "2999-01-01T00:00:00Z"}, "deliverat", "not both"),
        ({"debounceseconds": 5, "uniqueseconds": 5}, "uniqueseconds", "not both"),
        ({"uniqueseconds": 2592001}, "uniqueseconds", "from 1 to 2592000"),
        ({"uniquekey": "a"}, "uniquekey", "send uniqueseconds too"),
    ],
)  # fmt: skip
def test_what_is_no_window_is_refused_with_its_remedy(
    post: Post, make_event: Any, attributes: dict[str, Any], name: str, says: str
) -> None:
    answer = post(make_event(**attributes))

    [error] = answer.json()["errors"]
    assert answer.status_code == 400
    assert error["pointer"] == f"/{name}"
    assert says in error["detail"]


@pytest.fixture
def service(postgres: Postgres, valkey: Valkey, start_ingest: Any, eventually: Eventually) -> Iterator[Any]:
    name = clone_template(postgres)
    made = start_ingest(postgres, valkey, database=name, HOLDFAST_INGEST_PROCESSES=str(PROCESSES))
    eventually(lambda: len(made.workers()) == PROCESSES, timeout_seconds=60, message=f"it is not ready: {made.log}")
    yield made
    made.stop()
    made.database.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_over_processes_that_are_killed_one_of_a_key_waits_and_one_is_unique(service: Any, make_event: Any) -> None:
    headers = {"Authorization": f"Bearer {service.key()}", "Content-Type": "application/cloudevents+json"}
    accepted: list[dict[str, Any]] = []

    def send(seed: int) -> None:
        drawn = random.Random(seed)
        for number in range(40):
            key = str(drawn.randrange(3))
            window = (
                {"debounceseconds": 600, "debouncekey": key} if number % 2 else {"uniqueseconds": 600, "uniquekey": key}
            )
            _send_until_answered(service, headers, make_event(type="test.many", **window), accepted)
            if seed == 0 and number in (10, 20, 30):
                os.kill(drawn.choice(service.workers()), signal.SIGKILL)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))

    with service.database.transaction() as session:
        rows = session.execute(
            text(
                "SELECT e.extensions->>'debouncekey' AS last, e.extensions->>'uniquekey' AS first, s.state, e.id"
                " FROM event e JOIN processing_state s ON s.event_id = e.id"
            )
        ).all()
    waiting = [row.last for row in rows if row.last is not None and row.state == "queued"]
    assert sorted(waiting) == ["0", "1", "2"], "one of each key"
    assert {row.state for row in rows if row.last is not None} == {"queued", "discarded"}
    assert sorted(row.first for row in rows if row.first is not None) == ["0", "1", "2"], "one of each key"
    stored = {str(row.id) for row in rows}
    assert len(accepted) == 240
    assert {each["event_id"] for each in accepted} == stored, "what was accepted is kept"


def _send_until_answered(
    service: Any, headers: dict[str, str], event: dict[str, Any], accepted: list[dict[str, Any]]
) -> None:
    """As a producer does: the same event again where no answer came."""
    while True:
        with suppress(httpx.TransportError):
            answer = httpx.post(f"{service.url}/v1/events", content=json.dumps(event), headers=headers, timeout=30)
            if answer.status_code == 202:
                accepted.append(answer.json())
                return
            assert answer.status_code == 503, answer.text
