"""Why an event waits: with real rows, one case at a time; the sentences; and what the look costs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import text

from holdfast.domain.event import Lease, NewEvent
from holdfast.domain.event_types import fits, nearest
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, Transition, fail, settle, snooze
from holdfast.domain.waiting import Facts, Fleet, Reason, Standing, Waiting, explain
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lanes, leases, lifecycle, nodes, served, waiting
from holdfast.storage.database import Database
from holdfast.storage.nodes import Beat, Identity, Running

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)


class Rows:
    """Events and workers of processors, with their times moved as a test wants."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, type_: str = "order.placed", **attributes: Any) -> UUID:
        event = NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type=type_, **attributes)
        self.database.call(events.record, [event], grace_seconds=3600)
        return event.id

    def worker(self, *types: str, name: str = "worker-0", said: Beat | None = None, **options: Any) -> Identity:
        """One that has just said something."""
        who = Identity(
            uuid4().hex[:12], "processor", "box", 1, "1.0", name, 2, slots=options.pop("slots", 8),
            types=types or ("order.*", "invoice.sent"), **options,
        )  # fmt: skip
        self.database.call(nodes.enter, who, is_drained=False)
        assert nodes.beat(self.database, who, said or Beat(), polled_seconds=0.5)
        return who

    def claim(self, event_id: UUID, version: int = 1) -> Lease:
        claimed = self.database.call(claims.claim_events, [(event_id, version)], owner="w", lease_seconds=30)
        return claimed[0][0]

    def apply(self, transition: Transition) -> None:
        assert len(self.database.call(lifecycle.apply, [transition])) == 1

    def run(self, sql: str, **parameters: Any) -> None:
        with self.database.transaction() as session:
            session.execute(text(sql), parameters)

    def why(self, event_id: UUID) -> Waiting:
        found = self.database.call(waiting.why, event_id)
        assert found is not None
        return found


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    database = Database(database_url, application_name="test", pool_size=4)
    with database.transaction() as session:
        served.declare_ordered(session, ["order.placed"])
    yield Rows(database)
    database.close()


def test_an_event_that_is_done_with_waits_for_nothing(rows: Rows) -> None:
    event_id = rows.record()
    lease = rows.claim(event_id)
    rows.apply(settle(event_id, lease.token, Completion("h", None, 1)))

    assert rows.database.call(waiting.why, event_id) is None
    assert rows.database.call(waiting.why, uuid7()) is None


def test_a_failed_attempt_waits_for_its_time(rows: Rows) -> None:
    event_id = rows.record()
    lease = rows.claim(event_id)
    rows.apply(fail(event_id, lease.token, AttemptError("TimeoutError", "no answer"), delay_seconds=125))

    found = rows.why(event_id)

    assert found.reason is Reason.RETRY
    assert found.summary == "attempt 2 is due in 2 min 5 s, after TimeoutError"
    assert (found.facts["attempts"], found.facts["error_type"]) == (1, "TimeoutError")


def test_an_event_whose_worker_was_lost_is_not_due_for_a_moment(rows: Rows) -> None:
    event_id = rows.record()
    rows.claim(event_id)
    rows.run("UPDATE processing_state SET lease_expires_at = now() - interval '1 s'")
    assert rows.why(event_id).reason is Reason.LOST
    rows.database.call(leases.recover_expired, limit=10)
    rows.run("UPDATE processing_state SET available_at = now() + interval '10 s'")

    found = rows.why(event_id)

    assert (found.reason, found.summary) == (Reason.NOT_DUE, "it is due in 10 s, because its worker was lost")


