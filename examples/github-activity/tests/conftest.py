"""A migrated database is all that testing a handler needs."""

from collections.abc import Iterator

import pytest

from holdfast.storage import Session
from holdfast.storage.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test")
    yield database
    database.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as session:
        yield session
