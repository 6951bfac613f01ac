"""Events that were sent for later: when they are due, who looks for them, and what is told."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, dispatch, events, served
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded

LATER = datetime(2999, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


class Rows:
    """Records events, and moves time for those that wait."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, *deliver_at: datetime | None, **attributes: Any) -> list[Recorded]:
        new = [
            NewEvent(
                id=uuid7(),
                tenant="t",
                source="/s",
                ce_id=uuid4().hex,
                type="order.placed",
                deliver_at=each,
                **attributes,
            )
            for each in deliver_at
        ]
        recorded: list[Recorded] = self.database.call(events.record, new, grace_seconds=60)
        return recorded

    def one(self, sql: str, **parameters: Any) -> Any:
        with self.database.transaction() as session:
            return session.execute(text(sql), parameters).one()

    def row(self, event_id: UUID) -> Any:
        return self.one(
            "SELECT s.*, e.received_at, u.detail FROM processing_state s JOIN event e ON e.id = s.event_id"
            " JOIN event_update u ON u.event_id = s.event_id AND u.version = 1 WHERE s.event_id = :id",
            id=event_id,
        )

    def claimed(self) -> list[UUID]:
        found = self.database.call(claims.claim_due, owner="w", lease_seconds=30, limit=10)
        return [lease.event.id for lease, _ in found]

    def pass_time(self, event_id: UUID) -> None:
        """The event's time comes."""
        with self.database.transaction() as session:
            session.execute(
                text(
                    "UPDATE processing_state SET available_at = now(), next_dispatch_at = now()"
                    " WHERE event_id = :id AND available_at = next_dispatch_at"
                ),
                {"id": event_id},
            )


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    database = Database(database_url, application_name="test", pool_size=4)
    with database.transaction() as session:
        served.declare_ordered(session, ["order.placed"])
    yield Rows(database)
    database.close()


def test_an_event_is_due_when_it_was_sent_for(rows: Rows) -> None:
    [recorded] = rows.record(LATER)

    row = rows.row(recorded.update.event_id)
    assert (row.state, row.available_at, row.next_dispatch_at) == ("queued", LATER, LATER)
    assert recorded.due_at == LATER
    assert recorded.update.detail == row.detail == {"deliver_at": "2999-01-02T03:04:05.600000Z"}


@pytest.mark.parametrize("moment", [None, datetime(1, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)])
def test_a_time_that_is_past_is_now(rows: Rows, moment: datetime | None) -> None:
    [recorded] = rows.record(moment)

    row = rows.row(recorded.update.event_id)
    assert row.available_at == row.received_at
    assert row.next_dispatch_at == row.received_at + timedelta(seconds=60)
    assert (recorded.due_at, recorded.update.detail, row.detail) == (None, {}, {})


def test_events_of_one_statement_have_their_own_times(rows: Rows) -> None:
    recorded = rows.record(None, LATER, LATER + timedelta(days=1), None)

    due = [rows.row(each.update.event_id).available_at for each in recorded]
    assert due[1:3] == [LATER, LATER + timedelta(days=1)]
    assert max(due[0], due[3]) < LATER


def test_nobody_takes_it_before_its_time_and_everybody_finds_it_then(rows: Rows) -> None:
    [recorded] = rows.record(LATER)
    event_id = recorded.update.event_id
    assert rows.claimed() == []
    assert rows.database.call(claims.claim_events, [(event_id, 1)], owner="w", lease_seconds=30) == []
    assert rows.database.call(dispatch.redispatch_due, limit=10) == []

    rows.pass_time(event_id)

    assert [each.event_id for each in rows.database.call(dispatch.redispatch_due, limit=10)] == [event_id]
    assert rows.claimed() == [event_id]


def test_in_its_subject_it_is_in_line_from_its_time_on(rows: Rows) -> None:
    [later] = rows.record(LATER, subject="a")
    [now] = rows.record(None, subject="a")

    assert rows.claimed() == [now.update.event_id], "it waits for nothing that was sent for later"
    rows.pass_time(later.update.event_id)
    assert rows.claimed() == [], "one at a time"
