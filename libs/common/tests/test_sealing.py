"""Data of events that is stored sealed: what opens, what does not, and what is found of it in the database."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy import event as listening
from sqlalchemy.orm import Session

from holdfast.domain.encryption_keys import key_id, key_text
from holdfast.domain.errors import DataUnreadable, KeyMissing
from holdfast.domain.event import NewEvent, NewGroup, UnreadableEvent
from holdfast.domain.state import State
from holdfast.local.fixtures import Eventually
from holdfast.local.services import environment
from holdfast.recording import Holdfast
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, copies, data_keys, event_views, events, groups
from holdfast.storage.contents import table_contents
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.listing import list_events
from holdfast.storage.readiness import check_work
from holdfast.storage.sealing import Sealing, key_context

MARKER = "planted-marker-4711"

OLD, NEW = bytes(range(32)), bytes(range(1, 33))

Open = Callable[..., "Store"]


class Store:
    """A database as a process with these keys has it."""

    def __init__(self, url: str, keys: tuple[bytes, ...], *, is_sealing: bool = True) -> None:
        self.sealing = Sealing(keys, is_sealing=is_sealing) if keys else None
        self.database = Database(url, application_name="test", pool_size=20, sealing=self.sealing)

    def record(self, **attributes: Any) -> events.Recorded:
        with self.database.transaction() as session:
            [recorded] = events.record(session, [new_event(**attributes)], grace_seconds=0)
        return recorded

    def put(self, **attributes: Any) -> UUID:
        """Record a new event; its id."""
        return self.record(**attributes).update.event_id

    def event(self, event_id: UUID, tenant: str = "acme") -> Any:
        with self.database.transaction() as session:
            view = event_views.find(session, event_id=event_id, tenant=tenant)
        assert view is not None
        return view.event

    def rewrap(self) -> int:
        assert self.sealing is not None
        return self.database.call(data_keys.rewrap, self.sealing, operator="command:ann@host", limit=1000)

    def rotate(self, tenant: str = "acme") -> UUID:
        assert self.sealing is not None
        return self.database.call(data_keys.rotate, self.sealing, tenant, operator="command:ann@host")

    def run(self, statement: str, **parameters: Any) -> None:
        with self.database.transaction() as session:
            session.execute(text(statement), parameters)

    def scalar(self, statement: str, **parameters: Any) -> Any:
        with self.database.transaction() as session:
            return session.scalar(text(statement), parameters)

    def contents(self) -> str:
        with self.database.transaction() as session:
            rows = [row for each in table_contents(session).values() for row in each]
        # bytea is shown in hexadecimal.
        return "\n".join(rows) + "".join(
            bytes.fromhex(each).decode("latin-1") for row in rows for each in re.findall(r"\\x((?:[0-9a-f]{2})+)", row)
        )


@pytest.fixture
def opened(database_url: str) -> Iterator[Open]:
    stores = []

    def make(*keys: bytes, **options: Any) -> Store:
        stores.append(Store(database_url, keys, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.database.close()


@pytest.fixture
def store(opened: Open) -> Store:
    return opened(OLD)


def new_event(**attributes: Any) -> NewEvent:
    defaults: dict[str, Any] = {
        "id": uuid7(), "tenant": "acme", "source": "/s", "ce_id": uuid4().hex, "type": "x",
        "datacontenttype": "application/json",
    }  # fmt: skip
    return NewEvent(**(defaults | attributes))


JSON = f'{{"secret": "{MARKER}", "amount": 1.10}}'


@pytest.mark.parametrize(
    "sent",
    [
        {"data_json": JSON},
        {"data_json": "null"},
        {"data_bytes": b"\x00\xff" + MARKER.encode()},
        {"data_bytes": b""},
        {},
    ],
)
def test_data_comes_back_as_it_was_sent(store: Store, sent: dict[str, Any]) -> None:
    event_id = store.put(**sent)

    event = store.event(event_id)
    with store.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="w", lease_seconds=30)
    for each in (event, lease.event):
        expected = sent["data_json"].encode() if "data_json" in sent else sent.get("data_bytes")
        assert (each.content, each.is_json) == (expected, "data_json" in sent)


def test_nothing_of_it_is_in_any_table(opened: Open) -> None:
    sealed = opened(OLD)
    sealed.put(data_json=JSON)
    sealed.put(data_bytes=MARKER.encode())
    assert MARKER not in sealed.contents()

    opened().put(data_json=JSON)
    opened().put(data_bytes=b"other-" + MARKER.encode())
    assert sealed.contents().count(MARKER) >= 2, "this look would find it"


def test_the_server_is_not_even_told(store: Store) -> None:
    """A statement may be logged, by the server or by what is in between."""
    said: list[str] = []
    listening.listen(
        store.database.engine,
        "before_cursor_execute",
        lambda _c, _cu, statement, given, *_: said.append(f"{statement}{given}"),
    )
    attributes = {"ce_id": "1", "data_json": JSON}
    store.put(**attributes)
    assert store.record(**attributes).is_duplicate
    assert said
    assert not [each for each in said if MARKER in each]


def test_without_keys_all_is_as_it_was(opened: Open) -> None:
    store = opened()
    event_id = store.put(data_json=JSON)
    assert store.scalar("SELECT data_bytes = convert_to(:d, 'UTF8') FROM event WHERE id = :id", d=JSON, id=event_id)
    assert store.scalar("SELECT count(*) FROM data_key") == 0


@pytest.mark.parametrize("first", [(), (OLD,)])
@pytest.mark.parametrize("second", [(OLD,), (OLD, NEW)])
@pytest.mark.parametrize(
    ("sent", "again", "is_same"),
    [
        ({"data_json": '{"a": 1.10}'}, {"data_json": '{"a":1.1}'}, True),
        ({"data_json": '{"a": 1.10}'}, {"data_json": '{"a": 1.10}'}, True),
        ({"data_json": '{"a": 1.10}'}, {"data_json": '{"a": 1.11}'}, False),
        ({"data_json": '{"a": 1.10}'}, {}, False),
        ({}, {"data_json": "null"}, False),
        ({}, {}, True),
        ({"data_bytes": b"1", "datacontenttype": "x/y"}, {"data_bytes": b"1", "datacontenttype": "x/y"}, True),
        ({"data_bytes": b"1", "datacontenttype": "x/y"}, {"data_bytes": b"2", "datacontenttype": "x/y"}, False),
    ],
)
def test_a_repetition_is_recognised_exactly(
    opened: Open, first: Any, second: Any, sent: dict[str, Any], again: dict[str, Any], is_same: bool
) -> None:
    event_id = opened(*first).put(ce_id="1", **sent)

    met = opened(*second).record(ce_id="1", **again)

    assert (met.is_duplicate, met.is_conflict, met.update.event_id) == (is_same, not is_same, event_id)


def test_sealing_that_was_turned_off_leaves_what_is_sealed_readable(opened: Open) -> None:
    sealed = opened(OLD).put(data_json=JSON, ce_id="1")
    off = opened(OLD, is_sealing=False)

    plain = off.put(data_json=JSON, ce_id="2")

    assert off.event(sealed).content == off.event(plain).content == JSON.encode()
    assert off.scalar("SELECT count(data_key_id) FROM event") == 1
    assert off.record(data_json=JSON, ce_id="1").is_duplicate
    assert off.record(data_json='{"other": 1}', ce_id="1").is_conflict


def test_rows_of_the_release_before_are_read_beside_sealed_ones(store: Store) -> None:
    store.run(
        "INSERT INTO event (id, tenant, source, ce_id, type, data_bytes, is_json) VALUES (:id, 'acme', '/s', 'n1', 'x',"
        " convert_to(:d, 'UTF8'), true)", id=(before := uuid7()), d=JSON,
    )  # fmt: skip
    store.run("INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at)"
              " VALUES (:id, 'queued', 1, now(), now())", id=before)  # fmt: skip
    sealed = store.put(data_json=JSON)
    assert store.event(before).content == store.event(sealed).content == JSON.encode()
    assert store.record(ce_id="n1", data_json='{"amount":1.1,"secret":"' + MARKER + '"}').is_duplicate


TAMPERINGS = {
    "a byte": "UPDATE event SET data_bytes = set_byte(data_bytes, 20, get_byte(data_bytes, 20) # 1) WHERE id = :id",
    "the nonce": "UPDATE event SET data_bytes = set_byte(data_bytes, 3, get_byte(data_bytes, 3) # 1) WHERE id = :id",
    "the version": "UPDATE event SET data_bytes = set_byte(data_bytes, 0, 2) WHERE id = :id",
    "its end": "UPDATE event SET data_bytes = substr(data_bytes, 1, 25) WHERE id = :id",
    "all of it": "UPDATE event SET data_bytes = '' WHERE id = :id",
    "bytes of another event": "UPDATE event e SET data_bytes = o.data_bytes FROM event o WHERE e.id = :id AND o.id = :other",
    "what it is": "UPDATE event SET is_json = false WHERE id = :id",
    "its tenant": "UPDATE event SET tenant = 'globex' WHERE id = :id",
    "its key": "UPDATE event SET data_key_id = :key WHERE id = :id",
    "a key that is not there": "UPDATE event SET data_key_id = gen_random_uuid() WHERE id = :id",
    "the wrapped key": "UPDATE data_key SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)",
    "another tenant's wrapped key": "UPDATE data_key SET wrapped = (SELECT wrapped FROM data_key WHERE id = :key)",
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_was_changed_does_not_open(opened: Open, what: str) -> None:
    store = opened(OLD)
    event_id, other = store.put(data_json=JSON), store.put(data_json='{"an": "other"}')
    store.put(data_json="1", tenant="globex")
    key = store.scalar("SELECT id FROM data_key WHERE tenant = 'globex'")

    store.run(TAMPERINGS[what], **{
        name: value for name, value in {"id": event_id, "other": other, "key": key}.items() if f":{name}" in TAMPERINGS[what]
    })  # fmt: skip

    event = opened(OLD).event(event_id, tenant="globex" if what == "its tenant" else "acme")
    assert isinstance(event, UnreadableEvent)
    for ask in (lambda: event.content, lambda: event.data):
        with pytest.raises(DataUnreadable):
            ask()


def test_nothing_is_sealed_with_another_tenants_key(opened: Open) -> None:
    store = opened(OLD)
    store.put(data_json=JSON)
    store.put(data_json=JSON, tenant="globex")
    store.run("UPDATE data_key SET wrapped = (SELECT wrapped FROM data_key WHERE tenant = 'globex')")
    with pytest.raises(DataUnreadable, match="data_key"):
        opened(OLD).put(data_json=JSON)


def test_without_the_key_everything_but_the_data_is_there(opened: Open) -> None:
    store = opened(OLD)
    event_id = store.put(data_json=JSON, ce_id="1", subject="order-1")
    for lacking in (opened(), opened(NEW)):
        event = lacking.event(event_id)
        assert event.subject == "order-1"
        with pytest.raises(KeyMissing, match="HOLDFAST_ENCRYPTION_KEYS"):
            _ = event.data
        with lacking.database.transaction() as session:
            [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="w", lease_seconds=30)
            assert isinstance(lease.event, UnreadableEvent)
            session.rollback()
        with lacking.database.transaction() as session:
            assert [each.event.id for each in list_events(session, EventFilter(), tenant="acme", limit=9).items] == [
                event_id
            ]
        for again in (JSON, '{"other": 1}'):
            with pytest.raises(KeyMissing):
                lacking.record(ce_id="1", data_json=again)
        with pytest.raises(KeyMissing, match=key_id(OLD)):
            lacking.database.call(check_work)
        with pytest.raises(KeyMissing), lacking.database.transaction() as session:
            copies.record_copy(session, event_id, idempotency_key="k", grace_seconds=0)
    store.database.call(check_work)
    assert store.scalar("SELECT count(*) FROM event") == 1


def test_nobody_stores_plain_data_beside_a_key_that_it_lacks(opened: Open) -> None:
    opened(OLD).put(data_json=JSON)
    with pytest.raises(KeyMissing):
        opened(NEW).put(data_json=JSON)


def test_an_edited_copy_needs_no_key_for_what_it_replaces(opened: Open) -> None:
    event_id = opened(OLD).put(data_json=JSON)
    without = opened()
    with without.database.transaction() as session:
        made = copies.record_copy(session, event_id, idempotency_key="k", grace_seconds=0, data_json='{"new": 1}')
    assert without.event(made.update.event_id).data == {"new": 1}


def test_a_changed_event_is_left_out_of_copies_and_holds_up_no_other(store: Store) -> None:
    bad, good = store.put(data_json=JSON), store.put(data_json=JSON)
    store.run(TAMPERINGS["a byte"], id=bad)
    with store.database.transaction() as session:
        assert set(copies.record_copies(session, [bad, good], idempotency_key="k", grace_seconds=0)) == {good}


def test_another_key_takes_over_without_a_look_at_events(opened: Open) -> None:
    old = opened(OLD)
    sealed = [old.put(data_json=JSON, tenant=f"t{number}") for number in range(3)]
    before = old.scalar("SELECT string_agg(CAST(e AS text), ',' ORDER BY id) FROM event e")

    both = opened(NEW, OLD)
    assert (both.rewrap(), both.rewrap()) == (3, 0)

    only_new = opened(NEW)
    only_new.database.call(check_work)
    assert [only_new.event(each, tenant=f"t{number}").content for number, each in enumerate(sealed)] == [
        JSON.encode()
    ] * 3
    assert old.scalar("SELECT string_agg(CAST(e AS text), ',' ORDER BY id) FROM event e") == before
    assert old.scalar("SELECT count(*) FROM audit_log WHERE action = 'rewrap_data_key'") == 3
    with pytest.raises(KeyMissing):
        opened(OLD).database.call(check_work)


def test_a_rewrap_that_is_killed_goes_on_where_it_was(opened: Open, database_url: str, eventually: Eventually) -> None:
    old = opened(OLD)
    sealed = {f"t{number}": old.put(data_json=JSON, tenant=f"t{number}") for number in range(3)}
    # More than one transaction's worth.
    context = (
        "INSERT INTO data_key (id, tenant, wrapped, kek_id, retired_at) VALUES (:id, :tenant, :wrapped, :kek, now())"
    )
    assert old.sealing is not None
    for number in range(1500):
        made = uuid7()
        wrapped = old.sealing.ring.wrap(os.urandom(32), key_context(made, f"r{number}"))
        old.run(context, id=made, tenant=f"r{number}", wrapped=wrapped, kek=key_id(OLD))
    settings = environment(
        {"HOLDFAST_DATABASE_URL": database_url, "HOLDFAST_ENCRYPTION_KEYS": f"{key_text(NEW)},{key_text(OLD)}"}
    )
    command = [sys.executable, "-m", "holdfast.storage", "encryption", "rewrap"]

    process = subprocess.Popen(command, env=settings)
    eventually(lambda: old.scalar("SELECT count(*) FROM data_key WHERE kek_id = :new", new=key_id(NEW)) > 0)
    process.kill()
    process.wait()

    left = old.scalar("SELECT count(*) FROM data_key WHERE kek_id = :old", old=key_id(OLD))
    assert 0 < left < 1503, "it was killed in the middle"
    both = opened(NEW, OLD)
    assert all(both.event(each, tenant=tenant).content == JSON.encode() for tenant, each in sealed.items())
    again = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert again.stdout == f"{left} data keys are wrapped by {key_id(NEW)} now\n"
    opened(NEW).database.call(check_work)


def test_a_new_data_key_seals_what_is_new_and_the_one_before_opens_what_was(opened: Open) -> None:
    store = opened(OLD)
    first = store.put(data_json=JSON)
    made = store.rotate()

    other_process = opened(OLD)
    second = other_process.put(data_json=JSON)

    keys = [store.scalar("SELECT data_key_id FROM event WHERE id = :id", id=each) for each in (first, second)]
    assert keys[0] != keys[1] == made
    assert other_process.event(first).content == store.event(second).content == JSON.encode()
    assert store.event(store.put(data_json=JSON)).content == JSON.encode(), "a process that still knows the one before"


def test_an_old_data_key_is_replaced_by_itself(opened: Open) -> None:
    opened(OLD).put(data_json=JSON)
    opened(OLD).run("UPDATE data_key SET created_at = now() - interval '31 days'")
    opened(OLD).put(data_json=JSON)
    assert opened(OLD).scalar("SELECT count(*) FILTER (WHERE retired_at IS NULL) FROM data_key") == 1
    assert opened(OLD).scalar("SELECT count(DISTINCT data_key_id) FROM event") == 2


def test_many_first_events_of_a_tenant_agree_on_one_key(opened: Open) -> None:
    stores = [opened(OLD) for _ in range(8)]
    barrier = threading.Barrier(8)

    def first(store: Store) -> UUID:
        barrier.wait()
        return store.put(data_json=JSON)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(first, stores))

    assert stores[0].scalar("SELECT count(*) FROM data_key") == 1
    fresh = opened(OLD)
    assert all(fresh.event(each).content == JSON.encode() for each in made)


def test_a_key_outlives_the_transaction_that_needed_it_first(opened: Open) -> None:
    store = opened(OLD)
    with store.database.transaction() as session:
        events.record(session, [new_event(data_json=JSON)], grace_seconds=0)
        session.rollback()
    event_id = store.put(data_json=JSON)  # with the key that this process knows by now
    assert opened(OLD).event(event_id).content == JSON.encode()


def test_only_keys_that_nothing_is_sealed_with_are_dropped(opened: Open) -> None:
    store = opened(OLD)
    kept = store.put(data_json=JSON)
    gone = store.put(data_json=JSON, tenant="globex")
    store.rotate()
    with store.database.transaction() as session:
        assert len(data_keys.retire_keys(session, "globex")) == 1
    store.run("DELETE FROM event WHERE id = :id", id=gone)

    def drop() -> int:
        return store.database.call(data_keys.drop_unused, operator="command:ann@host")

    assert drop() == 0, "a process may know it still"
    store.run("UPDATE data_key SET retired_at = now() - interval '1 h' WHERE retired_at IS NOT NULL")
    assert drop() == 1

    assert opened(OLD).event(kept).content == JSON.encode()
    assert store.scalar("SELECT count(*) FROM audit_log WHERE action = 'drop_data_key' AND tenant = 'globex'") == 1


def test_the_event_of_a_group_has_its_data_and_the_group_hides_it(opened: Open) -> None:
    store = opened(OLD)
    parent = store.put()
    group = NewGroup(id=uuid7(), tenant="acme", parent_id=parent, type="done", data_json=JSON)
    with store.database.transaction() as session:
        groups.record_group(session, group, [uuid7_of_member(session)])
    assert MARKER not in store.contents()

    with store.database.transaction() as session:
        member = session.scalar(text("SELECT event_id FROM event_group_member"))
        groups.count_ended(session, [groups.Ended(member, group.id, State.PROCESSED)])
        [done] = groups.take_completed(session)

    assert store.event(done.update.event_id).data["data"] == {"secret": MARKER, "amount": 1.1}
    assert MARKER not in store.contents()


def uuid7_of_member(session: Session) -> UUID:
    [member] = events.record(session, [new_event()], grace_seconds=0)
    return member.update.event_id


def test_the_group_of_another_row_does_not_open_and_members_end_all_the_same(opened: Open) -> None:
    store = opened(OLD)
    parent = store.put()
    group = NewGroup(id=uuid7(), tenant="acme", parent_id=parent, type="done", data_json=JSON)
    with store.database.transaction() as session:
        groups.record_group(session, group, [uuid7_of_member(session)])
    store.run("UPDATE event_group SET data = 'no base64!'")

    with store.database.transaction() as session:
        member = session.scalar(text("SELECT event_id FROM event_group_member"))
        groups.count_ended(session, [groups.Ended(member, group.id, State.PROCESSED)])
        [done] = groups.take_completed(session)

    data = store.event(done.update.event_id).data
    assert (data["data"], data["data_unreadable"]) == (None, True)


def test_an_application_seals_too(opened: Open, database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    holdfast = Holdfast(tenant="acme", encryption_keys=key_text(OLD))
    order = {"type": "order.placed", "source": "/shop", "id": "1", "data": {"secret": MARKER}}
    with Session(engine) as session, session.begin():
        recorded = holdfast.record(session, order)
        assert holdfast.record(session, order).is_duplicate
        with session.begin_nested():
            holdfast.record(session, order | {"id": "2"})
    engine.dispose()
    store = opened(OLD)
    assert MARKER not in store.contents()
    assert store.event(recorded.event_id).data == {"secret": MARKER}


def test_a_transaction_of_an_application_that_sees_an_old_snapshot_seals_too(opened: Open, database_url: str) -> None:
    engine = create_engine(
        make_url(database_url).set(drivername="postgresql+psycopg2"), isolation_level="REPEATABLE READ"
    )
    holdfast = Holdfast(tenant="acme", encryption_keys=key_text(OLD))
    with Session(engine) as session, session.begin():
        session.execute(text("SELECT count(*) FROM data_key"))
        opened(OLD).put(data_json="1")
        recorded = holdfast.record(session, {"type": "x", "source": "/shop", "data": {"secret": MARKER}})
    engine.dispose()
    assert opened(OLD).event(recorded.event_id).data == {"secret": MARKER}
    assert opened(OLD).scalar("SELECT count(*) FROM data_key") == 1
