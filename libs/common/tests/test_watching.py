"""Statements as they are told: what they were, without the values that were written into them."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from holdfast.storage.database import Database
from holdfast.storage.watching import MAX_TEXT, Statement, operation_of, watching, without_values


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("SELECT a1, %(b_1)s::int4 WHERE c = 'secret' AND d > 4.2e3", "SELECT a1, %(b_1)s::int4 WHERE c = ? AND d > ?"),
        ("SELECT 'it''s secret', 'secret'", "SELECT ?, ?"),
        (r"SELECT E'a\'secret', 'secret'", "SELECT ?, ?"),
        (r"SELECT date'2026\', 'secret'", "SELECT date?, ?"),
        ("SELECT $$secret$$, $tag$secret $$ secret$tag$, $1", "SELECT ?, ?, $1"),
        ('SELECT "it\'s" FROM "a""b" WHERE c=\'secret\'', 'SELECT "it\'s" FROM "a""b" WHERE c=?'),
        ("SELECT 1 -- secret\n + 2 /* secret */ + 3", "SELECT ?  \n + ?   + ?"),
        ("SELECT 'secret", "SELECT ?"),
        ("SELECT $a$secret", "SELECT ?"),
        ("SELECT /* secret", "SELECT"),
        ("SELECT x'5ec4e7', U&'secret', B'01'", "SELECT ?, ?, ?"),
        ("SAVEPOINT sa_savepoint_1", "SAVEPOINT sa_savepoint_1"),
    ],
)
def test_a_statement_is_told_without_the_values_that_were_written_into_it(written: str, told: str) -> None:
    assert without_values(written) == told


@pytest.mark.parametrize(
    ("written", "operation"),
    [("select 1", "SELECT"), (" (WITH a AS (SELECT 1) SELECT 2)", "WITH"), ("?", None), ("", None)],
)
def test_the_operation_is_the_first_word(written: str, operation: str | None) -> None:
    assert operation_of(written) == operation


def test_statements_are_told_while_somebody_watches_and_not_before_or_after(database_url: str) -> None:
    told, database = list[Statement](), Database(database_url, application_name="test")
    with database.transaction() as session:
        session.execute(text("SELECT 'before'"))
        with watching(session, told.append):
            session.execute(text("SELECT :a"), {"a": "secret"})
            session.execute(text("SELECT :a"), [{"a": "secret"}, {"a": "secret"}])
        session.execute(text("SELECT 'after'"))
    with database.transaction() as session:
        session.execute(text("SELECT 'another'"))

    assert [(each.text, each.sets, each.error_type) for each in told] == [
        ("SELECT %(a)s", 1, None), ("SELECT %(a)s", 2, None)]  # fmt: skip
    assert all(each.began_ns <= each.ended_ns for each in told)


def test_a_statement_that_fails_is_told_with_its_kind_of_error(database_url: str) -> None:
    told, database = list[Statement](), Database(database_url, application_name="test")
    with pytest.raises(DBAPIError), database.transaction() as session, watching(session, told.append):
        session.execute(text("SELECT 1/0"))

    assert [(each.text, each.error_type, each.error_code) for each in told] == [
        ("SELECT 1/0", "DivisionByZero", "22012")]  # fmt: skip


def test_a_long_statement_is_told_up_to_the_bound(database_url: str) -> None:
    told, database = list[Statement](), Database(database_url, application_name="test")
    with database.transaction() as session, watching(session, told.append):
        session.execute(text(f"SELECT '{'x' * 3 * MAX_TEXT}'"))

    assert [len(each.text) for each in told] == [MAX_TEXT]
    assert without_values(told[0].text) == "SELECT ?"
