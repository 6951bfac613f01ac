"""Discards by filter: frozen sets, given up by any number of processes that may die, and never taken for replays."""

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, fail, settle
from holdfast.domain.transitions import replay as again
from holdfast.local.fixtures import Eventually
from holdfast.maintenance.replay import replay
from holdfast.messaging.announce import Announcer
from holdfast.storage import replays
from holdfast.storage.audit import Actor, AuditFilter, list_audit
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.lifecycle import apply
from holdfast.storage.replay_batches import due_replays
from holdfast.storage.replays import Action, JobState, Replay

Start = Callable[..., Any]

ANN = Actor("acme", "abcdefghijkl", "ann", "203.0.113.9", "r-1")


def begin(database: Database, state: State = State.DEAD, *, rate: float = 1000) -> Replay:
    with database.transaction() as session:
        begun = replays.start_replay(
            session, ANN, EventFilter(state=state), rate_per_s=rate, idempotency_key=uuid4().hex, action=Action.DISCARD
        )
    assert isinstance(begun, Replay), begun
    return begun


def find(database: Database, begun: Replay) -> Replay:
    with database.transaction() as session:
        found = replays.find_replay(session, begun.id, tenant="acme", action=Action.DISCARD)
    assert found is not None
    return found


def work(database: Database, announcer: Announcer) -> int:
    with database.transaction() as session:  # as if maintenance had been away for a minute: all are due
        session.execute(text("UPDATE replay_job SET next_at = now() - interval '1 min'"))
    return replay(database, announcer, limit=500, burst_seconds=2, grace_seconds=5)


def test_discarded_events_are_told_and_not_rung_for(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    event_ids = events.finished(3)
    begun = begin(database)

    assert work(database, announcer) == 3

    assert [events.row(each).state for each in event_ids] == ["discarded"] * 3
    assert [update["state"] for update in in_redis.published(event_ids[0])] == ["discarded"]
    assert in_redis.doorbells() == []
    over = find(database, begun)
    assert (over.state, over.replayed, over.skipped) == (JobState.DONE, 3, 0)


def test_the_beginning_and_the_end_are_in_the_audit_log(database: Database, announcer: Announcer, events: Any) -> None:
    events.finished(2)
    begun = begin(database)
    work(database, announcer)

    with database.transaction() as session:
        ended, started = list_audit(session, AuditFilter(replay_id=begun.id), tenant="acme", limit=10).items

    assert (started.action, started.actor_name, started.origin) == ("start_discard", "ann", "203.0.113.9")
    assert started.detail == {"filter": {"state": "dead"}, "total": 2}
    assert (ended.action, ended.actor) == ("finish_discard", "maintenance")
    assert ended.detail == {"created_by": "abcdefghijkl", "total": 2, "discarded": 2, "skipped": 0}


def test_an_event_that_has_moved_since_is_left_alone(database: Database, announcer: Announcer, events: Any) -> None:
    moved, stays = events.record(2)
    begun = begin(database, State.QUEUED)
    events.claim(moved)

    work(database, announcer)

    assert (events.row(moved).state, events.row(stays).state) == ("processing", "discarded")
    assert (find(database, begun).replayed, find(database, begun).skipped) == (1, 1)


def test_events_that_run_are_asked_to_end_and_those_that_ended_first_are_left_alone(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    runs, failed, processed, waits = events.record(4)
    leases = {each: events.claim(each) for each in (runs, failed, processed)}
    begun = begin(database, State.PROCESSING)
    with database.transaction() as session:
        apply(session, [settle(processed, leases[processed].token, Completion("h", None, 7))])
        apply(session, [fail(failed, leases[failed].token, AttemptError("KeyError", "no"), delay_seconds=60)])

    assert work(database, announcer) == 3

    asked = events.execute("SELECT event_id, version, actor FROM cancel_request")
    assert [(each.event_id, each.version, each.actor) for each in asked] == [(runs, leases[runs].version, "ann")]
    over = find(database, begun)
    assert (over.state, over.total, over.replayed, over.skipped) == (JobState.DONE, 3, 1, 2)
    assert [events.row(each).state for each in (runs, failed, processed, waits)] == [
        "processing", "failed", "processed", "queued",
    ]  # fmt: skip
    assert in_redis.published(runs) == []
    begin(database, State.PROCESSING)
    assert work(database, announcer) == 1
    assert events.execute("SELECT event_id, requested_at FROM cancel_request")[0].requested_at is not None
    with database.transaction() as session:
        ended, started = list_audit(session, AuditFilter(replay_id=begun.id), tenant="acme", limit=10).items
    assert (started.action, started.actor_name) == ("start_discard", "ann")
    assert started.detail == {"filter": {"state": "processing"}, "total": 3}
    assert (ended.action, ended.detail["discarded"], ended.detail["skipped"]) == ("finish_discard", 1, 2)


def test_an_event_that_was_replayed_and_is_dead_again_is_another_matter(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [event_id] = events.finished()
    begun = begin(database)
    with database.transaction() as session:
        apply(session, [again(event_id)])
    lease = events.claim(event_id)
    with database.transaction() as session:
        apply(session, [bury(event_id, lease.token, AttemptError("KeyError", "no"))])

    work(database, announcer)

    assert events.row(event_id).state == "dead"
    assert find(database, begun).skipped == 1


def test_a_cancelled_discard_discards_nothing_more(database: Database, announcer: Announcer, events: Any) -> None:
    [event_id] = events.finished()
    begun = begin(database)
    with database.transaction() as session:
        replays.cancel(session, ANN, begun.id, action=Action.DISCARD)

    assert work(database, announcer) == 0

    assert events.row(event_id).state == "dead"


def test_maintenance_of_the_release_before_does_not_take_a_discard_for_a_replay(
    database: Database, events: Any
) -> None:
    events.finished()
    discard, other = begin(database), events.begin_replay()
    with database.transaction() as session:
        # What that release asks for its work, word for word.
        taken = session.scalars(text("SELECT id FROM replay_job WHERE state = 'running' AND next_at <= now()")).all()
        due = due_replays(session, limit=10)

    assert taken == [other.id]
    assert set(due) == {discard.id, other.id}


def test_a_discard_survives_the_death_of_its_workers(
    start: Start, database: Database, events: Any, eventually: Eventually
) -> None:
    event_ids = events.finished(60)
    begun = begin(database, rate=50)
    worker = start(SWEEP_SECONDS="0.2", SWEEP_LIMIT="5")
    eventually(partial(has_discarded, database, begun, 1), message="one is discarded")
    os.killpg(worker.process.pid, signal.SIGKILL)
    died_at = find(database, begun)

    start(SWEEP_SECONDS="0.2", SWEEP_LIMIT="20")
    eventually(lambda: find(database, begun).state is JobState.DONE, timeout_seconds=60)

    assert died_at.state is JobState.RUNNING, "it was killed before the end"
    over = find(database, begun)
    assert (over.replayed, over.skipped) == (60, 0)
    assert {events.row(each).state for each in event_ids} == {"discarded"}


def has_discarded(database: Database, begun: Replay, count: int) -> bool:
    return find(database, begun).replayed >= count
