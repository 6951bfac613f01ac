"""Events that wait for their turn cost nobody anything, and lanes are told apart by value."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import Lease, NewEvent
from holdfast.domain.transitions import AttemptError, Completion, fail, settle
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, backlog, candidates, claims, dispatch, events, lanes, lifecycle, served
from holdfast.storage.database import Database

WAITING = 10_000


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=4)
    with made.transaction() as session:
        served.declare_ordered(session, ["order.placed"])
    yield made
    made.close()


def record(session: Session, count: int = 1, *, type_: str = "order.placed", **attributes: Any) -> list[UUID]:
    values: dict[str, Any] = {"tenant": "t", "source": "/s", "subject": "s"} | attributes
    made = [NewEvent(id=uuid7(), ce_id=uuid4().hex, type=type_, **values) for _ in range(count)]
    events.record(session, made, grace_seconds=0)
    return [each.id for each in made]


def claim_due(session: Session, limit: int = 10) -> list[Lease]:
    return [lease for lease, _ in claims.claim_due(session, owner="w", lease_seconds=30, limit=limit)]


def rows_read(session: Session, sql: Any, **parameters: Any) -> float:
    """How many rows a statement's plan touched, those that a filter removed included."""
    plan = session.execute(text("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.text), parameters).scalar_one()

    def read(node: dict[str, Any]) -> float:
        own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        return float(own * node["Actual Loops"] + sum(read(each) for each in node.get("Plans", [])))

    return read(plan[0]["Plan"])


def test_ten_thousand_events_behind_one_that_waits_for_an_hour_are_not_read_again(database: Database) -> None:
    with database.transaction() as session:
        [first] = record(session)
        [lease] = claim_due(session)
        lifecycle.apply(session, [fail(first, lease.token, AttemptError("E", "no"), delay_seconds=3600)])
    with database.transaction() as session:
        record(session, WAITING)
    # Each search meets some of them once; then they have stepped aside.
    for _ in range(WAITING // claims.MAX_WIDTH):
        with database.transaction() as session:
            assert claim_due(session) == []
    with database.transaction() as session:
        other = record(session, subject=None)
        session.execute(text("ANALYZE processing_state"))

    with database.transaction() as session:
        kinds = json.dumps([each._asdict() for each in candidates.kinds_of(session, [""])])
        due = {"kinds": kinds, "overdue_seconds": 0, "limit": 10}
        assert rows_read(session, candidates._DUE, **due) < 100
        assert rows_read(session, dispatch._REDISPATCH, limit=500) < 100
        assert rows_read(session, backlog._OLDEST_DUE, with_suspects=True) < 100
        assert rows_read(session, lanes._PROMOTE_FORGOTTEN, start=UUID(int=0), limit=500) < 100
        assert rows_read(session, served._UNSERVED_TYPES, limit=1000) < 100
        session.rollback()
    with database.transaction() as session:
        assert [lease.event.id for lease in claim_due(session)] == other


def test_a_lane_whose_worker_died_after_its_commit_goes_on(database: Database) -> None:
    with database.transaction() as session:
        first, second = record(session, 2)
    with database.transaction() as session:
        [lease] = claim_due(session)
        claim_due(session)  # the second one steps aside
        lifecycle.apply(session, [settle(lease.event.id, lease.token, Completion("h", None, 1))])
    with database.transaction() as session:
        assert claim_due(session) == []

    with database.transaction() as session:
        assert lanes.promote_forgotten(session, limit=10) == 1

    with database.transaction() as session:
        assert {first, second} == {lease.event.id, *(each.event.id for each in claim_due(session))}


def test_subjects_that_share_the_old_hash_do_not_wait_for_each_other(database: Database) -> None:
    with database.transaction() as session:
        record(session, subject="mine")
        record(session, tenant="another", subject="theirs")
        session.execute(text("UPDATE processing_state SET lane = 42"))

    with database.transaction() as session:
        assert {lease.event.subject for lease in claim_due(session)} == {"mine", "theirs"}


def test_parts_of_a_lane_cannot_be_shifted_into_each_other(database: Database) -> None:
    with database.transaction() as session:
        record(session, tenant="a", source="b\x1fc", subject="d")
        record(session, tenant="a", source="b", subject="c\x1fd")
        assert session.scalar(text("SELECT count(DISTINCT lane_key) FROM processing_state")) == 2


def test_events_recorded_before_their_type_was_ordered_are_put_in_line_together(database: Database) -> None:
    with database.transaction() as session:
        earlier, later = (record(session, type_="late.ordered")[0] for _ in range(2))
        record(session, type_="late.plain")

    with database.transaction() as session:
        assert lanes.assign(session, later, lambda type_: type_ == "late.ordered") == ["late.ordered"]

    with database.transaction() as session:
        types = {lease.event.id: lease.event.type for lease in claim_due(session)}
    assert later not in types
    assert (types[earlier], len(types)) == ("late.ordered", 2)


def test_a_processor_that_no_longer_orders_a_type_lets_its_events_go(database: Database) -> None:
    with database.transaction() as session:
        record(session, 3)
    with database.transaction() as session:
        assert len(claim_due(session)) == 1
        assert claim_due(session) == []

    with database.transaction() as session:
        served.reconcile(session, [], lambda type_: False if type_ == "order.placed" else None)

    with database.transaction() as session:
        assert len(claim_due(session)) == 2
        assert served.unserved_types(session) == []
