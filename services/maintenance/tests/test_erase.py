"""Erasing what has a subject: every table, every key and every log is searched for a planted text afterwards."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.searching import in_database, in_redis

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.schedule import ScheduleSpec
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, fail, settle
from holdfast.domain.window import Kind, Window
from holdfast.local.fixtures import Eventually
from holdfast.maintenance.erase import erase
from holdfast.maintenance.relay import relay
from holdfast.messaging.announce import Announcer
from holdfast.messaging.live import Publisher
from holdfast.runtime.cron import next_tick
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import erasures, events, groups, windows
from holdfast.storage.audit import Actor, AuditFilter, list_audit
from holdfast.storage.claims import claim_events
from holdfast.storage.counting import count_page
from holdfast.storage.database import Database
from holdfast.storage.erasures import KEY_REUSED, Erasure, ErasureState
from holdfast.storage.filters import EventFilter
from holdfast.storage.lifecycle import apply
from holdfast.storage.redaction import ERASED
from holdfast.storage.replay_batches import due_replays, replay_batch
from holdfast.storage.replays import JobState, Replay, list_replays, start_replay
from holdfast.storage.schedules import put_schedule

TENANT = "acme"
ANN = Actor(TENANT, "abcdefghijkl", "ann's key")
MARKER = "marker-7f3a"
"""In the subject, and in everything that senders and handlers say of it."""

SUBJECT = f"person {MARKER}"

Search = Callable[[str], list[str]]


@pytest.fixture
def places(database_url: str, redis_url: str) -> Search:
    """Where a text is: columns of the database, and keys of Redis by their names or what they hold."""
    return lambda wanted: in_database(database_url, wanted) + in_redis(redis_url, wanted)


def new_event(subject: str | None = SUBJECT, *, said: str = MARKER, **attributes: Any) -> NewEvent:
    return NewEvent(
        id=uuid7(), tenant=TENANT, source=f"/s/{said}", ce_id=f"{said}-{uuid4().hex}", type=f"t.{said}", subject=subject,
        audience=f"user {said}", data_json=json.dumps({"name": said}), extensions={"x": said}, **attributes,
    )  # fmt: skip


def error(said: str) -> AttemptError:
    return AttemptError(f"Key{said}", f"no {said}", handler="h", traceback=f"at {said}", fingerprint="f")


def bring(
    database: Database, announcer: Announcer, made: list[NewEvent], state: State, *, said: str = MARKER
) -> list[UUID]:
    """Record events, lead each to a state and tell of it; what their handler says has the marker."""
    told = [each.update for each in database.call(events.record, made, grace_seconds=60)]
    if state is not State.QUEUED:
        leased = database.call(claim_events, [(event.id, 1) for event in made], owner="w", lease_seconds=3600)
        ends = {
            State.PROCESSED: lambda lease: settle(
                lease.event.id, lease.token, Completion("h", {"greeting": f"hi {said}"}, 1)
            ),
            State.DEAD: lambda lease: bury(lease.event.id, lease.token, error(said)),
            State.FAILED: lambda lease: fail(lease.event.id, lease.token, error(said), delay_seconds=3600),
        }
        if state in ends:
            told += database.call(apply, [ends[state](lease) for lease, _ in leased])
    announcer.publish(told)
    return [event.id for event in made]


def begin(database: Database, subject: str | None = SUBJECT, key: str = "k") -> Erasure:
    begun = database.call(erasures.begin_erasure, ANN, subject, idempotency_key=key)
    assert isinstance(begun, Erasure)
    return begun


def see_all(database: Database, publisher: Publisher) -> None:
    """Every update is published and counted, as maintenance does it all the time."""
    while database.call(count_page, limit=1000):
        pass
    for _ in range(3):
        with database.transaction() as session:
            session.execute(text("UPDATE outbox_cursor SET until_at = now() - interval '1 min'"))
        relay(database, publisher, within_seconds=1, limit=1000)


def settle_identities(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE event_identity SET made_at = made_at - interval '2 min'"))
        session.execute(text("UPDATE erasure_job SET next_at = now()"))


def work_off(
    database: Database, announcer: Announcer, publisher: Publisher, erasure: Erasure, turns: int = 6
) -> Erasure:
    """Let maintenance have its turns, each as long as a walk takes, until the erasure is done or those are over."""
    for _ in range(turns):
        see_all(database, publisher)
        erase(database, announcer, publisher, dedupe_seconds=30 * 86_400, limit=3, now=lambda: 0.0)
        found = database.call(erasures.find_erasure, erasure.id, tenant=TENANT)
        assert found is not None
        erasure = found
        if found.state is ErasureState.DONE:
            break
        settle_identities(database)
    return erasure


@contextmanager
def refusing_to_delete(database: Database, *, subject: str) -> Iterator[None]:
    """Within, events of a subject cannot be deleted."""
    made = f"""
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON event FOR EACH ROW WHEN (OLD.subject = '{subject}') EXECUTE FUNCTION refuse();
    """
    with database.transaction() as session:
        session.execute(text(made))
    try:
        yield
    finally:
        with database.transaction() as session:
            session.execute(text("DROP FUNCTION refuse CASCADE"))


def test_nothing_is_left_of_a_subject(
    database: Database, announcer: Announcer, publisher: Publisher, places: Search
) -> None:
    for state in (State.QUEUED, State.FAILED, State.PROCESSED, State.DEAD):
        bring(database, announcer, [new_event(), new_event()], state)
    kept = bring(database, announcer, [new_event("somebody", said="else")], State.PROCESSED, said="else")
    group = NewGroup(
        id=uuid7(), tenant=TENANT, parent_id=kept[0], type="done", subject=SUBJECT, data_json=f'"{MARKER}"'
    )
    with database.transaction() as session:
        groups.record_group(session, group, [])
    for state in (State.DEAD, State.PROCESSED):
        with database.transaction() as session:
            start_replay(
                session, ANN, EventFilter(state=state, subject=SUBJECT), rate_per_s=1, idempotency_key=uuid4().hex
            )
    before = places(MARKER)
    assert {place.split(".")[0] for place in before} >= {
        "event", "processed_event_log", "attempt_error", "event_update", "audit_log", "replay_job", "event_group",
        f"live:stream:{TENANT}:tenant:{TENANT}",
    }, "the search finds what is there"  # fmt: skip

    done = work_off(database, announcer, publisher, begin(database))

    assert (done.state, done.erased, done.waiting) == (ErasureState.DONE, 9, 0)
    assert done.remains == {"newer_events": 0, "schedules": []}
    assert places(MARKER) == []
    assert places("else") != [], "what is somebody else's is still there"


def test_an_event_that_runs_is_waited_for(
    database: Database, announcer: Announcer, publisher: Publisher, places: Search
) -> None:
    [running] = bring(database, announcer, [new_event()], State.PROCESSING)
    begun = begin(database)

    waiting = work_off(database, announcer, publisher, begun, turns=3)
    assert (waiting.state, waiting.erased, waiting.waiting) == (ErasureState.RUNNING, 0, 1)

    with database.transaction() as session:
        token = session.scalar(text("SELECT lease_token FROM processing_state WHERE event_id = :id"), {"id": running})
    announcer.publish(database.call(apply, [settle(running, token, Completion("h", {"greeting": MARKER}, 1))]))
    assert work_off(database, announcer, publisher, begun).state is ErasureState.DONE
    assert places(MARKER) == []


def test_the_sender_cannot_bring_it_back_by_sending_again(
    database: Database, announcer: Announcer, publisher: Publisher, places: Search
) -> None:
    sent = new_event()
    bring(database, announcer, [sent], State.PROCESSED)
    work_off(database, announcer, publisher, begin(database))

    [again] = database.call(events.record, [sent], grace_seconds=60)

    assert (again.is_duplicate, again.is_forgotten) == (True, True)
    assert places(MARKER) == []


def test_a_request_is_carried_out_once_and_audited_without_the_subject(
    database: Database, announcer: Announcer, publisher: Publisher
) -> None:
    begun = begin(database)
    assert begin(database) == begun
    assert database.call(erasures.begin_erasure, ANN, "somebody", idempotency_key="k") == KEY_REUSED

    done = work_off(database, announcer, publisher, begun)
    assert begin(database) == done

    entries = database.call(list_audit, AuditFilter(), tenant=TENANT, limit=10).items
    assert [(each.action, each.actor) for each in reversed(entries)] == [
        ("start_erase", "abcdefghijkl"), ("finish_erase", "maintenance"),
    ]  # fmt: skip
    assert all(each.detail["subject_sha256"] == begun.subject_sha256 for each in entries)


def test_the_end_says_what_is_left(database: Database, announcer: Announcer, publisher: Publisher) -> None:
    begun = begin(database)
    bring(database, announcer, [new_event()], State.PROCESSED)
    spec = ScheduleSpec(name="birthday", cron="0 7 * * *", type="t", subject=SUBJECT)
    database.call(put_schedule, ANN, spec, next_tick=next_tick)

    done = work_off(database, announcer, publisher, begun)

    assert done.remains == {"newer_events": 1, "schedules": ["birthday"]}


def test_nothing_is_erased_while_redis_is_away(
    database: Database, announcer: Announcer, make_publisher: Callable[[str], Publisher],
    closed_url: str, places: Search,
) -> None:  # fmt: skip
    bring(database, announcer, [new_event()], State.PROCESSED)
    begin(database)
    away = make_publisher(closed_url)

    with pytest.raises(LiveWindowUnavailable):
        erase(database, announcer, away, dedupe_seconds=1, limit=10)

    assert "event.data_bytes" in places(MARKER)


def test_one_that_fails_waits_and_is_counted_and_the_others_go_on(
    database: Database, announcer: Announcer, publisher: Publisher
) -> None:
    bring(database, announcer, [new_event("wrong")], State.PROCESSED)
    bring(database, announcer, [new_event()], State.PROCESSED)
    failing, other = begin(database, "wrong", key="w"), begin(database)
    failures = Metrics.erasure_failures._value.get()

    with refusing_to_delete(database, subject="wrong"):
        assert work_off(database, announcer, publisher, other).state is ErasureState.DONE

    found = database.call(erasures.find_erasure, failing.id, tenant=TENANT)
    assert found is not None
    assert (found.state, found.last_error) == (ErasureState.RUNNING, "InternalError")
    assert Metrics.erasure_failures._value.get() > failures
    assert work_off(database, announcer, publisher, failing).state is ErasureState.DONE


OF_A_TENANT = """
SELECT 'event' AS place, CAST(t AS text) AS held FROM event t WHERE tenant = :tenant
UNION ALL SELECT 'window', CAST(t AS text) FROM event_window t WHERE tenant = :tenant
UNION ALL SELECT 'group', CAST(t AS text) FROM event_group t WHERE tenant = :tenant
UNION ALL SELECT 'state', CAST(t AS text) FROM processing_state t JOIN event e ON e.id = t.event_id WHERE e.tenant = :tenant
UNION ALL SELECT 'update', CAST(t AS text) FROM event_update t JOIN event e ON e.id = t.event_id WHERE e.tenant = :tenant
UNION ALL SELECT 'log', CAST(t AS text) FROM processed_event_log t JOIN event e ON e.id = t.event_id
          WHERE e.tenant = :tenant
