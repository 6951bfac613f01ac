"""Spans of one event, as a collector gets them; and what becomes of events while it is away, or not configured."""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from tests.story.collector import Collector, Kept
from tests.story.conftest import post, post_batch, story_stack

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.process import log_lines
from holdfast.local.stack import Stack
from holdfast.storage import claims
from holdfast.storage.database import Database

pytestmark = [pytest.mark.xdist_group("story"), pytest.mark.timeout(300)]

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
"""``Span.SpanKind`` of OTLP."""

EXPORTING = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "google.protobuf",
    "holdfast.runtime.otlp",
    "holdfast.runtime.exporting",
)

OUR_SPAN = "00f067aa0ba902b7"

Send = Callable[..., httpx.Response]


def named(spans: list[Kept], name: str) -> list[Kept]:
    return [span for span in spans if span.name == name]


def lose(stack: Stack, event_id: str) -> None:
    """Claim an event as a worker that is gone by now."""
    database = Database(stack.database_url, application_name="test", pool_size=1)
    with contextlib.closing(database), database.transaction() as session:
        [_] = claims.claim_events(session, [(UUID(event_id), 1)], owner="gone", lease_seconds=30)
        session.execute(text("UPDATE processing_state SET lease_expires_at = now() - interval '1 s' WHERE event_id = :id"),
                        {"id": event_id})  # fmt: skip


def all_spans(kept: Collector, eventually: Eventually, event_id: str, *, attempts: int) -> list[Kept]:
    """The spans of an event that has ended with its attempts, once they are exported."""

    def is_whole() -> bool:
        spans = kept.of_event(event_id)
        ended = [span for span in spans if span.kind == CONSUMER]
        return len(ended) == attempts and any(span.kind == SERVER for span in spans)

    eventually(is_whole, timeout_seconds=30, message="the spans were not exported")
    return kept.of_event(event_id)


