"""Retention in PostgreSQL: what goes, what never goes, and that a repetition of what is gone is still known as one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.retention import RetentionRule, days_in_force
from holdfast.domain.state import FINISHED, OPEN, State
from holdfast.domain.transitions import AttemptError, Completion, bury, discard, fail, settle
from holdfast.runtime.ids import first_uuid7, uuid7
from holdfast.storage import events, groups, retention
from holdfast.storage.audit import Actor, AuditFilter, list_audit
from holdfast.storage.claims import claim_events
from holdfast.storage.counting import count_page
from holdfast.storage.database import Database
from holdfast.storage.identities import forget_identities
from holdfast.storage.lifecycle import apply
from holdfast.storage.retention import Walk, plan_walks, put_rule, remove_rule, walk_page
from holdfast.storage.sweeps import due_sweeps

ANN = Actor("acme", "abcdefghijkl", "ann's key")
DAY = 86_400.0
ERROR = AttemptError("KeyError", "no")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=4)
    yield made
    made.close()


def new_event(days: float = 0, *, tenant: str = "acme", ce_id: str | None = None) -> NewEvent:
    moment = datetime.now(UTC) - timedelta(days=days)
    identifier = UUID(int=first_uuid7(moment).int | uuid7().int & (1 << 76) - 1)
    return NewEvent(
        id=identifier, tenant=tenant, source="/s", ce_id=ce_id or uuid4().hex, type="t", data_json='{"a":1}'
    )


def run(database: Database, statement: str, **parameters: object) -> list[tuple[object, ...]]:
    with database.transaction() as session:
        result: Any = session.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def bring(database: Database, made: list[NewEvent], state: State) -> list[UUID]:
    """Record events and lead each to a state."""
    ids = [event.id for event in made]
    database.call(events.record, made, grace_seconds=60)
    if state is State.QUEUED:
        return ids
    if state is State.DISCARDED:
        database.call(apply, [discard(each) for each in ids])
        return ids
    leased = database.call(claim_events, [(each, 1) for each in ids], owner="w", lease_seconds=3600)
    assert len(leased) == len(ids)
    ends = {
        State.PROCESSED: lambda lease: settle(lease.event.id, lease.token, Completion("h", None, 1)),
        State.DEAD: lambda lease: bury(lease.event.id, lease.token, ERROR),
        State.FAILED: lambda lease: fail(lease.event.id, lease.token, ERROR, delay_seconds=3600),
    }
    if state in ends:
        database.call(apply, [ends[state](lease) for lease, _ in leased])
    return ids


def age(database: Database, ids: list[UUID], days: float) -> None:
    """Move what was recorded now into the past."""
    for table, column in (("event", "received_at"), ("processing_state", "finished_at")):
        key = "id" if table == "event" else "event_id"
        run(
            database,
            f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s) WHERE {key} = ANY (CAST(:ids AS uuid[]))",  # noqa: S608
            s=days * DAY, ids=ids,
        )  # fmt: skip


def old(database: Database, state: State, days: float, count: int = 1, *, tenant: str = "acme") -> list[NewEvent]:
    made = [new_event(days, tenant=tenant) for _ in range(count)]
    age(database, bring(database, made, state), days)
    return made


def see_all(database: Database) -> None:
    """Every update is published and counted."""
    while database.call(count_page, limit=1000):
        pass
    run(database, "UPDATE outbox_cursor SET confirmed = CAST(pg_current_snapshot() AS text)")


def walk(
    database: Database, state: State = State.PROCESSED, *, tenant: str = "acme", default_days: int = 0,
    dedupe_days: float = 1, limit: int = 100, settle_seconds: float = 0,
) -> int:  # fmt: skip
    """Walk through all events of a state once; returns how many went."""
    total = 0
    for _ in range(1000):
        walked = database.call(
            walk_page, Walk(tenant, state), default_days=default_days, dedupe_seconds=dedupe_days * DAY, limit=limit,
            settle_seconds=settle_seconds,
        )  # fmt: skip
        total += walked.dropped
        if not walked.is_full:
            return total
    raise AssertionError("the walk has no end")


def rule(database: Database, days: int | None, state: State = State.PROCESSED, actor: Actor = ANN) -> None:
    database.call(put_rule, actor, RetentionRule(state, days))


def walk_again(database: Database) -> None:
    run(database, "UPDATE retention_walk SET next_at = now()")


def left(database: Database) -> set[UUID]:
    return {row[0] for row in run(database, "SELECT id FROM event")}  # type: ignore[misc]


def test_days_in_force_are_the_rules_and_never_of_an_open_event() -> None:
    for state in State:
        for made, default in product((None, RetentionRule(state, 3), RetentionRule(state, None)), (0, 9)):
            days = days_in_force(state, made, default_days=default)
            if state in OPEN:
                assert days is None
            elif made is not None:
                assert days == made.days
            else:
                assert days == (9 if default and state is not State.DEAD else None)


@pytest.mark.parametrize("has_dead_rule", [False, True])
def test_only_what_has_ended_for_long_enough_by_a_rule_goes(database: Database, has_dead_rule: bool) -> None:
    """All states, all ages, two tenants: exactly those go that may."""
    ages = (0.5, 6.9, 7.1, 45, 400)
    made = {
        (tenant, state, days): old(database, state, days, 2, tenant=tenant)
        for tenant, state, days in product(("acme", "other"), State, ages)
    }
    see_all(database)
    if has_dead_rule:
        rule(database, 30, State.DEAD)
    rule(database, None, State.DISCARDED)
    database.call(plan_walks, default_days=7)

    for tenant, state in product(("acme", "other"), FINISHED):
        walk(database, state, tenant=tenant, default_days=7, limit=7)

    for (tenant, state, days), each in made.items():
        goes = {
            State.PROCESSED: days > 7,
            State.DISCARDED: days > 7 and tenant == "other",
            State.DEAD: days > 30 and has_dead_rule and tenant == "acme",
        }.get(state, False)
        there = {event.id for event in each} & left(database)
        assert len(there) == (0 if goes else 2), (tenant, state, days)
    for table in ("processing_state", "event_update", "processed_event_log", "attempt_error"):
        [(orphans,)] = run(
            database, f"SELECT count(*) FROM {table} x WHERE NOT EXISTS (SELECT FROM event WHERE id = x.event_id)"  # noqa: S608
        )  # fmt: skip
        assert orphans == 0, table


def test_without_a_rule_and_a_default_nothing_goes_and_nobody_looks(database: Database) -> None:
    for state in State:
        old(database, state, 4000)
    see_all(database)
    database.call(plan_walks, default_days=0)

    assert not due_sweeps(database, after_seconds=1).retain
    assert sum(walk(database, state) for state in FINISHED) == 0
    assert len(left(database)) == len(State)


def test_a_repetition_of_an_event_that_is_gone_is_a_duplicate(database: Database) -> None:
    [gone] = old(database, State.PROCESSED, 8)
    see_all(database)
    rule(database, 7)
    assert walk(database, dedupe_days=30) == 1
    assert left(database) == set()

    repeated = replace(gone, id=uuid7())
    fresh = new_event()
    [first, second] = database.call(events.record, [repeated, fresh], grace_seconds=60)

    assert (first.is_duplicate, first.is_forgotten, first.is_new) == (True, True, False)
    assert (first.update.event_id, first.update.state, first.update.version) == (gone.id, State.PROCESSED, 3)
    assert second.is_new
    assert left(database) == {fresh.id}


def test_an_identity_is_forgotten_after_its_time_and_is_new_then(database: Database) -> None:
    [gone] = old(database, State.PROCESSED, 8)
    see_all(database)
    rule(database, 7)
    walk(database, dedupe_days=30)
    assert database.call(forget_identities, limit=10) == 0

    run(database, "UPDATE event_identity SET until = now() - interval '1 s'")
    [again] = database.call(events.record, [replace(gone, id=uuid7())], grace_seconds=60)

    assert again.is_new
    assert database.call(forget_identities, limit=10) == 1


def test_no_identity_is_kept_of_events_that_are_older_than_identities_are(database: Database) -> None:
    old(database, State.PROCESSED, 40)
    see_all(database)
    rule(database, 7)

    assert walk(database, dedupe_days=30) == 1

    assert run(database, "SELECT * FROM event_identity") == []


def test_rows_go_only_some_time_after_their_identities_were_written(database: Database) -> None:
    [event] = old(database, State.PROCESSED, 8)
    see_all(database)
    rule(database, 7)

    assert walk(database, dedupe_days=30, settle_seconds=90) == 0
    walk_again(database)
    assert walk(database, dedupe_days=30, settle_seconds=90) == 0
    [met] = database.call(events.record, [replace(event, id=uuid7(), data_json='{"a":2}')], grace_seconds=60)
    assert met.is_conflict, "while its row is there its data is compared"

    run(database, "UPDATE event_identity SET made_at = now() - interval '91 s'")
    walk_again(database)
    assert walk(database, dedupe_days=30, settle_seconds=90) == 1


def test_an_event_that_was_revived_after_its_identity_was_written_stays(database: Database) -> None:
    [event] = old(database, State.DISCARDED, 8)
    see_all(database)
    rule(database, 7, State.DISCARDED)
    assert walk(database, State.DISCARDED, dedupe_days=30, settle_seconds=90) == 0

    run(
        database,
        "UPDATE processing_state SET state = 'queued', finished_at = NULL, version = version + 1 WHERE event_id = :id",
        id=event.id,
    )
    run(database, "UPDATE event_identity SET made_at = now() - interval '91 s'")
    walk_again(database)

    assert walk(database, State.DISCARDED, dedupe_days=30, settle_seconds=90) == 0
    [met] = database.call(events.record, [replace(event, id=uuid7())], grace_seconds=60)
    assert (met.is_duplicate, met.is_forgotten, met.update.state) == (True, False, State.QUEUED)


@pytest.mark.parametrize("cursor", ["outbox", "statistics"])
def test_an_event_stays_until_its_updates_are_published_and_counted(database: Database, cursor: str) -> None:
    [(confirmed,)] = run(database, "SELECT confirmed FROM outbox_cursor")
    [(counted,)] = run(database, "SELECT counted FROM statistics_cursor")
    old(database, State.PROCESSED, 8)
    see_all(database)
    if cursor == "outbox":
        run(database, "UPDATE outbox_cursor SET confirmed = :text", text=confirmed)
    else:
        run(database, "UPDATE statistics_cursor SET counted = :text", text=counted)
    rule(database, 7)

    assert walk(database) == 0

    run(database, "UPDATE outbox_cursor SET confirmed = CAST(pg_current_snapshot() AS text)")
    run(database, "UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text)")
    walk_again(database)
    assert walk(database) == 1


def test_the_parent_of_an_open_group_stays_until_the_group_is_complete(database: Database) -> None:
    [parent] = old(database, State.PROCESSED, 8)
    member = new_event()
    group = NewGroup(id=uuid7(), tenant="acme", parent_id=parent.id, type="all.done")
    with database.transaction() as session:
        events.record(session, [replace(member, group_id=group.id)], grace_seconds=60)
        groups.record_group(session, group, [member.id])
    see_all(database)
    rule(database, 7)

    assert walk(database) == 0

    database.call(apply, [discard(member.id)])
    walk_again(database)
    assert walk(database) == 1
    [(done,)] = run(database, "SELECT count(*) FROM event WHERE type = 'all.done'")
    assert done == 1


def test_dropped_dead_letters_leave_the_count_of_dead_ones(database: Database) -> None:
    old(database, State.DEAD, 8, 3)
    old(database, State.DEAD, 1, 2)
    see_all(database)
    rule(database, 7, State.DEAD)

    assert walk(database, State.DEAD, limit=2) == 3

    assert run(database, "SELECT events FROM state_count WHERE state = 'dead'") == [(2,)]


def test_walks_at_once_drop_each_event_once(database: Database) -> None:
    made = old(database, State.PROCESSED, 8, 60)
    see_all(database)
    rule(database, 7)

    with ThreadPoolExecutor(4) as pool:
        dropped = sum(pool.map(lambda _: walk(database, dedupe_days=30, limit=7), range(4)))
    walk_again(database)
    dropped += walk(database, dedupe_days=30)

    assert dropped == 60
    assert run(database, "SELECT dropped FROM retention_walk") == [(60,)]
    assert {row[0] for row in run(database, "SELECT event_id FROM event_identity")} == {event.id for event in made}


def test_a_new_rule_counts_at_once_and_is_audited(database: Database) -> None:
    old(database, State.PROCESSED, 8)
    see_all(database)
    database.call(plan_walks, default_days=7)
    rule(database, None)
    rule(database, None)

    assert walk(database, default_days=7) == 0
    assert database.call(remove_rule, ANN, State.PROCESSED)
    assert not database.call(remove_rule, ANN, State.PROCESSED)
    assert due_sweeps(database, after_seconds=1).retain
    assert walk(database, default_days=7) == 1

    page = database.call(list_audit, AuditFilter(), tenant="acme", limit=50)
    assert [(entry.action, entry.detail) for entry in reversed(page.items)] == [
        ("set_retention", {"state": "processed", "days": None}),
        ("remove_retention", {"state": "processed", "days": None}),
    ]


def test_what_is_in_force_is_listed(database: Database) -> None:
    old(database, State.PROCESSED, 8)
    see_all(database)
    rule(database, 7)
    walk(database)

    listed = {each.state: each for each in database.call(retention.list_retention, tenant="acme")}

    assert list(listed) == [State.PROCESSED, State.DISCARDED, State.DEAD]
    processed = listed[State.PROCESSED]
    assert (processed.days, processed.dropped, processed.changed_by) == (7, 1, "abcdefghijkl")
    assert processed.rule == RetentionRule(State.PROCESSED, 7)
    assert processed.ended_at is not None
    assert (listed[State.DEAD].rule, listed[State.DEAD].days, listed[State.DEAD].dropped) == (None, None, 0)
