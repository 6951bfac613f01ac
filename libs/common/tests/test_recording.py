"""Events that an application records in its own transactions."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker

from holdfast.domain.errors import InvalidName
from holdfast.local.ports import free_port
from holdfast.messaging.doorbell import QUEUE
from holdfast.messaging.live import topic_keys
from holdfast.recording import Debounce, Holdfast, IdentityTaken, Unique

ORDER = {"type": "order.placed", "source": "/shop", "data": {"order": 7}}

LATER = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)


class Shop:
    """An application with a table of its own and an engine of its own."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
        self.sessions = sessionmaker(self.engine)
        self.redis = redis.Redis.from_url(redis_url)
        self.holdfast = Holdfast(tenant="acme", redis_url=redis_url)
        with self.sessions.begin() as session:
            session.execute(text("CREATE TABLE shop_order (id int)"))

    def order(self, session: Session) -> UUID:
        """An order and its event."""
        session.execute(text("INSERT INTO shop_order VALUES (7)"))
        return self.holdfast.record(session, ORDER).event_id

    def events(self) -> list[Any]:
        with self.sessions() as session:
            return list(
                session.execute(
                    text("SELECT e.*, s.* FROM event e JOIN processing_state s ON s.event_id = e.id ORDER BY e.id")
                )
            )

    def orders(self) -> int:
        with self.sessions() as session:
            return int(session.execute(text("SELECT count(*) FROM shop_order")).scalar_one())

    def told(self) -> list[UUID]:
        """Whose updates are live, in their order."""
        entries: Any = self.redis.xrange(topic_keys("acme", "tenant:acme").stream)
        return [UUID(json.loads(fields[b"u"])["id"]) for _, fields in entries]

    def rung(self) -> set[UUID]:
        bodies: Any = self.redis.hvals(f"dramatiq:{QUEUE}.msgs")
        return {UUID(json.loads(body)["args"][0]) for body in bodies}

    def close(self) -> None:
        self.holdfast.close()
        self.redis.close()
        self.engine.dispose()


@pytest.fixture
def shop(database_url: str, redis_url: str) -> Iterator[Shop]:
    made = Shop(database_url, redis_url)
    yield made
    made.close()


@pytest.mark.parametrize("asked", [{"debounceseconds": 600, "debouncekey": "7"}, {"debounce": Debounce(600, key="7")}])
def test_what_an_application_records_replaces_what_waits_with_its_commit(shop: Shop, asked: dict[str, Any]) -> None:
    stale = ORDER | asked
    with shop.sessions.begin() as session:
        first = shop.holdfast.record(session, stale).event_id
    with shop.sessions() as session:
        shop.holdfast.record(session, stale)
        session.rollback()
    assert [(row.id, row.state) for row in shop.events()] == [(first, "queued")]

    with shop.sessions.begin() as session:
        second = shop.holdfast.record(session, stale).event_id

    assert {row.id: row.state for row in shop.events()} == {first: "discarded", second: "queued"}
    assert shop.told() == [first, second, first]
    assert shop.rung() == set()


@pytest.mark.parametrize("asked", [{"uniqueseconds": 60}, {"unique": Unique(60)}])
def test_a_further_one_of_a_unique_key_is_a_duplicate(shop: Shop, asked: dict[str, Any]) -> None:
    with shop.sessions.begin() as session:
        first, second = (shop.holdfast.record(session, ORDER | asked) for _ in range(2))

    assert (second.is_duplicate, second.event_id) == (True, first.event_id)
    with shop.sessions() as session, pytest.raises(ValueError, match="from 1 to 2592000, such as 30; not 'soon'"):
        shop.holdfast.record(session, ORDER | {"uniqueseconds": "soon"})
    with shop.sessions() as session, pytest.raises(TypeError, match=r"debounce is a Debounce, .*; not 30"):
        shop.holdfast.record(session, ORDER | {"debounce": 30})


