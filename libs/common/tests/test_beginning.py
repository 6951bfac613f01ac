"""Transactions whose begin travels with their first statement."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS
from psycopg2.extras import RealDictCursor, execute_batch, execute_values
from sqlalchemy import text

from holdfast.storage.connection import Connection, TransactionRolledBack
from holdfast.storage.database import Database

ROW = "INSERT INTO written VALUES (1)"


@pytest.fixture
def opened(database_url: str) -> Iterator[Connection]:
    """A driver's connection, with a table to write into."""
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        session.execute(text("DROP TABLE IF EXISTS written; CREATE TABLE written (id int)"))
    raw = database.engine.raw_connection()
    opened = raw.driver_connection
    assert isinstance(opened, Connection)
    yield opened
    opened.rollback()
    raw.close()
    database.close()


def written(opened: Connection) -> int:
    """Rows that are committed."""
    with opened.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM written")
        return int(cursor.fetchone()[0])


def _composed(opened: Connection) -> None:
    opened.cursor().execute(sql.SQL("INSERT INTO {} VALUES (1)").format(sql.Identifier("written")))


def _named(opened: Connection) -> None:
    with opened.cursor("mine") as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]
    opened.cursor().execute(ROW)


def _dicts(opened: Connection) -> None:
    cursor = opened.cursor(cursor_factory=RealDictCursor)
    cursor.execute("INSERT INTO written VALUES (1) RETURNING id")
    assert cursor.fetchall() == [{"id": 1}]


def _called(opened: Connection) -> None:
    opened.cursor().callproc("pg_backend_pid")
    opened.cursor().execute(ROW)


WAYS: dict[str, Callable[[Connection], Any]] = {
    "text": lambda opened: opened.cursor().execute(ROW),
    "parameters": lambda opened: opened.cursor().execute("INSERT INTO written VALUES (%s)", (1,)),
    "bytes": lambda opened: opened.cursor().execute(ROW.encode()),
    "composed": _composed,
    "many": lambda opened: opened.cursor().executemany("INSERT INTO written VALUES (%s)", [(1,), (2,)]),
    "batch": lambda opened: execute_batch(opened.cursor(), "INSERT INTO written VALUES (%s)", [(1,), (2,)]),
    "values": lambda opened: execute_values(opened.cursor(), "INSERT INTO written VALUES %s", [(1,), (2,)]),
    "copy": lambda opened: opened.cursor().copy_expert("COPY written FROM STDIN", io.StringIO("1\n")),
    "named": _named,
    "dicts": _dicts,
    "called": _called,
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_sent_first_is_in_the_transaction(opened: Connection, way: str) -> None:
    opened.begin()
    WAYS[way](opened)
    assert opened.info.transaction_status == TRANSACTION_STATUS_INTRANS
    with opened.cursor() as cursor:
        cursor.execute("SELECT current_setting('timezone'), current_setting('transaction_isolation')")
        assert cursor.fetchone() == ("UTC", "read committed")

    opened.rollback()

    assert written(opened) == 0


def test_a_transaction_without_a_statement_costs_the_server_nothing(opened: Connection) -> None:
    opened.begin()
    assert opened.info.transaction_status == TRANSACTION_STATUS_IDLE
    opened.commit()

    opened.cursor().execute(ROW)

    assert opened.info.transaction_status == TRANSACTION_STATUS_IDLE, "the begin has gone with its transaction"
    assert written(opened) == 1


def test_a_statement_that_cannot_be_parsed_leaves_the_transaction_to_the_next_one(opened: Connection) -> None:
    opened.begin()
    with pytest.raises(psycopg2.errors.SyntaxError):
        opened.cursor().execute("SELEC 1")

    opened.cursor().execute(ROW)
    opened.rollback()

    assert written(opened) == 0


def test_a_statement_that_fails_first_spoils_the_transaction(opened: Connection) -> None:
    opened.begin()
    with pytest.raises(psycopg2.errors.DivisionByZero):
        opened.cursor().execute("SELECT 1 / 0")

    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        opened.cursor().execute(ROW)
    with pytest.raises(TransactionRolledBack):
        opened.commit()


@pytest.mark.parametrize("is_spoilt", [False, True])
def test_what_follows_a_commit_says_nothing_of_it(opened: Connection, is_spoilt: bool) -> None:
    """psycopg2 tells of the last statement alone; that the server rolled back instead must be noticed all the same."""
    opened.begin()
    opened.cursor().execute(ROW)
    opened.after_commit = "RESET ALL; SELECT 1"
    if is_spoilt:
        with pytest.raises(psycopg2.errors.DivisionByZero):
            opened.cursor().execute("SELECT 1 / 0")
        with pytest.raises(TransactionRolledBack):
            opened.commit()
    else:
        opened.commit()

    assert (written(opened), bool(opened.after_commit)) == ((0, True) if is_spoilt else (1, False))