UNION ALL SELECT 'error', CAST(t AS text) FROM attempt_error t JOIN event e ON e.id = t.event_id WHERE e.tenant = :tenant
UNION ALL SELECT 'item', CAST(t AS text) FROM replay_item t JOIN replay_job j ON j.id = t.job_id WHERE j.tenant = :tenant
ORDER BY 1, 2
"""


def rows_of(database: Database, tenant: str) -> list[tuple[str, str]]:
    """Everything about a tenant's events, row by row."""
    with database.transaction() as session:
        return [(row.place, row.held) for row in session.execute(text(OF_A_TENANT), {"tenant": tenant})]


def windowed(tenant: str = TENANT, *, said: str = MARKER) -> list[NewEvent]:
    """One that waits in a window for later ones, and the first one of its key."""
    asking = {
        Kind.DEBOUNCE: {"debounceseconds": 3600, "debouncekey": said},
        Kind.UNIQUE: {"uniqueseconds": 3600, "uniquekey": said},
    }
    return [
        replace(
            new_event(f"person {said}", said=said, window=Window(kind, said, 3600, 36_000)),
            tenant=tenant,
            extensions={"x": said, **asked},
        )
        for kind, asked in asking.items()
    ]


def fill(database: Database, announcer: Announcer, tenant: str, *, said: str) -> None:
    """Everything that a tenant can have of events: in every state, in windows, in a group that is open, in replays, of which
    one has made a copy.
    """

    def made(subject: str | None) -> list[NewEvent]:
        return [replace(new_event(subject, said=said), tenant=tenant) for _ in range(2)]

    actor = Actor(tenant, "abcdefghijkl", "ann's key")
    for state in (State.QUEUED, State.FAILED, State.PROCESSED, State.DEAD):
        bring(database, announcer, [*made(f"person {said}"), *made(None)], state, said=said)
    [parent, *_] = bring(database, announcer, made("a parent"), State.PROCESSED, said=said)
    group = NewGroup(
        id=uuid7(), tenant=tenant, parent_id=parent, type=f"done {said}", subject=f"all {said}", data_json=f'"{said}"'
    )
    with database.transaction() as session:
        members = [replace(each, parent_id=parent, group_id=group.id) for each in made("a member")]
        recorded = events.record(session, members, grace_seconds=60)
        groups.record_group(session, group, [each.id for each in members])
        kept = windows.record(session, windowed(tenant, said=said), grace_seconds=60)
    announcer.publish([each.update for each in (*recorded, *kept.recorded)])
    last = None
    for state in (State.DEAD, State.PROCESSED):
        wanted = EventFilter(state=state, audience=f"user {said}", received_before=datetime(2999, 1, 1, tzinfo=UTC))
        last = database.call(start_replay, actor, wanted, rate_per_s=1, idempotency_key=uuid4().hex)
    assert isinstance(last, Replay)
    copied = database.call(replay_batch, last.id, limit=1, burst_seconds=1, grace_seconds=60)
    assert copied.items == 1
    announcer.publish(copied.updates)