def test_an_event_that_is_tried_again_is_one_story(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    trace_id = uuid4().hex
    answer = send("story.flaky", {"secret": "marker"}, traceparent=f"00-{trace_id}-{OUR_SPAN}-01")
    event_id = answer.json()["event_id"]
    assert client.wait(event_id, 60).state == "processed"

    spans = all_spans(kept, eventually, event_id, attempts=2)

    [server], [sent], [record] = (
        named(spans, "POST /v1/events"),
        named(spans, "send story.flaky"),
        named(spans, "record"),
    )
    first, second = named(spans, "process story.flaky")
    assert (server.kind, server.trace_id, server.parent_id) == (SERVER, trace_id, OUR_SPAN)
    assert (record.kind, record.parent_id) == (INTERNAL, server.span_id)
    assert (sent.kind, sent.parent_id) == (PRODUCER, server.span_id)
    assert {span.name for span in spans if span.parent_id == sent.span_id} == {"publish", "ring", "process story.flaky"}
    assert (first.kind, first.trace_id, first.parent_id, first.links) == (CONSUMER, trace_id, sent.span_id, ())
    assert (second.kind, second.parent_id, second.links) == (CONSUMER, "", ((trace_id, sent.span_id),))
    assert second.trace_id != trace_id
    for attempt in (first, second):
        parts = [span for span in spans if span.parent_id == attempt.span_id]
        assert [span.name for span in parts] == ["SET", "charge", "settle", "publish"]
        assert [span.kind for span in parts] == [CLIENT, INTERNAL, CLIENT, INTERNAL]
        assert {span.trace_id for span in parts} == {attempt.trace_id}
        assert all(attempt.began_ns <= span.began_ns <= span.ended_ns <= attempt.ended_ns for span in parts)
    [_, charge], [select] = named(spans, "charge"), named(spans, "SELECT")
    assert (select.kind, select.trace_id, select.parent_id) == (CLIENT, second.trace_id, charge.span_id)
    assert [span.links for span in spans if span not in (sent, second)] == [()] * 14
    assert len(spans) == 16, [span.name for span in spans]
    assert {span.service for span in spans} == {"ingest", "processor"}


def test_spans_say_what_they_are_about_and_of_an_exception_its_type(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    answer = send("story.flaky", {"secret": "marker"})
    event_id = answer.json()["event_id"]
    client.wait(event_id, 60)

    spans = all_spans(kept, eventually, event_id, attempts=2)

    [server], [sent] = named(spans, "POST /v1/events"), named(spans, "send story.flaky")
    first, second = named(spans, "process story.flaky")
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["holdfast.request_id"] == answer.headers["x-request-id"]
    assert (sent.attributes["messaging.operation.type"], sent.attributes["messaging.message.id"]) == ("send", event_id)
    assert (first.attributes["holdfast.attempt"], second.attributes["holdfast.attempt"]) == (1, 2)
    assert first.attributes["holdfast.handler"] == "flaky"
    assert (first.is_failed, first.attributes["error.type"], first.status_text) == (True, "RuntimeError", "")
    assert first.events == (("exception", {"exception.type": "RuntimeError"}),)
    assert (second.is_failed, second.events) == (False, ())
    assert client.get(event_id).trace_id == server.trace_id == first.trace_id


def test_statements_of_a_handler_are_told_without_values(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    event_id = send("story.flaky", {"secret": "marker"}).json()["event_id"]
    wrong_id = send("story.wrong", {"secret": "marker"}).json()["event_id"]
    client.wait(event_id, 60)
    assert client.wait(wrong_id, 60).state == "dead"

    spans = all_spans(kept, eventually, event_id, attempts=2)
    failed = named(all_spans(kept, eventually, wrong_id, attempts=3), "SELECT")

    told = {"db.system.name": "postgresql", "db.operation.name": "SELECT"}
    [select] = named(spans, "SELECT")
    assert select.attributes == told | {"db.query.text": "SELECT ? WHERE %(name)s <> ?"}
    text = {"db.query.text": "SELECT CAST(%(text)s AS integer)"}
    error = {"error.type": "InvalidTextRepresentation", "db.response.status_code": "22P02"}
    assert [span.attributes for span in failed] == [told | text | error] * 3
    assert [(span.is_failed, span.status_text) for span in failed] == [(True, "")] * 3


def test_statements_beyond_the_bound_are_counted(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    event_id = send("story.busy", {"statements": 103}).json()["event_id"]
    assert client.wait(event_id, 60).state == "processed"

    spans = all_spans(kept, eventually, event_id, attempts=1)

    assert len(named(spans, "SELECT")) == 100
    assert named(spans, "process story.busy")[0].attributes["holdfast.statements_left_out"] == 3


def test_events_of_a_handler_of_lists_share_their_statements(
    traced: Stack, client: Client, kept: Collector, eventually: Eventually
) -> None:
    traced.hold("processor")
    ids = post_batch(traced, "story.bulk", 10)  # they wait together, so most are claimed together
    traced.resume("processor")
    for each in ids:
        client.wait(each, 60)

    spans = all_spans(kept, eventually, ids[0], attempts=10)

    attempts = [span.span_id for span in named(spans, "process story.bulk")]
    parts = [[each.name for each in spans if each.parent_id == attempt] for attempt in attempts]
    alone = [part for part in parts if "SELECT" in part]
    assert alone == [["SELECT", "settle", "publish"]] * len(alone)
    assert [part for part in parts if part not in alone] == [["settle", "publish"]] * (10 - len(alone))
    assert 1 <= len(alone) < 10


def test_a_kept_story_is_kept_as_a_whole_whatever_the_ratio(
    server_folder: Path, kept: Collector, eventually: Eventually
) -> None:
    settings = {"HOLDFAST_OTLP_ENDPOINT": kept.url, "HOLDFAST_TRACE_SAMPLE_RATIO": "0.000001"}
    with story_stack(server_folder, **settings, HOLDFAST_INGEST_PROCESSES="1") as stack:
        with Client(stack.ingest_url, stack.api_key) as client:
            own = post(stack, "story.flaky", {}).json()["event_id"]
            answer = post(stack, "story.flaky", {}, traceparent=f"00-{uuid4().hex}-{OUR_SPAN}-01")
            event_id = answer.json()["event_id"]
            assert [client.wait(each, 60).state for each in (own, event_id)] == ["processed"] * 2
        spans = all_spans(kept, eventually, event_id, attempts=2)
        assert len(spans) == 16, [span.name for span in spans]
        assert kept.of_event(own) == []


def test_what_maintenance_does_for_a_kept_event_is_linked_to_its_story(
    traced: Stack, client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    traced.hold("processor")
    event_id = send("story.plain").json()["event_id"]
    traced.redis.execute("FLUSHALL")  # so its update and its doorbell are lost
    lose(traced, event_id)
    eventually(lambda: {"recover", "redispatch", "relay"} <= {span.name for span in kept.linked_to(event_id)})
    traced.resume("processor")
    assert client.wait(event_id, 60).state == "processed"

    spans = all_spans(kept, eventually, event_id, attempts=1)
    [sent], linked = named(spans, "send story.plain"), kept.linked_to(event_id)

    batches = [span for span in linked if span.service == "maintenance"]
    assert {span.name for span in batches} == {"recover", "redispatch", "relay"}
    assert {span.links for span in batches} == {((sent.trace_id, sent.span_id),)}
    assert {(span.kind, span.parent_id) for span in batches} == {(INTERNAL, "")}
    assert sent.trace_id not in {span.trace_id for span in batches}
    assert {span.attributes["messaging.batch.message_count"] for span in batches} <= {1, 2}  # of it, two updates
    assert all(span.began_ns < span.ended_ns for span in batches)


def test_events_of_a_handler_of_batches_have_spans_of_their_own(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    sent = [send("story.listed", {"fails": number == 1}).json()["event_id"] for number in range(3)]
    assert {client.wait(each, 60).state for each in sent} == {"processed"}

    for number, event_id in enumerate(sent):
        spans = all_spans(kept, eventually, event_id, attempts=2 if number == 1 else 1)
        attempts = named(spans, "process story.listed")
        for attempt in attempts:
            parts = [each.name for each in spans if each.parent_id == attempt.span_id]
            assert parts == ["SELECT", "settle", "publish"]
        assert [attempt.is_failed for attempt in attempts] == ([True, False] if number == 1 else [False])


def test_the_copy_of_a_replay_has_a_trace_of_its_own_that_is_linked(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    event_id = send("story.plain").json()["event_id"]
    client.wait(event_id, 60)
    [original] = named(all_spans(kept, eventually, event_id, attempts=1), "process story.plain")

    copy_id = client.replay(event_id).event_id

    client.wait(copy_id, 60)
    eventually(lambda: named(kept.of_event(copy_id), "process story.plain"), timeout_seconds=30)
    [copied] = named(kept.of_event(copy_id), "process story.plain")
    assert copied.trace_id != original.trace_id
    assert copied.links == ((original.trace_id, original.parent_id),)


def test_a_batch_is_sent_in_one_span_that_its_events_go_on_from(
    traced: Stack, client: Client, kept: Collector, eventually: Eventually
) -> None:
    ids = post_batch(traced, "story.plain", 2)
    for each in ids:
        client.wait(each, 60)

    spans = all_spans(kept, eventually, ids[0], attempts=2)

    [sent] = named(spans, "send")
    assert sent.attributes["messaging.batch.message_count"] == 2
    assert [span.parent_id for span in named(spans, "process story.plain")] == [sent.span_id] * 2


def test_what_the_sender_does_not_keep_is_not_kept_here(
    client: Client, kept: Collector, send: Send, eventually: Eventually
) -> None:
    trace_id = uuid4().hex
    unsampled = send("story.plain", traceparent=f"00-{trace_id}-{OUR_SPAN}-00").json()["event_id"]
    assert client.wait(unsampled, 60).trace_id == trace_id

    later = send("story.plain").json()["event_id"]

    client.wait(later, 60)
    all_spans(kept, eventually, later, attempts=1)
    assert not [span for span in kept.spans() if span.trace_id == trace_id]
    assert kept.of_event(unsampled) == []


def test_events_go_on_while_the_collector_takes_nothing(server_folder: Path, eventually: Eventually) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:  # connects, and never answers
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with story_stack(server_folder, HOLDFAST_OTLP_ENDPOINT=endpoint, HOLDFAST_INGEST_PROCESSES="1") as stack:
            with Client(stack.ingest_url, stack.api_key) as client:
                sent = [post(stack, "story.plain", {}).json()["event_id"] for _ in range(20)]
                assert {client.wait(each, 60).state for each in sent} == {"processed"}
            log = stack.logs / "ingest.log"
            eventually(lambda: "spans not exported" in log.read_text(), timeout_seconds=40)
            began = time.monotonic()
            stack.hold("ingest")
            stack.hold("processor")
            assert time.monotonic() - began < 20, "it waited for the collector"
        lines = log_lines(log)
        assert not [line for line in lines if line["logger"].startswith(("opentelemetry", "urllib3"))]


def test_without_an_endpoint_nothing_that_makes_or_exports_spans_is_imported(server_folder: Path) -> None:
    with story_stack(server_folder, PYTHONPROFILEIMPORTTIME="1", HOLDFAST_INGEST_PROCESSES="1") as stack:
        with Client(stack.ingest_url, stack.api_key) as client:
            event_id = post(stack, "story.plain", {}).json()["event_id"]
            client.wait(event_id, 60)
            [result] = [entry.detail["result"] for entry in client.get(event_id, include=["timeline"]).timeline or ()
                        if "result" in entry.detail]  # fmt: skip

        assert result == {"imported": []}
        for log in stack.logs.glob("*.log"):
            text = log.read_text(errors="replace")
            if log.stem in stack.services:
                assert "holdfast.runtime.settings" in text, "imports are told"
            # redis-py imports the API and the metrics of the SDK by itself where they are installed.
            assert not [each for each in EXPORTING if each in text], log