def test_an_event_that_a_transaction_keeps_runs_on_after_its_lease(rows: Rows) -> None:
    """A handler that has its session has locked the event's row: nobody extends the lease, and nobody takes the event."""
    event_id = rows.record()
    lease = rows.claim(event_id)
    run = Running(str(event_id), "t", "order", 1, lease.claimed_at.isoformat())
    who = rows.worker(said=Beat(busy=1, running=(run,)))
    rows.run("UPDATE processing_state SET lease_expires_at = now() - interval '90 s'")

    found = rows.why(event_id)
    rows.run("UPDATE node_worker SET beat_at = beat_at - interval '1 min' WHERE node_id = :id", id=who.node_id)
    silent = rows.why(event_id)

    assert (found.reason, found.facts["lease_until"]) == (Reason.RUNNING, None)
    assert found.summary.startswith("attempt 1 runs by order for ")
    assert found.summary.endswith("; its transaction keeps the event")
    assert silent.reason is Reason.LOST, "its worker has not been heard of since"


def test_an_event_that_was_sent_for_later_says_when(rows: Rows) -> None:
    event_id = rows.record(deliver_at=datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC))

    found = rows.why(event_id)

    assert found.reason is Reason.SCHEDULED
    assert found.summary.startswith("it was sent for 2999-01-02 03:04:05 UTC, in ")


def test_an_event_that_its_handler_put_off_says_so(rows: Rows) -> None:
    event_id = rows.record()
    lease = rows.claim(event_id)
    rows.apply(snooze(event_id, lease.token, delay_seconds=7_200.5))

    found = rows.why(event_id)

    assert found.reason is Reason.SNOOZED
    assert found.summary.endswith("for 2 h more")


def test_an_event_waits_for_those_of_its_subject_before_it(rows: Rows) -> None:
    rows.worker()
    first, second, third = (rows.record(subject="customer-1") for _ in range(3))
    lease = rows.claim(first)

    assert rows.why(third).reason is Reason.TURN, "before any processor has met it"
    assert len(rows.database.call(lanes.wait_for_turn, [second, third])) == 2
    found = rows.why(third)

    assert found.reason is Reason.TURN
    assert found.facts["ahead"] == 2
    assert found.facts["subject"] == "customer-1"
    assert found.facts["front"]["event_id"] == first
    assert found.facts["front"]["state"] is State.PROCESSING
    assert "2 events of subject customer-1 ahead, the first of which is processing" in found.summary

    rows.apply(fail(first, lease.token, AttemptError("E", "e"), delay_seconds=61))
    assert rows.why(second).summary.endswith("the first of which is failed, due in 1 min 1 s")


def test_a_long_line_is_counted_up_to_a_bound(rows: Rows) -> None:
    last = [rows.record(subject="s") for _ in range(103)][-1]

    found = rows.why(last)

    assert (found.facts["ahead"], found.facts["is_more_ahead"]) == (100, True)
    assert "100+ events of subject s ahead" in found.summary


def test_another_subject_is_no_line(rows: Rows) -> None:
    rows.worker()
    rows.record(subject="a")

    assert rows.why(rows.record(subject="b")).reason is Reason.BACKLOG


def test_an_event_without_handler_is_told_the_nearest_type(rows: Rows) -> None:
    rows.worker()
    event_id = rows.record("invoice.snet")
    rows.database.call(served.wait_for_handler, [event_id], look_again_seconds=5)

    found = rows.why(event_id)

    assert found.reason is Reason.NO_HANDLER
    assert found.facts["did_you_mean"] == "invoice.sent"
    assert found.facts["is_served_now"] is False
    assert "did you mean invoice.sent?" in found.summary

    rows.worker("invoice.*")
    assert rows.why(event_id).facts["is_served_now"] is True


def test_a_processor_with_more_types_than_are_written_down_is_taken_to_serve_all(rows: Rows) -> None:
    rows.worker(*(f"type.{number}" for number in range(501)))

    assert rows.why(rows.record("something.else")).reason is Reason.BACKLOG


def test_an_event_that_no_processor_has_met_yet_has_no_handler_either(rows: Rows) -> None:
    rows.worker()

    assert rows.why(rows.record("something.else")).reason is Reason.NO_HANDLER


