"""Migrations: what they make, and that any number of processes may run them at any time."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from holdfast.domain.errors import DatabaseUnavailable, SchemaOutdated
from holdfast.local.servers import Postgres
from holdfast.storage import migrate
from holdfast.storage.database import Database
from holdfast.storage.migrate import latest_revision, upgrade, upgrade_when_up
from holdfast.storage.schema import REQUIRED_REVISION, check_revision
from holdfast.storage.tables import Base

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

CATALOGUE = text("""
SELECT 'column', c.relname, a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
       || a.attidentity::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'holdfast_version'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'holdfast_version'
UNION ALL SELECT 'index', tablename, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'holdfast_version'
UNION ALL SELECT 'option', relname, array_to_string(reloptions, ',') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
UNION ALL SELECT 'statistics', stxrelid::regclass::text, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
ORDER BY 1, 2, 3
""")
"""Columns, constraints (checks included, which Alembic does not compare), indexes, storage options and statistics."""


@pytest.fixture
def migrated(empty_database_url: str) -> Iterator[Engine]:
    """A database with Holdfast's own migrations and no handler package's."""
    engine = create_engine(empty_database_url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        migrate._upgrade_source(connection, migrate.OWN)
    yield engine
    engine.dispose()


def catalogue(engine: Engine) -> list[tuple[str, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(CATALOGUE)]


def test_alembic_finds_no_difference_between_migrations_and_metadata(migrated: Engine) -> None:
    with migrated.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: (kind, name) != ("table", "holdfast_version"),
            },
        )
        differences = compare_metadata(context, Base.metadata)

    assert differences == []


def test_migrations_make_what_the_tables_say_to_the_last_constraint(migrated: Engine) -> None:
    by_migrations = catalogue(migrated)
    with migrated.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        Base.metadata.create_all(connection)

    assert by_migrations == catalogue(migrated)
    assert len(by_migrations) > 60, "the catalogue was read"


def to_revision(engine: Engine, run: Callable[[Config, str], None], revision: str) -> None:
    """Run ``alembic.command.upgrade`` or ``downgrade`` of Holdfast's own migrations."""
    with engine.begin() as connection:
        config = migrate._config(migrate.OWN)
        config.attributes |= {"connection": connection, "version_table": migrate.OWN.version_table}
        run(config, revision)


def test_a_revision_can_be_taken_back_and_applied_again(migrated: Engine) -> None:
    newest = catalogue(migrated)

    to_revision(migrated, command.downgrade, "0007")
    assert "(tenant, source, ce_id)" in str(catalogue(migrated))
    assert "ix_event_ce_id" in str(catalogue(migrated))
    to_revision(migrated, command.upgrade, "head")

    assert catalogue(migrated) == newest


def test_indexes_that_were_built_beforehand_are_taken(migrated: Engine) -> None:
    newest = catalogue(migrated)
    to_revision(migrated, command.downgrade, "0007")
    with migrated.begin() as connection:
        connection.execute(text("CREATE UNIQUE INDEX uq_event_identity_by_id ON event (tenant, ce_id, source)"))
        connection.execute(
            text(
                "CREATE INDEX ix_processing_state_suspect ON processing_state (available_at)"
                " WHERE crashes > 0 AND state IN ('queued', 'failed')"
            )
        )
        before = connection.scalar(text("SELECT 'uq_event_identity_by_id'::regclass::oid"))

    to_revision(migrated, command.upgrade, "head")

    assert catalogue(migrated) == newest
    with migrated.connect() as connection:
        assert connection.scalar(text("SELECT 'uq_event_identity'::regclass::oid")) == before


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url.replace("postgresql:", "postgresql+psycopg2:"))
    upgrade(empty_database_url)
    before = catalogue(engine)
    told: list[str] = []

    upgrade(empty_database_url, report=told.append)

    assert catalogue(engine) == before
    assert f"holdfast.storage:migrations: at {latest_revision()}" in told
    engine.dispose()


def test_processes_that_migrate_at_once_all_succeed(empty_database_url: str, run_python: RunPython) -> None:
    def run(_: int) -> "subprocess.CompletedProcess[str]":
        return run_python("-m", "holdfast.storage", "migrate", DATABASE_URL=empty_database_url)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(run, range(3)))

    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    database = Database(empty_database_url, application_name="test")
    with database.transaction() as session:
        check_revision(session)
    database.close()


def test_migrating_waits_until_the_database_answers(own_postgres: Postgres) -> None:
    own_postgres.stop()
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            own_postgres.start()

    upgrade_when_up(own_postgres.url(), within_seconds=60, report=report)

    assert told[:2] == ["the database does not answer yet; trying again"] * 2
    assert any(line.startswith("holdfast") and line.endswith(f": at {latest_revision()}") for line in told), told


def test_migrating_gives_up_after_the_time_given(closed_database_url: str, run_python: RunPython) -> None:
    with pytest.raises(DatabaseUnavailable, match="check HOLDFAST_DATABASE_URL"):
        upgrade_when_up(closed_database_url, within_seconds=0.3, report=lambda _: None)

    done = run_python("-m", "holdfast.storage", "migrate", "--wait-seconds", "0.3", DATABASE_URL=closed_database_url)

    assert done.returncode == 1
    assert "PostgreSQL is not reachable" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_a_failed_migration_leaves_the_database_as_it_was(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE processing_state ()"))
    before = catalogue(engine)

    with pytest.raises(Exception, match="already exists"):
        upgrade(empty_database_url)

    assert catalogue(engine) == before
    engine.dispose()


def test_a_service_asks_for_the_schema_it_needs(empty_database_url: str) -> None:
    database = Database(empty_database_url, application_name="test")

    with (
        database.transaction() as session,
        pytest.raises(SchemaOutdated, match=r"none .* run 'python -m holdfast\.storage"),
    ):
        check_revision(session)
    upgrade(empty_database_url)
    with database.transaction() as session:
        check_revision(session)
    with database.transaction() as session:
        session.execute(text("UPDATE holdfast_version SET version_num = '0000'"))
    with database.transaction() as session, pytest.raises(SchemaOutdated, match=REQUIRED_REVISION):
        check_revision(session)

    database.close()


def test_a_newer_schema_than_needed_is_fine(database_url: str) -> None:
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        session.execute(text("UPDATE holdfast_version SET version_num = '9999'"))

    with database.transaction() as session:
        check_revision(session)

    database.close()
