"""The audit log: what is noted of every action, and how it is found again."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from holdfast.domain.revocation import RevocationKind
from holdfast.domain.state import State
from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.storage import Session, audit
from holdfast.storage.audit import Actor, AuditFilter, AuditRecord, list_audit, note
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.keys import create_key, revoke_key
from holdfast.storage.replay_batches import replay_batch
from holdfast.storage.replays import Replay, cancel, start_replay
from holdfast.storage.revocations import record_revocation

ANN = Actor("acme", "abcdefghijkl", "ann's key", "203.0.113.9", "request-0001")
BOB = Actor("acme", "mnopqrstuvwx", "bob", "203.0.113.10", "request-0002")


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        yield session
    database.close()


def found(session: Session, *, tenant: str = "acme", **wanted: Any) -> list[AuditRecord]:
    return list_audit(session, AuditFilter(**wanted), tenant=tenant, limit=200).items


def begin(session: Session, actor: Actor = ANN) -> Replay:
    begun = start_replay(session, actor, EventFilter(state=State.DEAD), rate_per_s=1, idempotency_key=uuid4().hex)
    assert isinstance(begun, Replay)
    return begun


def test_an_entry_says_who_by_name_what_when_from_where_and_in_which_request(session: Session) -> None:
    record_revocation(session, ANN, RevocationKind.SUBJECT, "user-42")

    [entry] = found(session)

    assert (entry.actor, entry.actor_name) == ("abcdefghijkl", "ann's key")
    assert (entry.origin, entry.request_id) == ("203.0.113.9", "request-0001")
    assert (entry.action, entry.detail) == ("revoke_subject", {"sub": "user-42"})
    assert abs(datetime.now(UTC) - entry.at) < timedelta(minutes=5)


def test_what_a_command_does_comes_from_the_command_line(session: Session) -> None:
    key_id = create_key(session, tenant="acme", name="shop", actor="command:ann@host").split("_")[1]
    revoke_key(session, key_id, actor="command:ann@host")

    assert [(entry.action, entry.actor, entry.origin) for entry in found(session)] == [
        ("revoke_key", "command:ann@host", "cli"), ("create_key", "command:ann@host", "cli"),
    ]  # fmt: skip


def test_the_end_of_a_replay_is_noted_with_what_became_of_it(session: Session) -> None:
    begun = begin(session)
    session.execute(text("UPDATE replay_job SET state = 'running', finished_at = NULL, total = 1"))
    session.execute(text("INSERT INTO replay_item (job_id, event_id, version) VALUES (:id, :id, 1)"), {"id": begun.id})

    replay_batch(session, begun.id, limit=10, burst_seconds=1, grace_seconds=5)
    replay_batch(session, begun.id, limit=10, burst_seconds=1, grace_seconds=5)

    ended, started = found(session, replay_id=begun.id)
    assert (started.action, started.actor_name) == ("start_replay", "ann's key")
    assert (ended.action, ended.actor, ended.origin) == ("finish_replay", "maintenance", "maintenance")
    assert ended.detail == {"created_by": ANN.key_id, "total": 1, "replayed": 0, "skipped": 1}


def test_a_replay_keeps_the_name_of_who_began_it(session: Session) -> None:
    begun = begin(session)
    cancel(session, BOB, begun.id)

    assert (begun.created_by, begun.created_by_name) == ("abcdefghijkl", "ann's key")
    assert [entry.actor_name for entry in found(session, replay_id=begun.id)] == ["ann's key"], "it was over already"


def test_entries_are_found_by_each_filter_and_all_of_them(session: Session) -> None:
    event_id, replay_id = uuid4(), uuid4()
    note(session, ANN, "replay", event_id=event_id)
    note(session, BOB, "discard", event_id=event_id)
    note(session, BOB, "start_replay", replay_id=replay_id)
    note(session, Actor("other", "abcdefghijkl", "ann's key"), "replay", event_id=event_id)
    now = datetime.now(UTC)

    def actions(**wanted: Any) -> list[str]:
        return [entry.action for entry in found(session, **wanted)]

    assert actions() == ["start_replay", "discard", "replay"]
    assert actions(action="discard") == ["discard"]
    assert actions(actor="abcdefghijkl") == actions(actor="ann's key") == ["replay"]
    assert actions(event_id=event_id) == ["discard", "replay"]
    assert actions(replay_id=replay_id) == ["start_replay"]
    assert actions(since=now - timedelta(hours=1), until=now + timedelta(hours=1), actor="bob") == [
        "start_replay", "discard",
    ]  # fmt: skip
    assert actions(since=now + timedelta(hours=1)) == actions(until=now - timedelta(hours=1)) == []
    assert actions(action="replay", actor="bob") == []


def test_an_id_that_is_another_keys_name_finds_each_entry_once(session: Session) -> None:
    note(session, Actor("acme", "same", "same"), "replay")
    note(session, Actor("acme", "same", "other"), "discard")
    note(session, Actor("acme", "other", "same"), "revoke_key")

    assert [entry.action for entry in found(session, actor="same")] == ["revoke_key", "discard", "replay"]


@pytest.mark.parametrize("actor", [None, "bob"])
def test_pages_follow_each_other_without_a_gap_or_a_repetition(session: Session, actor: str | None) -> None:
    # In one transaction, so that all have one time and the id alone decides.
    for number in range(7):
        note(session, BOB, f"action-{number}")
    wanted = AuditFilter(actor=actor)

    pages, after_id = [], None
    while True:
        page = list_audit(session, wanted, tenant="acme", limit=3, after_id=after_id)
        pages.append([entry.action for entry in page.items])
        after_id = page.next_id
        if after_id is None:
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [action for page in pages for action in page] == [f"action-{number}" for number in reversed(range(7))]


def test_another_tenants_entry_is_no_place_to_go_on_from(session: Session) -> None:
    note(session, ANN, "replay")
    note(session, Actor("other", "k"), "replay")
    [foreign] = found(session, tenant="other")

    assert list_audit(session, AuditFilter(), tenant="acme", limit=9, after_id=foreign.id).items == []


def test_an_entry_of_the_release_before_has_neither_name_nor_origin(session: Session) -> None:
    session.execute(
        text(
            "INSERT INTO audit_log (tenant, actor, action, event_id, replay_id, detail)"
            " VALUES ('acme', 'abcdefghijkl', 'replay', NULL, NULL, '{}')"
        )
    )

    [entry] = found(session)

    assert (entry.actor, entry.actor_name, entry.origin, entry.request_id) == ("abcdefghijkl", None, None, None)


FILL = """
INSERT INTO audit_log (at, tenant, actor, actor_name, action, event_id, replay_id)
SELECT now() - n * interval '1 s', CASE WHEN n % 10 = 0 THEN 'small' ELSE 'acme' END, 'key-' || n % 50, 'name-' || n % 50,
       'action-' || n % 7, CASE WHEN n % 2 = 0 THEN gen_random_uuid() END, CASE WHEN n % 3 = 0 THEN gen_random_uuid() END
