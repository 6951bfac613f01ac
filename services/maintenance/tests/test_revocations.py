"""Redis's copy of the revoked tokens: filled again within a second after Redis was emptied, and never for ever larger."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from holdfast.domain.revocation import KEPT_SECONDS, Revocation, RevocationKind
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey
from holdfast.maintenance.duties import Duties
from holdfast.messaging.live import revocation_keys
from holdfast.messaging.revocations import REVOCATIONS_KEY
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.revocations import record_revocation


@pytest.fixture
def duties(database_url: str, redis_url: str) -> Iterator[Duties]:
    made = make_duties(database_url, redis_url)
    yield made
    made.close()


def make_duties(database_url: str, redis_url: str) -> Duties:
    settings = MaintenanceSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(redis_url), redis_url=SecretStr(redis_url),
        sweep_limit=2,
    )  # fmt: skip
    return Duties(settings)


def revoke(database: Database, sub: str) -> Revocation:
    with database.transaction() as session:
        return record_revocation(session, Actor("acme", "abcdefghijkl"), RevocationKind.SUBJECT, sub)


def field(sub: str) -> str:
    return revocation_keys("acme", sub=sub, jti="")[1]


def copied(in_redis: Any) -> set[str]:
    return {name.decode() for name in in_redis.client.hkeys(REVOCATIONS_KEY)}


def test_a_turn_fills_an_empty_copy_in_batches_and_the_next_one_finds_nothing_to_do(
    duties: Duties, database: Database, in_redis: Any
) -> None:
    for sub in "abcde":
        revoke(database, sub)

    assert [duties.copy_revocations(), duties.copy_revocations()] == [5, 0]

    assert copied(in_redis) == {"copied", *map(field, "abcde")}


def test_a_worker_fills_an_emptied_redis_within_seconds(
    start: Callable[..., Any], database: Database, in_redis: Any, eventually: Eventually
) -> None:
    revoke(database, "a")
    start()
    eventually(lambda: copied(in_redis) == {"copied", field("a")}, timeout_seconds=5, message="filled once")

    in_redis.client.flushall()

    eventually(lambda: copied(in_redis) == {"copied", field("a")}, timeout_seconds=5, message="filled again")


def test_revocations_that_no_token_outlives_leave_table_and_copy(
    duties: Duties, database: Database, in_redis: Any
) -> None:
    for sub in "abcde":
        revoke(database, sub)
    duties.copy_revocations()
    with database.transaction() as session:
        session.execute(
            text("UPDATE token_revocation SET revoked_at = now() - make_interval(secs => :s) WHERE name < 'd'"),
            {"s": KEPT_SECONDS + 1},
        )

    assert duties.prune_revocations() == 3

    assert copied(in_redis) == {"copied", field("d"), field("e")}
    with database.transaction() as session:
        assert session.execute(text("SELECT name FROM token_revocation ORDER BY 1")).scalars().all() == ["d", "e"]
    assert duties.copy_revocations() == 0


def test_without_redis_nothing_is_forgotten(database: Database, database_url: str, own_valkey: Valkey) -> None:
    for sub in "ab":
        revoke(database, sub)
    with database.transaction() as session:
        session.execute(text("UPDATE token_revocation SET revoked_at = now() - interval '9 days'"))
    duties = make_duties(database_url, own_valkey.url())
    own_valkey.stop()

    assert [duties.copy_revocations(), duties.prune_revocations()] == [0, 0]

    with database.transaction() as session:
        assert session.execute(text("SELECT count(*) FROM token_revocation")).scalar_one() == 2
    duties.close()
