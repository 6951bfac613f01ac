"""What counts as backlog."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.runtime.ids import uuid7
from holdfast.storage.backlog import oldest_due_age_seconds, open_events
from holdfast.storage.database import Database
from holdfast.storage.events import record
from holdfast.storage.served import declare_ordered


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=1)
    yield made
    made.close()


def put(database: Database, due_for_seconds: float, *, subject: str | None = None) -> UUID:
    event = NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x", subject=subject)
    with database.transaction() as session:
        record(session, [event], grace_seconds=0)
        moved = "UPDATE processing_state SET available_at = now() - make_interval(secs => :s) WHERE event_id = :id"
        session.execute(text(moved), {"s": due_for_seconds, "id": event.id})
    return event.id


def age(database: Database, *, with_suspects: bool = True) -> float:
    with database.transaction() as session:
        return oldest_due_age_seconds(session, with_suspects=with_suspects)


def test_the_oldest_due_event_counts_and_one_that_is_not_due_does_not(database: Database) -> None:
    assert age(database) == 0
    put(database, -600)
    assert age(database) == 0
    put(database, 600)
    put(database, 1200, subject="s")

    assert age(database) == pytest.approx(1200, abs=60)


def test_waiting_for_a_predecessor_is_no_backlog(database: Database) -> None:
    with database.transaction() as session:
        declare_ordered(session, ["x"])
    put(database, -3600, subject="tried again in an hour")
    put(database, 1200, subject="tried again in an hour")
    put(database, 30, subject="another")

    assert age(database) == pytest.approx(30, abs=20)


def test_open_events_are_counted_by_their_state(database: Database) -> None:
    states = ["queued"] * 3 + ["failed"] * 2 + ["processing", "processed", "dead"]
    for event_id, state in zip([put(database, 0) for _ in states], states, strict=True):
        with database.transaction() as session:
            moved = """
                UPDATE processing_state SET state = :state,
                    lease_token = CASE :state WHEN 'processing' THEN event_id END,
                    lease_expires_at = CASE :state WHEN 'processing' THEN now() END,
                    finished_at = CASE WHEN :state IN ('processed', 'dead') THEN now() END
                WHERE event_id = :id
            """
            session.execute(text(moved), {"state": state, "id": event_id})

    with database.transaction() as session:
        assert open_events(session) == {State.QUEUED: 3, State.FAILED: 2, State.PROCESSING: 1}


def test_suspects_wait_for_one_another_and_can_be_left_out(database: Database) -> None:
    suspect = put(database, 1200)
    put(database, 30)
    with database.transaction() as session:
        session.execute(text("UPDATE processing_state SET crashes = 1 WHERE event_id = :id"), {"id": suspect})

    assert age(database) == pytest.approx(1200, abs=60)
    assert age(database, with_suspects=False) == pytest.approx(30, abs=20)