FROM generate_series(1, 20000) AS n
"""

PLACE = (datetime.now(UTC) - timedelta(hours=4), 10_000)


@pytest.mark.parametrize("tenant", ["acme", "small"])
@pytest.mark.parametrize("place", [None, PLACE])
@pytest.mark.parametrize(
    "wanted",
    [
        AuditFilter(), AuditFilter(action="action-1"), AuditFilter(actor="key-7"), AuditFilter(actor="name-20"),
        AuditFilter(actor="nobody"), AuditFilter(event_id=UUID(int=1)), AuditFilter(replay_id=UUID(int=1)),
        AuditFilter(since=datetime.now(UTC) - timedelta(hours=1)), AuditFilter(until=datetime.now(UTC) - timedelta(hours=5)),
        AuditFilter(action="no such"),
    ],
)  # fmt: skip
def test_a_page_reads_what_it_shows(
    filled: Session, wanted: AuditFilter, place: tuple[datetime, int] | None, tenant: str
) -> None:
    asked = audit.statement(wanted, tenant=tenant, limit=20, place=place)
    compiled = asked.compile(dialect=filled.get_bind().dialect)
    explained = filled.connection().exec_driver_sql(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {compiled}", dict(compiled.params)
    )

    nodes = list(walk(explained.scalar_one()[0]["Plan"]))

    assert "Seq Scan" not in {node["Node Type"] for node in nodes}, json.dumps(nodes, default=str)[:4000]
    most = max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes)
    assert most <= 60, "a page of 20, at most once for each side of the actor and once for both"


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    children = plan.pop("Plans", [])
    yield plan
    for child in children:
        yield from walk(child)


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[Session]:
    """Twenty thousand entries of two tenants, with statistics."""
    name = clone_template(postgres)
    database = Database(postgres.url(name), application_name="test")
    with database.transaction() as session:
        session.execute(text(FILL))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE audit_log"))
    with database.transaction() as session:
        yield session
    database.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize(
    ("actor_id", "kind"),
    [
        ("abcdefghijkl", "key"), ("maintenance", "maintenance"), ("command:ann@host", "command"),
        ("handlers", "handlers"), ("handlers:x", "key"),
        (audit.person_id("ann-1"), "oidc"), (audit.person_id("command:ann"), "oidc"), ("other:ann", "key"), ("oidc", "key"),
    ],
)  # fmt: skip
def test_an_actors_id_says_what_kind_it_is(actor_id: str, kind: str) -> None:
    assert audit.actor_kind(actor_id) == kind
