"""Weights and backlog limits of tenants: set by a command on the database, audited, and gone by."""

import subprocess
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from holdfast.storage import tenants
from holdfast.storage.backlog import backlog_of
from holdfast.storage.database import Database
from holdfast.storage.routing import routing_of

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test")
    yield made
    made.close()


def test_the_command_sets_a_tenant_and_leaves_out_what_is_not_given(
    run_python: RunPython, database_url: str, database: Database
) -> None:
    def run(*arguments: str) -> str:
        done = run_python("-m", "holdfast.storage", "tenants", *arguments, DATABASE_URL=database_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("ls") == ""
    assert run("set", "acme", "--weight", "3", "--backlog-seconds", "600") == "acme\tweight 3\tbacklog 600 s\n"
    assert run("set", "acme", "--weight", "5") == "acme\tweight 5\tbacklog 600 s\n"
    assert run("set", "acme") == "acme\tweight 5\tbacklog 600 s\n", "shown, and nothing is changed"
    assert database.call(routing_of).weight("acme") == 5
    assert database.call(backlog_of, "acme").limit_seconds == 600
    assert run("set", "acme", "--backlog-seconds", "default") == "acme\tweight 5\tbacklog default\n"
    assert run("ls") == "acme\tweight 5\tbacklog default\n"
    with database.transaction() as session:
        rows = session.execute(text("SELECT tenant, action, origin, detail FROM audit_log ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [
        ("acme", "set_tenant", "cli", {"weight": weight, "backlog_seconds": backlog})
        for weight, backlog in ((3, 600), (5, 600), (5, None))
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "a:b"),
        ("set", "acme", "--weight", "0"),
        ("set", "acme", "--weight", "101"),
        ("set", "acme", "--weight", "1.5"),
        ("set", "acme", "--backlog-seconds", "-1"),
        ("set", "acme", "--backlog-seconds", "nan"),
        ("set", "acme", "--backlog-seconds", "2592001"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_can(
    run_python: RunPython, database_url: str, arguments: tuple[str, ...]
) -> None:
    done = run_python("-m", "holdfast.storage", "tenants", *arguments, DATABASE_URL=database_url)

    assert done.returncode == 2
    assert "is no " in done.stderr


def test_a_tenant_of_which_nothing_is_set_has_the_defaults(database: Database) -> None:
    found = database.call(tenants.standing, "acme")

    assert (found.settings.weight, found.settings.backlog_seconds, found.waiting) == (1, None, 0)
