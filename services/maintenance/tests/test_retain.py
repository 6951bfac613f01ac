"""Retention by processes that are killed, beside producers that send events again."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, settle
from holdfast.local.fixtures import Eventually
from holdfast.maintenance.retain import retain
from holdfast.runtime.ids import first_uuid7, uuid7
from holdfast.storage import events as recording
from holdfast.storage.claims import claim_events
from holdfast.storage.counting import count_page
from holdfast.storage.database import Database
from holdfast.storage.lifecycle import apply
from holdfast.storage.retention import plan_walks

Start = Callable[..., Any]

DAYS = 8


def old_events(database: Database, state: State, count: int) -> list[NewEvent]:
    """Events that ended more than a week ago, told and counted."""
    first = first_uuid7(datetime.now(UTC) - timedelta(days=DAYS)).int
    made = [
        NewEvent(
            id=UUID(int=first | uuid7().int & (1 << 76) - 1), tenant="acme", source="/s", ce_id=uuid4().hex, type="t",
            data_json='{"a":1}',
        )
        for _ in range(count)
    ]  # fmt: skip
    database.call(recording.record, made, grace_seconds=3600)
    if state is not State.QUEUED:
        leased = database.call(claim_events, [(event.id, 1) for event in made], owner="w", lease_seconds=3600)
        error, completion = AttemptError("KeyError", "no"), Completion("h", None, 1)
        ends = [
            bury(lease.event.id, lease.token, error) if state is State.DEAD
            else settle(lease.event.id, lease.token, completion)
            for lease, _ in leased
        ]  # fmt: skip
        database.call(apply, ends)
    while database.call(count_page, limit=10_000):
        pass
    with database.transaction() as session:
        ago = {"ago": DAYS * 86_400}
        session.execute(text("UPDATE event SET received_at = now() - make_interval(secs => :ago)"), ago)
        moved = text("""
            UPDATE processing_state SET finished_at = now() - make_interval(secs => :ago)
            WHERE finished_at IS NOT NULL""")
        session.execute(moved, ago)
        session.execute(text("UPDATE outbox_cursor SET confirmed = CAST(pg_current_snapshot() AS text)"))
    return made


def test_killed_processes_drop_each_event_once_and_none_too_many(
    database: Database, start: Start, eventually: Eventually
) -> None:
    gone = old_events(database, State.PROCESSED, 400)
    dead, queued = old_events(database, State.DEAD, 20), old_events(database, State.QUEUED, 20)
    stop, answers = threading.Event(), list[recording.Recorded]()

    def send_again() -> None:
        """What was sent before, as long as the test lasts: whether its row is there or not it is a duplicate."""
        number = 0
        while not stop.is_set():
            again = [replace(gone[(number + each) % len(gone)], id=uuid7()) for each in range(7)]
            answers.extend(database.call(recording.record, again, grace_seconds=3600))
            number += 7

    def dropped() -> int:
        """How many went; identities are taken for settled, so that nobody waits for those."""
        with database.transaction() as session:
            session.execute(text("UPDATE retention_walk SET next_at = now()"))
        with database.transaction() as session:
            session.execute(text("UPDATE event_identity SET made_at = now() - interval '1 h'"))
            return session.scalar(text("SELECT coalesce(sum(dropped), 0) FROM retention_walk")) or 0

    sender = threading.Thread(target=send_again)
    sender.start()
    settings = {"SWEEP_LIMIT": "5", "SWEEP_SECONDS": "0.2", "RETENTION_DAYS": "7"}
    try:
        for _ in range(3):
            before = dropped()
            worker = start(**settings)
            eventually(lambda before=before: dropped() > before, timeout_seconds=30, message="some events went")  # type: ignore[misc]
            worker.kill()
        start(**settings)
        eventually(lambda: dropped() == len(gone), timeout_seconds=60, message="all of them went")
    finally:
        stop.set()
        sender.join()

    with database.transaction() as session:
        left = set(session.scalars(text("SELECT id FROM event")))
        known = set(session.scalars(text("SELECT event_id FROM event_identity")))
    assert left == {event.id for event in dead + queued}
    assert known == {event.id for event in gone}
    assert len(answers) > 100
    assert {answer.is_duplicate for answer in answers} == {True}
    assert {answer.update.event_id for answer in answers} <= known
    assert any(answer.is_forgotten for answer in answers)


def test_a_turn_ends_after_its_time(database: Database) -> None:
    old_events(database, State.PROCESSED, 30)
    database.call(plan_walks, default_days=7)
    times = iter(range(1000))

    dropped = retain(
        database, default_days=7, dedupe_seconds=86_400, limit=10, now=lambda: next(times) / 6
    )  # fmt: skip

    assert dropped == 10, "one page, after which a quarter of a second was over"