def kinds(rows: Sequence[tuple[str, str]]) -> set[str]:
    return {place for place, _ in rows}


def test_nothing_is_left_of_a_tenant(
    database: Database, announcer: Announcer, publisher: Publisher, places: Search
) -> None:
    fill(database, announcer, TENANT, said=MARKER)
    fill(database, announcer, "other", said="elsewhere-1c")
    see_all(database, publisher)
    others, shown = rows_of(database, "other"), places("elsewhere-1c")
    assert kinds(rows_of(database, TENANT)) == kinds(others)
    assert kinds(others) == {"event", "window", "group", "state", "update", "log", "error", "item"}
    assert f"live:stream:{TENANT}:tenant:{TENANT}" in places(MARKER), "the search finds what is there"

    done = work_off(database, announcer, publisher, begin(database, None))

    assert (done.state, done.erased, done.waiting) == (ErasureState.DONE, 23, 0)
    assert done.remains == {"newer_events": 0, "schedules": []}, "neither a group nor a replay has made another event"
    assert (places(MARKER), rows_of(database, TENANT)) == ([], [])
    assert (rows_of(database, "other"), places("elsewhere-1c")) == (others, shown)


def test_replays_of_what_is_erased_come_to_an_end(
    database: Database, announcer: Announcer, publisher: Publisher
) -> None:
    fill(database, announcer, TENANT, said=MARKER)
    work_off(database, announcer, publisher, begin(database, None))

    for replay_id in database.call(due_replays, limit=10):
        database.call(replay_batch, replay_id, limit=10, burst_seconds=1, grace_seconds=60)

    ended = database.call(list_replays, tenant=TENANT, limit=10).items
    assert {each.state for each in ended} == {JobState.DONE}
    assert [(each.total, each.replayed, each.skipped) for each in ended] == [(6, 1, 5), (4, 0, 4)]
    assert {each.filter["audience"] for each in ended} == {ERASED}
    assert {each.filter["received_before"] for each in ended} == {"2999-01-01T00:00:00+00:00"}


