"""Batches of CloudEvents: all of them or none, and every fault with its place."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.ingest.intake.batch import MAX_EVENTS, MAX_FAULTS

BATCH = "application/cloudevents-batch+json"

PostBatch = Callable[[Any], httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture
def post_batch(post: Callable[..., httpx.Response]) -> PostBatch:
    return lambda batch: post(batch, Content_Type=BATCH)


@pytest.fixture
def source() -> str:
    """One of this test's own."""
    return f"/batch/{uuid4().hex}"


def recorded(ingest: Any, source: str) -> list[tuple[str, str]]:
    """``(id, state)`` of what a source has sent, in the order of its ids."""
    with ingest.database.transaction() as session:
        statement = (
            "SELECT ce_id, state FROM event JOIN processing_state ON event_id = id WHERE source = :s ORDER BY ce_id"
        )
        return [tuple(row) for row in session.execute(text(statement), {"s": source})]


def test_a_batch_is_recorded_whole_and_answered_in_its_order(
    ingest: Any, post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    sent = [make_event(source=source, id=str(number)) for number in (3, 1, 2)]

    answer = post_batch(sent)

    body = answer.json()
    assert answer.status_code == 202
    assert (body["accepted"], body["duplicates"]) == (3, 0)
    assert [(each["id"], each["state"], each["duplicate"], each["enqueued"]) for each in body["events"]] == [
        (number, "queued", False, True) for number in ("3", "1", "2")
    ]
    assert recorded(ingest, source) == [("1", "queued"), ("2", "queued"), ("3", "queued")]


def test_a_batch_is_one_transaction(ingest: Any, post_batch: PostBatch, make_event: MakeEvent, source: str) -> None:
    post_batch([make_event(source=source) for _ in range(20)])

    with ingest.database.transaction() as session:
        statement = "SELECT count(DISTINCT CAST(xmin AS text)) FROM event WHERE source = :s"
        assert session.scalar(text(statement), {"s": source}) == 1


def test_an_empty_batch_is_accepted(post_batch: PostBatch) -> None:
    answer = post_batch([])

    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "duplicates": 0, "events": []})


def test_duplicates_collapse_within_a_batch_and_between_two(
    ingest: Any, post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    same, other = make_event(source=source, id="1"), make_event(source=source, id="2")

    first, second = post_batch([same, other, same]).json(), post_batch([other, same]).json()

    assert (first["accepted"], first["duplicates"]) == (2, 1)
    assert (second["accepted"], second["duplicates"]) == (0, 2)
    assert first["events"][0]["event_id"] == first["events"][2]["event_id"] == second["events"][1]["event_id"]
    assert len(recorded(ingest, source)) == 2


def test_one_bad_event_refuses_all_and_every_fault_has_its_place(
    ingest: Any, post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    nameless = {name: value for name, value in make_event(source=source).items() if name != "type"}

    answer = post_batch([make_event(source=source), nameless, 7, make_event(source=source, time="yesterday")])

    assert answer.status_code == 400
    errors = [(each["index"], each["pointer"], each["code"]) for each in answer.json()["errors"]]
    assert errors == [(1, "/1/type", "missing"), (2, "/2", "not_an_object"), (3, "/3/time", "invalid_value")]
    assert recorded(ingest, source) == []


def test_a_batch_of_faults_has_an_answer_of_bounded_length(post_batch: PostBatch) -> None:
    answer = post_batch([{}] * MAX_EVENTS)

    assert (answer.status_code, len(answer.json()["errors"])) == (400, MAX_FAULTS)


def test_an_id_that_belongs_to_other_data_refuses_all(
    ingest: Any, post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    post_batch([make_event(source=source, id="1", data={"n": 1})])

    answer = post_batch([make_event(source=source, id="2"), make_event(source=source, id="1", data={"n": 2})])
    within = post_batch([make_event(source=source, id="3", data={"n": number}) for number in (1, 2)])

    assert (answer.status_code, answer.json()["code"]) == (422, "id_conflict")
    assert [(each["index"], each["pointer"]) for each in answer.json()["errors"]] == [(1, "/1/id")]
    assert within.status_code == 422
    assert recorded(ingest, source) == [("1", "queued")]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"specversion": "1.0"}', 400, "not_an_array"), (b"[", 400, "invalid_json"), (b"", 400, "invalid_json"),
        (json.dumps([{}] * (MAX_EVENTS + 1)).encode(), 413, "too_many_events"),
        (b"[" + b" " * (5 * 1024 * 1024) + b"]", 413, "too_large"),
    ],
    # pytest puts a test's name into the environment of all that it starts, which has no room for the largest body.
    ids=["one event", "cut off", "empty", "too many", "too large"],
)  # fmt: skip
def test_what_is_no_batch_or_too_large_is_refused_with_the_remedy(
    post_batch: PostBatch, body: bytes, status: int, code: str
) -> None:
    answer = post_batch(body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "send" in answer.json()["detail"] or code == "invalid_json"


def test_an_event_of_a_batch_is_no_larger_than_one_by_itself(
    post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    answer = post_batch([make_event(source=source), make_event(source=source, data="x" * 20_000)])

    [error] = answer.json()["errors"]
    assert (answer.status_code, error["index"], error["pointer"], error["code"]) == (400, 1, "/1/data", "too_large")


def test_a_batch_larger_than_an_event_may_be_is_accepted(
    post_batch: PostBatch, make_event: MakeEvent, source: str
) -> None:
    answer = post_batch([make_event(source=source, data="x" * 1000) for _ in range(100)])

    assert (answer.status_code, answer.json()["accepted"]) == (202, 100)
