"""What a tenant has open, counted within a bounded number of events."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, fail
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.overview import open_counts
from holdfast.storage.replays import list_replays, start_replay


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=2)
    yield made
    made.close()


def record(database: Database, count: int, **attributes: Any) -> list[UUID]:
    kept: dict[str, Any] = {"tenant": "acme", "source": "/s", "type": "x", "data_json": "1"} | attributes
    made = [NewEvent(id=uuid7(), ce_id=uuid4().hex, **kept) for _ in range(count)]
    with database.transaction() as session:
        events.record(session, made, grace_seconds=0)
    return [event.id for event in made]


def test_each_open_state_of_the_tenant_is_counted_and_no_other_tenants(database: Database) -> None:
    record(database, 5, tenant="other")
    first, second, *_ = record(database, 4)
    with database.transaction() as session:
        leases = claims.claim_events(session, [(first, 1), (second, 1)], owner="w", lease_seconds=30)
        [token] = [lease.token for lease, _ in leases if lease.event.id == first]
        lifecycle.apply(session, [fail(first, token, AttemptError("E", "m"), delay_seconds=60)], worker="w")

    counts = database.call(open_counts, tenant="acme")

    assert [counts.count(state) for state in (State.QUEUED, State.PROCESSING, State.FAILED)] == [2, 1, 1]
    assert not counts.is_partial
    assert database.call(open_counts, tenant="nobody").oldest_due_at is None


def test_the_oldest_due_event_is_the_tenants_own(database: Database) -> None:
    [others] = record(database, 1, tenant="other")
    mine, _ = record(database, 2)
    age = text("UPDATE processing_state SET available_at = now() - make_interval(hours => :hours) WHERE event_id = :id")
    with database.transaction() as session:
        session.execute(age, {"id": others, "hours": 2})
        session.execute(age, {"id": mine, "hours": 1})

    counts = database.call(open_counts, tenant="acme")

    with database.transaction() as session:
        assert counts.oldest_due_at == session.scalar(
            text("SELECT available_at FROM processing_state WHERE event_id = :id"), {"id": mine}
        )


def test_beyond_the_bound_the_count_says_that_there_may_be_more(database: Database) -> None:
    record(database, 6)

    counts = database.call(open_counts, tenant="acme", look_at=4)

    assert (counts.queued, counts.is_partial) == (4, True)


def test_replays_are_listed_newest_first_page_by_page_and_for_their_tenant_alone(database: Database) -> None:
    wanted = EventFilter(state=State.DEAD)
    started = []
    for number in range(3):
        with database.transaction() as session:
            begun = start_replay(session, Actor("acme", "k"), wanted, rate_per_s=1, idempotency_key=f"r{number}")
            started.append(begun.id)  # type: ignore[union-attr]

    first = database.call(list_replays, tenant="acme", limit=2)
    second = database.call(list_replays, tenant="acme", limit=2, before_id=first.next_id)

    assert [replay.id for replay in [*first.items, *second.items]] == started[::-1]
    assert database.call(list_replays, tenant="other", limit=2).items == []
