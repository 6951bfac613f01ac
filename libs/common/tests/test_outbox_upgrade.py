"""From a mark on every update to the outbox's cursor, with transactions of the release before under way."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Connection, text

from holdfast.storage import migrate, outbox
from holdfast.storage.database import Database
from holdfast.storage.updates import UpdateKey

BEFORE, AFTER = "0007", "0009"

EVENT = text(
    "INSERT INTO event (id, tenant, source, ce_id, type, data_digest) VALUES (:id, 't', '/s', :name, 'x', sha256(''))"
)

OLD_INSERT = text(
    "INSERT INTO event_update (event_id, version, state, attempt, at) VALUES (:id, :version, 'queued', 0, now())"
)

OLD_MARK = text("UPDATE event_update SET published_at = now() WHERE event_id = :id AND version = :version")

IDS = [UUID(int=number) for number in range(4)]


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url, application_name="test", pool_size=10)
    to(database, BEFORE)
    with database.transaction() as session:
        for event_id in IDS:
            session.execute(EVENT, {"id": event_id, "name": str(event_id)})
    yield database
    database.close()


def to(database: Database, revision: str) -> None:
    config = migrate._config(migrate.OWN)
    config.attributes["version_table"] = migrate.OWN.version_table
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if revision == BEFORE and _is_migrated(connection) else command.upgrade)(config, revision)


def _is_migrated(connection: Connection) -> bool:
    return connection.scalar(text("SELECT to_regclass('outbox_cursor') IS NOT NULL")) is True


def old_update(database: Database, event_id: UUID, version: int = 1, *, is_marked: bool) -> None:
    with database.transaction() as session:
        session.execute(OLD_INSERT, {"id": event_id, "version": version})
        if is_marked:
            session.execute(OLD_MARK, {"id": event_id, "version": version})


def drain(database: Database) -> set[UpdateKey]:
    seen: set[UpdateKey] = set()
    while (page := database.call(outbox.next_page, after_seconds=0, limit=100)) is not None:
        seen.update(page.keys)
        database.call(outbox.confirm, page)
    return seen


def test_what_nobody_had_published_is_in_the_first_window_and_the_rest_is_history(database: Database) -> None:
    old_update(database, IDS[0], is_marked=True)
    old_update(database, IDS[1], is_marked=False)

    to(database, AFTER)

    assert drain(database) == {(IDS[1], 1)}


def test_a_transaction_that_began_before_the_migration_and_writes_after_it_is_not_missed(database: Database) -> None:
    handler = database.engine.connect()
    handler.execute(text("SELECT pg_current_xact_id()"))
    old_update(database, IDS[0], is_marked=True)  # by a transaction with a higher id, which ends before

    to(database, AFTER)
    old_update(database, IDS[1], is_marked=True)
    assert drain(database) == {(IDS[1], 1)}
    handler.execute(OLD_INSERT, {"id": IDS[2], "version": 1})
    handler.commit()
    handler.close()

    assert drain(database) == {(IDS[2], 1)}


def test_the_migration_can_be_taken_back_and_made_again(database: Database) -> None:
    old_update(database, IDS[0], is_marked=True)
    to(database, AFTER)
    drain(database)
    old_update(database, IDS[1], is_marked=True)  # as this release writes them

    to(database, BEFORE)
    old_update(database, IDS[2], is_marked=False)
    to(database, AFTER)

    assert drain(database) == {(IDS[1], 1), (IDS[2], 1)}