def test_everything_waits_for_what_runs_and_leaves_what_came_later(
    database: Database, announcer: Announcer, publisher: Publisher
) -> None:
    [running] = bring(database, announcer, [new_event()], State.PROCESSING)
    begun = begin(database, None)
    later = bring(database, announcer, [new_event() for _ in range(7)], State.QUEUED)
    spec = ScheduleSpec(name="birthday", cron="0 7 * * *", type="t")
    database.call(put_schedule, ANN, spec, next_tick=next_tick)

    waiting = work_off(database, announcer, publisher, begun, turns=3)
    assert (waiting.state, waiting.erased, waiting.waiting) == (ErasureState.RUNNING, 0, 1)

    with database.transaction() as session:
        token = session.scalar(text("SELECT lease_token FROM processing_state WHERE event_id = :id"), {"id": running})
    announcer.publish(database.call(apply, [settle(running, token, Completion("h", {"greeting": MARKER}, 1))]))
    done = work_off(database, announcer, publisher, begun)

    assert (done.state, done.erased) == (ErasureState.DONE, 1)
    assert done.remains == {"newer_events": 7, "schedules": ["birthday"]}
    with database.transaction() as session:
        left = session.execute(text("SELECT event_id, state FROM processing_state ORDER BY event_id")).all()
    assert [tuple(row) for row in left] == [(event_id, State.QUEUED) for event_id in sorted(later)]