def test_a_due_event_knows_its_place_in_the_backlog(rows: Rows) -> None:
    rows.worker(said=Beat(busy=3))
    for _ in range(4):
        rows.record("order.shipped")
    event_id = rows.record("order.shipped")

    found = rows.why(event_id)

    assert found.reason is Reason.BACKLOG
    assert [found.facts[name] for name in ("before", "slots", "busy", "is_more_before")] == [4, 8, 3, False]
    assert found.facts["oldest_due_at"] < found.facts["since"]
    assert "4 events due before it, 3 of 8 slots busy" in found.summary


def test_without_a_processor_nobody_takes_it(rows: Rows) -> None:
    event_id = rows.record()
    assert rows.why(event_id).reason is Reason.NO_PROCESSOR

    rows.worker()
    assert rows.why(event_id).reason is Reason.BACKLOG
    rows.run("UPDATE node_worker SET beat_at = now() - interval '31 s'")

    assert rows.why(event_id).reason is Reason.NO_PROCESSOR, "it has said nothing for too long"


def test_an_event_waits_where_every_processor_is_drained(rows: Rows) -> None:
    who = rows.worker()
    rows.worker("something.else")
    event_id = rows.record()
    rows.run("UPDATE node SET drain_since = now() WHERE id = :id", id=who.node_id)

    found = rows.why(event_id)

    assert (found.reason, found.facts["nodes"]) == (Reason.DRAINED, [who.node_id])


def test_a_suspect_waits_for_the_process_of_suspects(rows: Rows) -> None:
    rows.worker()
    rows.worker(name="suspects", slots=1, is_suspect=True)
    others = [rows.record() for _ in range(3)]
    rows.run("UPDATE processing_state SET crashes = 1 WHERE event_id = ANY (:ids)", ids=others[1:])

    found = rows.why(others[2])

    assert found.reason is Reason.SUSPECT
    assert [found.facts[name] for name in ("before", "slots", "crashes")] == [1, 1, 1]


def test_it_is_said_that_the_broker_is_away(rows: Rows) -> None:
    rows.worker(said=Beat(is_broker_away=True))

    found = rows.why(rows.record())

    assert found.reason is Reason.BROKER_AWAY
    assert found.facts["is_broker_away"] is True


def test_a_running_event_says_where_it_runs_and_until_when_it_is_leased(rows: Rows) -> None:
    event_id = rows.record()
    lease = rows.claim(event_id)
    run = Running(str(event_id), "t", "order", 1, lease.claimed_at.isoformat())
    who = rows.worker(said=Beat(busy=1, running=(run,)))
    rows.run("UPDATE event_update SET at = now() - interval '12 s' WHERE version = 2")

    found = rows.why(event_id)

    assert found.reason is Reason.RUNNING
    assert [found.facts[name] for name in ("attempt", "handler", "node", "host")] == [1, "order", who.node_id, "box"]
    assert found.facts["lease_until"] > found.facts["since"]
    assert found.summary.startswith("attempt 1 runs by order for 12 s; its lease lasts")


