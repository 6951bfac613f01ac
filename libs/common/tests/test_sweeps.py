"""Looks for work say what the sweeps would find, and cost one round trip."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.event import NewEvent
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lanes, leases, outbox, served, sweeps
from holdfast.storage.database import Database
from holdfast.storage.sweeps import Due, due_sweeps, is_any_claimable, look_after

NOTHING = Due(recover=False, redispatch=False, relay=False, replay=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=2)
    yield made
    made.close()


@pytest.fixture
def quiet(database: Database) -> Database:
    """With an event that is done with as far as sweeps go: not due, its update published."""
    record(database)
    run(
        database,
        "UPDATE outbox_cursor SET until_at = now(), confirmed = pg_current_snapshot()::text,"
        " until = pg_current_snapshot()::text",
    )
    run(database, "UPDATE statistics_cursor SET counted_at = now()")
    assert due(database) == NOTHING
    return database


def record(database: Database, **attributes: Any) -> UUID:
    event = NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x", **attributes)
    database.call(events.record, [event], grace_seconds=3600)
    return event.id


def run(database: Database, statement: str, **parameters: Any) -> None:
    with database.transaction() as session:
        session.execute(text(statement), parameters)


def due(database: Database) -> Due:
    return due_sweeps(database, after_seconds=60, count_after_seconds=60)


def claim(database: Database, event_id: UUID) -> None:
    assert database.call(claims.claim_events, [(event_id, 1)], owner="w", lease_seconds=300)


def test_nothing_is_due_in_an_empty_database(database: Database) -> None:
    assert due(database) == NOTHING
    assert not look_after(database, node_id="n", expired_for_seconds=0).is_any_lost
    assert not any(is_any_claimable(database, is_suspect=each, overdue_seconds=0) for each in (False, True))
    assert sweeps.newest_revocation(database) == 0


def test_an_expired_lease_is_seen_by_recovery_alone_and_by_processors_when_maintenance_is_late(quiet: Database) -> None:
    claim(quiet, record(quiet))
    assert not due(quiet).recover

    run(quiet, "UPDATE processing_state SET lease_expires_at = now() - interval '2 s' WHERE lease_token IS NOT NULL")

    assert due(quiet) == Due(recover=True, redispatch=False, relay=False, replay=False)
    assert look_after(quiet, node_id="n", expired_for_seconds=1).is_any_lost
    assert not look_after(quiet, node_id="n", expired_for_seconds=3).is_any_lost
    assert quiet.call(leases.recover_expired, limit=10)
    assert not due(quiet).recover


def test_an_event_whose_doorbell_seems_lost_is_seen_by_redispatch(quiet: Database) -> None:
    run(quiet, "UPDATE processing_state SET next_dispatch_at = now()")

    assert due(quiet) == Due(recover=False, redispatch=True, relay=False, replay=False)


def test_an_event_that_waits_for_its_turn_is_seen_by_redispatch_and_by_processors(quiet: Database) -> None:
    quiet.call(served.declare_ordered, ["x"])
    first, second = record(quiet, subject="s"), record(quiet, subject="s")
    claim(quiet, first)
    assert not due(quiet).redispatch

    assert quiet.call(lanes.wait_for_turn, [second])

    assert due(quiet).redispatch
    assert look_after(quiet, node_id="n", expired_for_seconds=0).is_any_lost


def test_an_update_is_seen_by_the_relay_once_it_is_old_enough(quiet: Database) -> None:
    record(quiet)
    run(quiet, "UPDATE outbox_cursor SET until = pg_current_snapshot()::text, until_at = now()")
    assert not due(quiet).relay

    run(quiet, "UPDATE outbox_cursor SET until_at = now() - interval '61 s'")

    assert due(quiet) == Due(recover=False, redispatch=False, relay=True, replay=False)
    assert quiet.call(outbox.next_page, after_seconds=60, limit=10)


def test_a_restored_outbox_is_seen_by_the_relay_which_starts_it_over(quiet: Database) -> None:
    run(quiet, "UPDATE outbox_cursor SET confirmed = '99999999:99999999:', until_at = now()")

    assert due(quiet).relay
    assert quiet.call(outbox.next_page, after_seconds=60, limit=10) is None
    assert not due(quiet).relay


@pytest.mark.parametrize(
    ("state", "next_in", "is_due"),
    [("running", -1, True), ("running", 60, False), ("discarding", -1, True), ("done", -1, False)],
)
def test_a_replay_or_a_discard_is_seen_while_it_runs_and_its_rate_allows_an_event(
    quiet: Database, state: str, next_in: int, is_due: bool
) -> None:
    run(
        quiet,
        "INSERT INTO replay_job (id, tenant, filter, rate_per_s, total, state, next_at, created_by, idempotency_key,"
        " finished_at, action) VALUES (:id, 't', '{}', 1, 1, :state, now() + make_interval(secs => :seconds), 'k', 'k',"
        " CASE WHEN :state = 'done' THEN now() END, CASE WHEN :state = 'discarding' THEN 'discard' ELSE 'replay' END)",
        id=uuid7(), state=state, seconds=next_in,
    )  # fmt: skip

    assert due(quiet) == Due(recover=False, redispatch=False, relay=False, replay=is_due)


@pytest.mark.parametrize("is_suspect", [False, True])
def test_a_due_event_is_seen_by_the_processors_that_would_claim_it(quiet: Database, is_suspect: bool) -> None:
    run(
        quiet, "UPDATE processing_state SET available_at = now() - interval '2 s', crashes = :crashes",
        crashes=int(is_suspect),
    )  # fmt: skip

    assert is_any_claimable(quiet, is_suspect=is_suspect, overdue_seconds=1)
    assert not is_any_claimable(quiet, is_suspect=is_suspect, overdue_seconds=3)
    assert not is_any_claimable(quiet, is_suspect=not is_suspect, overdue_seconds=1)


def test_an_event_that_waits_for_a_handler_is_seen_by_every_processor(quiet: Database) -> None:
    event_id = record(quiet)
    quiet.call(served.wait_for_handler, [event_id], look_again_seconds=3600)

    assert is_any_claimable(quiet, is_suspect=False, overdue_seconds=3600)
    assert look_after(quiet, node_id="n", expired_for_seconds=0).is_any_lost
