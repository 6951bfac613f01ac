"""Events that the release before recorded: readable everywhere, recognised, and what its processes do on this schema."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import text

from holdfast.domain.event import NewEvent, canonical_json, digest
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, copies, event_views, events, migrate
from holdfast.storage.database import Database

RECORD = text("""
-- What release 0.1.0 ran before revision 0008, as far as it concerns data.
WITH requested AS (
    SELECT * FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(
        id uuid, tenant text, source text, ce_id text, type text, datacontenttype text, data_json text, data_base64 text,
        digest_hex text)
), inserted AS (
    INSERT INTO event (id, tenant, source, ce_id, type, datacontenttype, data, data_bytes, data_digest)
    SELECT id, tenant, source, ce_id, type, datacontenttype, CAST(data_json AS jsonb), decode(data_base64, 'base64'),
           decode(digest_hex, 'hex')
    FROM requested
    ON CONFLICT ON CONSTRAINT uq_event_identity DO NOTHING
    RETURNING id, received_at
)
INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)
SELECT id, 'queued', 1, received_at, received_at FROM inserted
""")

READ = text("SELECT e.data, e.data_bytes FROM event e WHERE e.id = :id")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test")
    yield made
    made.close()


def record_as_before(database: Database, value: Any, *, ce_id: str = "1") -> UUID:
    """An event as it was stored: JSON through Python's floats, or bytes."""
    is_json = not isinstance(value, bytes)
    data_json = canonical_json(value) if is_json and value is not ... else None
    data_bytes = value if isinstance(value, bytes) else None
    row = {
        "id": str(uuid7()), "tenant": "t", "source": "/s", "ce_id": ce_id, "type": "x", "data_json": data_json,
        "data_base64": None if data_bytes is None else base64.b64encode(data_bytes).decode(),
        "digest_hex": digest("x", data_json, data_bytes).hex(),
        "datacontenttype": "application/json" if is_json else None,
    }  # fmt: skip
    with database.transaction() as session:
        session.execute(RECORD, {"events": json.dumps([row])})
    return UUID(str(row["id"]))


def send(database: Database, **data: Any) -> events.Recorded:
    sent: dict[str, Any] = {"id": uuid7(), "tenant": "t", "source": "/s", "ce_id": "1", "type": "x"} | data
    with database.transaction() as session:
        return events.record(session, [NewEvent(**sent)], grace_seconds=0)[0]


@pytest.mark.parametrize("value", [{"b": [1, None], "a": "ü"}, None, 1.5, b"\x00\xff", b""])
def test_an_old_event_is_read_claimed_and_copied(database: Database, value: Any) -> None:
    event_id = record_as_before(database, value)

    with database.transaction() as session:
        found = event_views.find(session, event_id=event_id, tenant="t")
        copies.record_copies(session, [event_id], idempotency_key="k", grace_seconds=0)
        [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="w", lease_seconds=9)
        copied = session.execute(text("SELECT data_bytes, is_json FROM event WHERE replay_of IS NOT NULL")).one()

    assert found is not None
    assert (found.event.data, found.event.is_json) == (value, not isinstance(value, bytes))
    assert lease.event.data == value
    assert (bytes(copied.data_bytes), copied.is_json) == (found.event.content, found.event.is_json)


def test_an_old_event_without_data_has_none(database: Database) -> None:
    event_id = record_as_before(database, ...)

    with database.transaction() as session:
        found = event_views.find(session, event_id=event_id, tenant="t")

    assert found is not None
    assert (found.event.content, found.event.data, found.event.is_json) == (None, None, False)


@pytest.mark.parametrize(
    ("stored", "sent", "is_duplicate"),
    [
        ({"price": 19.99, "n": 1}, {"data_json": '{"n": 1, "price": 19.990}'}, True),
        ({"price": 19.99}, {"data_json": '{"price": 19.98}'}, False),
        # It went through a float before it was stored, so nobody knows any more.
        ({"price": 19.99}, {"data_json": '{"price": 19.990000000000000000001}'}, True),
        (None, {"data_json": " null"}, True),
        (None, {}, False),
        (..., {}, True),
        (b"\xff", {"data_bytes": b"\xff"}, True),
        (b"\xff", {"data_bytes": b"\xfe"}, False),
        (1, {"data_json": "1", "type": "y"}, False),
    ],
)
def test_an_old_event_sent_again_is_recognised(
    database: Database, stored: Any, sent: dict[str, Any], is_duplicate: bool
) -> None:
    event_id = record_as_before(database, stored)

    again = send(database, **sent)

    assert (again.is_duplicate, again.is_conflict) == (is_duplicate, not is_duplicate)
    assert again.update.event_id == event_id


