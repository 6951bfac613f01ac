"""A database with a million events, made once for all tests of a process."""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
from bench.history import make_history
from bench.lived import beat, settle_in

from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.storage.database import Database

EVENTS = int(os.environ.get("HOLDFAST_HISTORY", "1000000"))
"""What the tests' limits are for. Fewer do while a test is written: those of lists need 300,000."""


@pytest.fixture(scope="session")
def history_name(postgres: Postgres) -> Iterator[str]:
    """The database's name. It takes a minute or two."""
    name = clone_template(postgres)
    make_history(lambda sql: postgres.execute(sql, database=name), EVENTS)
    yield name
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def history(postgres: Postgres, history_name: str) -> Iterator[Database]:
    """The database, to be read only."""
    made = Database(postgres.url(history_name), application_name="test", pool_size=1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def lived_in_name(postgres: Postgres, history_name: str) -> Iterator[str]:
    """The name of a copy with all that operators have left beside the history. Half a minute."""
    name = f"test_{uuid4().hex}"
    postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{history_name}" STRATEGY file_copy')
    settle_in(lambda sql: postgres.execute(sql, database=name))
    beat(lambda sql: postgres.execute(sql, database=name))
    yield name
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
