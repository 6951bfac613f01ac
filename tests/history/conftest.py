"""A database with a million events, made once for all tests of a process."""

from collections.abc import Iterator

import pytest
from bench.history import make_history

from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.storage.database import Database

EVENTS = 1_000_000


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
