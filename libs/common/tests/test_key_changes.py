"""Keys changed by several administrators at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.key_changes import Refusal, Refused, revoke_own_key
from holdfast.storage.keys import KeyEntry, create_key

ANN = Actor("acme", "abcdefghijkl", "ann")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test")
    yield database
    database.close()


def test_of_two_administrators_who_revoke_each_other_one_is_left(database: Database, eventually: Eventually) -> None:
    with database.transaction() as session:
        first, second = (create_key(session, tenant="acme", name="n", scopes=["admin"]).split("_")[1] for _ in range(2))

    def revoke(key_id: str) -> KeyEntry | Refused:
        with database.transaction() as session:
            return revoke_own_key(session, ANN, key_id)

    def is_waiting() -> bool:
        with database.transaction() as session:
            asked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            return bool(session.scalar(text(asked)) == 1)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            revoke_own_key(session, ANN, first)
            other = pool.submit(revoke, second)
            eventually(is_waiting, message="the second revocation waits for the first")
        refused = other.result(timeout=30)

    assert refused == Refused(Refusal.LAST_ADMINISTRATOR, second)