def test_an_order_and_its_event_are_committed_together_and_told_then(shop: Shop) -> None:
    with shop.sessions() as session:
        event_id = shop.order(session)
        assert (shop.told(), shop.rung(), shop.events()) == ([], set(), []), "nobody knows before the commit"
        session.commit()

    [row] = shop.events()
    assert (row.id, row.tenant, row.type, row.source, row.state) == (
        event_id, "acme", "order.placed", "/shop", "queued",
    )  # fmt: skip
    assert (json.loads(bytes(row.data_bytes)), row.datacontenttype) == ({"order": 7}, "application/json")
    assert (shop.orders(), shop.told(), shop.rung()) == (1, [event_id], {event_id})


def test_what_is_rolled_back_leaves_neither(shop: Shop) -> None:
    with shop.sessions() as session:
        shop.order(session)
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()

    assert (shop.orders(), shop.events(), shop.told(), shop.rung()) == (0, [], [], set())


def test_a_savepoint_takes_its_own_along_and_no_other(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        first = shop.order(session)
        kept = session.begin_nested()
        second = shop.order(session)
        undone = session.begin_nested()
        shop.order(session)
        with session.begin_nested():
            shop.order(session)
        undone.rollback()
        kept.commit()
        assert shop.told() == [], "a savepoint is no commit"

    assert (shop.told(), shop.rung(), shop.orders()) == ([first, second], {first, second}, 2)


def test_a_session_that_goes_on_tells_each_once(shop: Shop) -> None:
    with shop.sessions() as session:
        told = []
        for _ in range(3):
            told.append(shop.order(session))
            session.commit()

    assert shop.told() == told


def test_redis_away_keeps_nobody_from_committing(database_url: str, redis_url: str) -> None:
    shop = Shop(database_url, redis_url)
    for each in (Holdfast(tenant="acme", redis_url=f"redis://127.0.0.1:{free_port()}/0"), Holdfast(tenant="acme")):
        with shop.sessions.begin() as session:
            each.record(session, ORDER)
        each.close()

    rows = shop.events()
    assert [row.next_dispatch_at > row.available_at for row in rows] == [True, True], "redispatch finds them"
    shop.close()


def test_the_same_event_again_is_a_duplicate_and_another_one_under_its_id_is_refused(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        first = shop.holdfast.record(session, ORDER | {"id": "7"})
    with shop.sessions.begin() as session:
        again = shop.holdfast.record(session, ORDER | {"id": "7"})
    with shop.sessions() as session, pytest.raises(IdentityTaken, match=r"'/shop' has sent the id '7'"):
        shop.holdfast.record(session, ORDER | {"id": "7", "data": 8})

    assert (first.is_duplicate, again.is_duplicate, again.event_id) == (False, True, first.event_id)
    assert shop.told() == [first.event_id]


def test_an_event_for_later_is_shown_and_not_rung_for(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        event_id = shop.holdfast.record(session, ORDER | {"deliver_at": LATER, "subject": "7"}).event_id

    [row] = shop.events()
    assert (row.available_at, row.extensions, row.subject) == (LATER, {"deliverat": "2999-01-02T03:04:05Z"}, "7")
    assert (shop.told(), shop.rung()) == ([event_id], set())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"type": None}, "the attribute type is required"),
        ({"source": ""}, "the attribute source is required"),
        ({"subject": 7}, "the attribute subject must be a string"),
        ({"data": {1}}, "data of an event is what JSON can carry"),
        ({"data": b"x"}, "data of an event is what JSON can carry"),
        ({"deliver_at": "tomorrow"}, "deliver_at is a datetime"),
        ({"deliver_at": datetime(2999, 1, 1)}, "with a time zone"),  # noqa: DTZ001
        ({"deliverAt": LATER}, "an extension attribute's name"),
    ],
)
def test_what_is_no_event_is_refused_and_names_what_is_wrong(shop: Shop, wrong: dict[str, Any], told: str) -> None:
    with shop.sessions() as session, pytest.raises(ValueError, match=told):
        shop.holdfast.record(session, ORDER | wrong)

    assert shop.events() == []


@pytest.mark.parametrize("tenant", ["", "a:b", "x" * 64])
def test_a_tenant_is_one_that_a_key_can_have(tenant: str) -> None:
    with pytest.raises(InvalidName, match="1 to 63"):
        Holdfast(tenant=tenant)
