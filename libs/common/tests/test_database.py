"""Connections: what an outage looks like, what errors tell, and what a session on the server is set to."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.local.servers import Postgres
from holdfast.storage.database import Database
from holdfast.storage.lending import lend

MakeDatabase = Callable[..., Database]


@pytest.fixture
def make_database() -> Iterator[MakeDatabase]:
    made: list[Database] = []

    def make(url: str, **options: Any) -> Database:
        made.append(Database(url, application_name="test", **options))
        return made[-1]

    yield make
    for database in made:
        database.close()


def test_a_database_that_is_down_is_unavailable(make_database: MakeDatabase, closed_database_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"Connection refused.*check HOLDFAST_DATABASE_URL"):
        make_database(closed_database_url).ping()


def test_a_database_that_went_away_is_unavailable_and_works_again_when_it_is_back(
    make_database: MakeDatabase, own_postgres: Postgres
) -> None:
    database = make_database(own_postgres.url())
    database.ping()
    own_postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        database.ping()

    own_postgres.start()

    database.ping()


def test_a_connection_that_dies_within_a_transaction_is_unavailable(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    database = make_database(postgres.url())

    with pytest.raises(DatabaseUnavailable), database.transaction() as session:  # noqa: PT012
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        session.execute(text("SELECT 1"))

    database.ping()


@pytest.mark.parametrize("state", ["25006", "53100", "53300", "57P03"])
def test_a_server_that_takes_no_writes_is_unavailable(
    make_database: MakeDatabase, postgres: Postgres, state: str
) -> None:
    database = make_database(postgres.url())
    refuse = text(f"DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(DatabaseUnavailable), database.transaction() as session:
        session.execute(refuse)


def test_no_free_connection_is_unavailable_with_the_remedy(make_database: MakeDatabase, postgres: Postgres) -> None:
    database = make_database(postgres.url(), pool_size=1, connect_timeout_seconds=1)

    with database.transaction() as first, database.transaction() as second:
        first.execute(text("SELECT 1"))
        second.execute(text("SELECT 1"))
        with pytest.raises(DatabaseUnavailable, match="raise the pool size"):
            database.ping()


def test_a_wrong_statement_is_an_error_and_not_an_outage(make_database: MakeDatabase, postgres: Postgres) -> None:
    with pytest.raises(DBAPIError, match="does not exist"), make_database(postgres.url()).transaction() as session:
        session.execute(text("SELECT * FROM nowhere"))


KEY = text("INSERT INTO api_key (id, tenant, name, scopes, secret_hash) VALUES (:v, 't', 'n', '{}', '')")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (KEY, 'duplicate key value violates unique constraint "pk_api_key"'),
        (text("INSERT INTO api_key (id, tenant) VALUES (:v, 't')"), 'null value in column "name"'),
        (text("SELECT CAST(:v AS int)"), "data exception 22P02"),
        (text("SELECT CAST('{\"a\": \"' || :v || '\\u0000\"}' AS jsonb)"), "data exception 22P05"),
        (text("SELECT :v, nowhere"), 'column "nowhere" does not exist'),
    ],
)
def test_an_error_says_what_is_wrong_and_no_value(
    make_database: MakeDatabase, database_url: str, statement: Any, told: str
) -> None:
    database, secret = make_database(database_url), uuid4().hex
    with database.transaction() as session:
        session.execute(KEY, {"v": secret})

    with pytest.raises(DBAPIError) as caught, database.transaction() as session:
        session.execute(statement, {"v": secret})

    logged = "".join(traceback.format_exception(caught.value))
    assert told in logged
    assert secret not in logged


def test_a_block_that_raises_is_rolled_back(make_database: MakeDatabase, database_url: str) -> None:
    database = make_database(database_url)

    with pytest.raises(ZeroDivisionError), database.transaction() as session:  # noqa: PT012
        session.execute(text("INSERT INTO api_key VALUES ('k', 't', 'n', '{}', '', now(), NULL)"))
        raise ZeroDivisionError

    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM api_key")) == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("transaction_isolation", "read committed"), ("lock_timeout", "0"), ("TimeZone", "UTC"),
        ("statement_timeout", "7s"), ("idle_in_transaction_session_timeout", "9s"),
        ("synchronous_commit", "off"), ("application_name", "test"), ("client_connection_check_interval", "2s"),
    ],
)  # fmt: skip
def test_a_session_on_the_server_is_set_up(
    make_database: MakeDatabase, postgres: Postgres, setting: str, value: str
) -> None:
    database = make_database(
        postgres.url(), is_durable=False, statement_timeout_seconds=7, idle_in_transaction_seconds=9
    )

    with database.transaction() as session:
        assert session.scalar(text(f"SHOW {setting}")) == value


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_a_statement_that_a_vanished_server_never_got_is_given_up(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    with make_database(postgres.url()).engine.connect() as connection:
        opened: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=os.dup(opened.fileno())) as wire:
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000


def test_commits_are_durable_unless_said_otherwise(make_database: MakeDatabase, postgres: Postgres) -> None:
    with make_database(postgres.url()).transaction() as session:
        assert session.scalar(text("SHOW synchronous_commit")) == "on"


def test_a_statement_that_takes_too_long_is_cancelled(make_database: MakeDatabase, postgres: Postgres) -> None:
    database = make_database(postgres.url(), statement_timeout_seconds=0.05)

    with pytest.raises(StatementTooSlow), database.transaction() as session:
        session.execute(text("SELECT pg_sleep(10)"))


def test_a_session_keeps_nothing_of_a_transaction(make_database: MakeDatabase, postgres: Postgres) -> None:
    """Behind a pooler in transaction mode the next transaction in this session is somebody else's."""
    database = make_database(postgres.url(), is_durable=False, pool_size=1)
    with database.transaction() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))

    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:
        names = ("statement_timeout", "synchronous_commit", "client_connection_check_interval", "lock_timeout")
        shown = {name: plain.scalar(text(f"SHOW {name}")) for name in names}
        is_same = plain.scalar(text("SELECT pg_backend_pid()")) == pid

    assert is_same
    assert shown == {
        "statement_timeout": "0", "synchronous_commit": "on", "client_connection_check_interval": "0", "lock_timeout": "0",
    }  # fmt: skip


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_isolation_is_ours_whatever_the_databases_default_is(
    make_database: MakeDatabase, postgres: Postgres, isolation: str
) -> None:
    name = f"odd_{uuid4().hex}"
    postgres.execute(f'CREATE DATABASE "{name}"')
    postgres.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{isolation}'")

    with make_database(postgres.url(name)).transaction() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_times_are_read_whatever_the_databases_styles_are_also_after_a_handler(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    """A used session is discarded, and with it what psycopg2 sets when it connects."""
    name = f"odd_{uuid4().hex}"
    postgres.execute(f'CREATE DATABASE "{name}"')
    postgres.execute(f"ALTER DATABASE \"{name}\" SET DateStyle = 'SQL, DMY'")
    postgres.execute(f'ALTER DATABASE "{name}" SET IntervalStyle = sql_standard')
    database = make_database(postgres.url(name), pool_size=1)
    read = text("SELECT timestamptz '2026-11-28 07:00:00.5+02', interval '1 day 02:00:03.25', pg_backend_pid()")

    with database.transaction() as session:
        lend(session, "0")
        first = session.execute(read).one()
    with database.transaction() as session:
        again = session.execute(read).one()

    moment = datetime(2026, 11, 28, 5, 0, 0, 500_000, tzinfo=UTC)
    assert tuple(first) == (moment, timedelta(days=1, hours=2, seconds=3.25), again[2])
    assert again == first


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_transaction_that_another_one_rolled_back_may_be_tried_again(
    make_database: MakeDatabase, postgres: Postgres, state: str
) -> None:
    database = make_database(postgres.url())
    refuse = text(f"DO $$ BEGIN RAISE EXCEPTION 'after you' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(TransactionConflict), database.transaction() as session:
        session.execute(refuse)


def test_a_commit_that_the_server_answers_with_a_rollback_is_an_error(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    database = make_database(postgres.url())

    with pytest.raises(DBAPIError, match="was rolled back"), database.transaction() as session:  # noqa: PT012
        cursor = session.connection().connection.cursor()
        with contextlib.suppress(psycopg2.Error):
            cursor.execute("SELECT 1/0")


def test_rows_may_be_streamed(make_database: MakeDatabase, postgres: Postgres) -> None:
    with make_database(postgres.url()).transaction() as session:
        rows = session.execute(
            text("SELECT generate_series(1, 1000)").execution_options(stream_results=True, yield_per=100)
        )

        assert sum(rows.scalars()) == 500_500


def test_a_look_has_its_settings_and_leaves_the_connection_to_transactions(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    database = make_database(postgres.url(), pool_size=1, statement_timeout_seconds=7)

    assert database.look("SELECT current_setting('statement_timeout'), %(a)s + 1", a=1) == ("7s", 2)

    with pytest.raises(ZeroDivisionError), database.transaction() as session:  # noqa: PT012
        session.execute(text("CREATE TABLE looked (a int)"))
        raise ZeroDivisionError
    assert database.look("SELECT to_regclass('looked'), pg_current_xact_id_if_assigned()") == (None, None)


def test_a_look_that_takes_too_long_is_cancelled(make_database: MakeDatabase, postgres: Postgres) -> None:
    database = make_database(postgres.url(), pool_size=1, statement_timeout_seconds=0.1)

    with pytest.raises(StatementTooSlow):
        database.look("SELECT pg_sleep(20)")

    assert database.look("SELECT 1") == (1,)


def test_a_look_at_a_database_that_went_away_is_unavailable_and_works_again_when_it_is_back(
    make_database: MakeDatabase, own_postgres: Postgres
) -> None:
    database = make_database(own_postgres.url())
    database.look("SELECT 1")
    own_postgres.stop()
    for _ in range(2):  # over the old connection, and over a new one
        with pytest.raises(DatabaseUnavailable):
            database.look("SELECT 1")

    own_postgres.start()

    assert database.look("SELECT 1") == (1,)