@pytest.mark.parametrize(
    ("first", "second", "is_duplicate"),
    [
        ({"data_json": "[1.10]"}, {"data_json": "[1.10]"}, True),
        ({"data_json": "[1.10]"}, {"data_json": "[1.1]"}, True),
        ({"data_json": "19.99"}, {"data_json": "19.990000000000000000001"}, False),
        ({"data_json": "null"}, {}, False),
        ({}, {"data_bytes": b""}, False),
        (
            {"data_json": '"a"', "datacontenttype": "text/plain"},
            {"data_bytes": b"a", "datacontenttype": "text/plain"},
            True,
        ),
        ({"data_json": "1"}, {"data_json": "1", "type": "y"}, False),
    ],
)
def test_an_event_sent_again_is_recognised_by_its_value(
    database: Database, first: dict[str, Any], second: dict[str, Any], is_duplicate: bool
) -> None:
    send(database, **first)

    again = send(database, **second)

    assert (again.is_duplicate, again.is_conflict) == (is_duplicate, not is_duplicate)


def test_events_of_a_batch_that_are_there_are_told_from_the_others(database: Database) -> None:
    send(database, data_json="1")
    batch = [
        NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=ce_id, type="x", data_json=data)
        for ce_id, data in (("2", "2"), ("1", "1.0"), ("1", "2"), ("3", "3"), ("3", "3"))
    ]

    with database.transaction() as session:
        recorded = events.record(session, batch, grace_seconds=0)

    assert [(each.is_new, each.is_duplicate, each.is_conflict) for each in recorded] == [
        (True, False, False), (False, True, False), (False, False, True), (True, False, False), (False, True, False),
    ]  # fmt: skip


def test_a_process_of_before_takes_data_for_bytes_and_never_for_none(database: Database) -> None:
    """Its handlers' models refuse bytes: a dead letter, to be replayed, and nothing done with half of an event."""
    recorded = send(database, data_json='{"n": 1}')

    with database.transaction() as session:
        row = session.execute(READ, {"id": recorded.update.event_id}).one()

    assert (row.data, bytes(row.data_bytes)) == (None, b'{"n": 1}')


def test_migrating_there_and_back_keeps_the_data(empty_database_url: str) -> None:
    database = Database(empty_database_url, application_name="test", pool_size=1)
    migrated(database, "0007")
    old_id = record_as_before(database, {"n": 1})
    migrated(database, "head")  # as far as this release needs it
    new_id = send(database, ce_id="2", data_json='{"n": 1.10}').update.event_id
    bytes_id = send(database, ce_id="3", data_bytes=b"\xff").update.event_id
    other_id = record_as_before(database, {"n": 2}, ce_id="4")  # by a process of before, meanwhile

    with database.transaction() as session:
        found = [event_views.find(session, event_id=each, tenant="t") for each in (old_id, new_id, bytes_id, other_id)]
    migrated(database, "0007", command.downgrade)
    with database.transaction() as session:
        back = [session.execute(READ, {"id": each}).one() for each in (old_id, new_id, bytes_id, other_id)]
    database.close()

    assert [each.event.content for each in found if each] == [b'{"n": 1}', b'{"n": 1.10}', b"\xff", b'{"n": 2}']
    assert [(row.data, row.data_bytes and bytes(row.data_bytes)) for row in back] == [
        ({"n": 1}, None), ({"n": 1.1}, None), (None, b"\xff"), ({"n": 2}, None),
    ]  # fmt: skip


def migrated(database: Database, revision: str, move: Any = command.upgrade) -> None:
    config = migrate._config(migrate.OWN)
    with database.transaction() as session:
        config.attributes["connection"] = session.connection()
        config.attributes["version_table"] = migrate.OWN.version_table
        move(config, revision)