def test_everything_is_begun_once_and_audited(database: Database, announcer: Announcer, publisher: Publisher) -> None:
    begun = begin(database, None)
    assert begun.is_everything
    assert begin(database, None) == begun
    assert database.call(erasures.begin_erasure, ANN, SUBJECT, idempotency_key="k") == KEY_REUSED

    done = work_off(database, announcer, publisher, begun)

    entries = database.call(list_audit, AuditFilter(), tenant=TENANT, limit=10).items
    assert [(each.action, each.detail["everything"]) for each in reversed(entries)] == [
        ("start_erase", True), ("finish_erase", True),
    ]  # fmt: skip
    assert (done.state, done.is_everything) == (ErasureState.DONE, True)


def test_a_killed_maintenance_leaves_an_erasure_to_the_next(
    database: Database, announcer: Announcer, start: Callable[..., Any], eventually: Eventually, places: Search
) -> None:
    """Kills while it runs; the last one finishes it, and no log has anything of it."""
    for state in (State.QUEUED, State.PROCESSED, State.DEAD):
        bring(database, announcer, [new_event() for _ in range(100)], state)
    begun = begin(database)
    logs = []

    def is_done() -> bool:
        # The job's lock first, as maintenance has it: otherwise the two would wait for each other.
        with database.transaction() as session:
            session.execute(text("UPDATE erasure_job SET next_at = now() WHERE state = 'running'"))
            session.execute(text("UPDATE event_identity SET made_at = made_at - interval '2 min'"))
        found = database.call(erasures.find_erasure, begun.id, tenant=TENANT)
        assert found is not None
        progress.add(found.erased + found.waiting)
        return found.state is ErasureState.DONE

    progress: set[int] = set()
    settings = {"SWEEP_LIMIT": "7", "SWEEP_SECONDS": "0.2", "RELAY_AFTER_SECONDS": "0.5"}
    for _ in range(3):
        worker = start(**settings)
        logs.append(worker.log)
        progress.clear()
        eventually(lambda: is_done() or len(progress) > 2, timeout_seconds=30, message="it goes on")
        worker.kill()
    logs.append(start(**settings).log)
    eventually(is_done, timeout_seconds=90, message="the erasure is done")

    found = database.call(erasures.find_erasure, begun.id, tenant=TENANT)
    assert found is not None
    assert found.erased == 300
    assert places(MARKER) == []
    assert all(MARKER not in log.read_text() for log in logs)
