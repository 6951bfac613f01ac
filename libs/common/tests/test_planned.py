"""Hot statements run as functions of the database where it has them, and as they are where it has not."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from holdfast.domain.errors import AlreadyProcessed
from holdfast.domain.event import Doorbell, Lease, NewEvent
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.held import own_transaction
from holdfast.storage.lending import lend
from holdfast.storage.migrate import upgrade

FUNCTIONS = {each.function for each in (*events.PLANNED, *claims.PLANNED, *lifecycle.PLANNED)}

SCANNED = (
    "SELECT sum(seq_scan) FROM pg_stat_user_tables"
    " WHERE relname IN ('event', 'processing_state', 'processed_event_log', 'event_update')"
)


def new_event() -> NewEvent:
    identifier = uuid7()
    return NewEvent(
        id=identifier, tenant="acme", source="/s", ce_id=str(identifier), type="t", subject="7", audience="a",
        data_json='{"a":1}',
    )  # fmt: skip


def take_all_the_way(database: Database, count: int = 1) -> list[Lease]:
    recorded = database.call(events.record, [new_event() for _ in range(count)], grace_seconds=60)
    doorbells = [Doorbell(each.update.event_id, each.update.version) for each in recorded]
    leased = database.call(claims.claim_events, doorbells, owner="test", lease_seconds=60)
    with database.transaction() as session:
        held = lifecycle.hold_all(session, [lease for lease, _ in leased])
        assert len(held.event_ids) == count
        done = [settle(lease.event.id, lease.token, Completion("h", {"ok": True}, 1)) for lease, _ in leased]
        assert len(lifecycle.apply(session, done)) == count
    return [lease for lease, _ in leased]


@contextmanager
def said(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    upgrade(empty_database_url)
    made = Database(empty_database_url, application_name="test", pool_size=1)
    yield made
    made.close()


def functions(database: Database) -> set[str]:
    with database.transaction() as session:
        return set(session.scalars(text("SELECT proname FROM pg_proc WHERE proname LIKE 'holdfast%'")))


def test_migrating_makes_a_function_of_each_hot_statement_and_everything_hot_is_one(database: Database) -> None:
    assert functions(database) == FUNCTIONS

    with said(database) as statements:
        take_all_the_way(database)

    called = {name for name in FUNCTIONS for statement in statements if f"FROM {name}(" in statement}
    assert called == FUNCTIONS
    sent = [each for each in statements if "handler_route" not in each]
    assert len(sent) == len(FUNCTIONS), "and nothing else was sent, but for what is read every few seconds"


def test_without_functions_the_same_statements_do_the_same(database: Database, empty_database_url: str) -> None:
    [planned] = take_all_the_way(database)
    with database.transaction() as session:
        for signature in session.scalars(
            text("SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ '^holdfast_'")
        ):
            session.execute(text(f"DROP FUNCTION {signature}"))
        session.execute(
            text("CREATE FUNCTION holdfast_apply_of_another_release() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        )

    bare = Database(empty_database_url, application_name="test", pool_size=1)
    [plain] = take_all_the_way(bare)
    bare.close()

    assert (plain.event.content, plain.event.received_at.tzinfo) == (
        planned.event.content,
        planned.event.received_at.tzinfo,
    )
    with database.transaction() as session:
        rows = session.execute(text("SELECT event_id, state, version FROM processing_state")).all()
    assert {(row.event_id, row.state, row.version) for row in rows} == {
        (lease.event.id, "processed", 3) for lease in (plain, planned)
    }


def test_a_plan_made_for_empty_tables_reads_no_large_one(database: Database, postgres: Postgres) -> None:
    take_all_the_way(database)
    postgres.execute(
        "VACUUM ANALYZE", database=str(database.engine.url.database)
    )  # so the planner knows how small they are
    for _ in range(10):  # plans are kept from the sixth call on
        take_all_the_way(database)
    for _ in range(10):
        database.call(events.record, [new_event() for _ in range(500)], grace_seconds=60)
    before = _scanned(database, postgres)

    for _ in range(20):
        take_all_the_way(database)

    assert _scanned(database, postgres) == before


def _scanned(database: Database, postgres: Postgres) -> int:
    """Sequential scans of the hot tables so far."""
    with database.transaction() as session:
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    return int(postgres.execute(SCANNED, database=str(database.engine.url.database)))


class Broke(Exception):
    pass


def test_a_function_refuses_what_the_statement_refuses(database: Database) -> None:
    [lease] = take_all_the_way(database)
    again = (
        "UPDATE processing_state SET state = 'processing', lease_token = :token, lease_owner = 'x', finished_at = NULL"
    )
    with database.transaction() as session:
        session.execute(text(f"{again}, lease_expires_at = now() + interval '1 h'"), {"token": lease.token})

    with pytest.raises(AlreadyProcessed) as caught, database.transaction() as session:
        lifecycle.apply(session, [settle(lease.event.id, lease.token, Completion("h", None, 1))])

    assert isinstance(caught.value.__cause__, IntegrityError)


@pytest.mark.parametrize("when", ["with the commit", "after the commit", "after a commit that failed", "rolled back"])
def test_a_lent_connection_comes_back_without_what_its_handler_left(database: Database, when: str) -> None:
    left = (
        "SET statement_timeout = 4711", "SET search_path = pg_catalog, public", "CREATE TEMP TABLE mine (id int)",
        "PREPARE mine AS SELECT 1", "LISTEN mine", "SELECT pg_advisory_lock(7)", "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    )  # fmt: skip
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS late (id int, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)"))
    with suppress(IntegrityError, Broke), database.transaction() as session:
        backend = session.scalar(text("SELECT pg_backend_pid()"))
        lent = lend(session, own_transaction(session))
        for statement in left:
            session.execute(text(statement))
        if when != "after the commit":
            lent.renew_at_commit()
        if when == "after a commit that failed":
            session.execute(text("INSERT INTO late VALUES (1), (1)"))
        if when == "rolled back":
            raise Broke

    with database.transaction() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == backend, "the same session on the server"
        found = session.execute(
            text(
                "SELECT current_setting('search_path'), to_regclass('pg_temp.mine'),"
                " (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name = 'mine'),"
                " (SELECT count(*) FROM pg_listening_channels()),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            )
        ).one()
    assert tuple(found) == ('"$user", public', None, 0, 0, 0, 0)