def test_a_look_reads_a_bounded_part_of_a_large_backlog(rows: Rows) -> None:
    """With 30 000 due events and one subject of 3 000, not analyzed: the plans that a sudden backlog gets."""
    rows.worker()
    rows.run("""
        INSERT INTO event (id, tenant, source, ce_id, type, subject)
        SELECT gen_random_uuid(), 't', '/s', CAST(n AS text), 'order.placed', CASE WHEN n <= 3000 THEN 'big' END
        FROM generate_series(1, 30000) n""")
    rows.run("""
        INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, lane, lane_key, lane_at)
        SELECT id, 'queued', 1, now() - interval '1 h', now(), CASE WHEN subject IS NOT NULL THEN 7 END,
               CASE WHEN subject IS NOT NULL THEN CAST('00000000-0000-0000-0000-000000000007' AS uuid) END,
               CASE WHEN subject IS NOT NULL THEN now() END FROM event""")
    with rows.database.transaction() as session:
        last = session.scalar(
            text("SELECT event_id FROM processing_state WHERE lane = 7 ORDER BY event_id DESC LIMIT 1")
        )
        free = session.scalar(text("SELECT event_id FROM processing_state WHERE lane IS NULL LIMIT 1"))
    rows.run("UPDATE processing_state SET available_at = now() - interval '1 min' WHERE event_id = :id", id=free)

    for event_id, reason in ((last, Reason.TURN), (free, Reason.BACKLOG)):
        read, scans = _cost(rows, event_id)
        assert rows.why(event_id).reason is reason
        assert scans == set(), "no table that grows is read from end to end"
        assert read <= 1_200, "at most a thousand due events and a hundred of a line"


def _cost(rows: Rows, event_id: UUID) -> tuple[int, set[str]]:
    """Rows that all of its statements read, and tables that were read from end to end, the few nodes left out."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    sa_event.listen(rows.database.engine, "before_cursor_execute", note)
    rows.why(event_id)
    sa_event.remove(rows.database.engine, "before_cursor_execute", note)
    total, scans = 0, set()
    with rows.database.transaction() as session:
        connection = session.connection()
        for statement, parameters in statements:
            explain_ = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
            answer = connection.exec_driver_sql(explain_, parameters).scalar_one()
            for each in _nodes(answer[0]["Plan"]):
                if "Relation Name" in each:
                    total += (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"]
                if each["Node Type"] == "Seq Scan" and not each["Relation Name"].startswith("node"):
                    scans.add(each["Relation Name"])
    assert len(statements) >= 3
    return int(total), scans


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (7_500, "2 h 5 min"), (266_400, "3 d 2 h")],
)
def test_waits_are_told_in_two_units(seconds: float, words: str) -> None:
    standing = Standing(
        now=NOW, event_id=uuid4(), type="t", subject=None, state=State.FAILED, attempt=3, crashes=0,
        available_at=NOW + timedelta(seconds=seconds + 1e-6), waits_aside=False, is_unserved=False, is_scheduled=False,
        is_snoozed=False, is_sleeping=False, moved_at=None, error_type=None, lease_expires_at=None,
    )  # fmt: skip

    assert explain(Facts(standing=standing, fleet=Fleet([]))).summary == f"attempt 4 is due in {words}, after an error"


@pytest.mark.parametrize(
    ("pattern", "type_", "is_fit"),
    [
        ("a.b", "a.b", True), ("a.b", "a.bc", False), ("a.*", "a.b.c", True), ("a.*", "a.", True), ("*.c", "a.c", True),
        ("a*b*c", "a1b2c", True), ("a*b*c", "acb", False), ("*", "anything", True), ("ab*ba", "aba", False),
    ],
)  # fmt: skip
def test_a_pattern_fits_as_handlers_mean_it(pattern: str, type_: str, is_fit: bool) -> None:
    assert fits(pattern, type_) is is_fit


@pytest.mark.parametrize(
    ("type_", "near"),
    [
        ("com.acme.order.palced", "com.acme.order.placed"), ("com.acme.orders.placed", "com.acme.order.placed"),
        ("COM.acme.order.placed", "com.acme.order.placed"), ("com.acme.order.cancelled", None), ("order.placed", None),
        ("x" * 1000, None),
    ],
)  # fmt: skip
def test_the_nearest_type_has_the_fewest_edits(type_: str, near: str | None) -> None:
    known = ["com.acme.order.placed", "com.acme.order.shipped", "com.acme.*", "com.acme.invoice.sent"]

    assert nearest(type_, known) == near


def test_of_equally_near_types_the_first_in_the_alphabet_is_taken() -> None:
    assert nearest("order.x", ["order.b", "order.a"]) == "order.a"
