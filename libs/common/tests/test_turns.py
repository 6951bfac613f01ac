"""Whose turn it is: tenants by their weights, priorities by age, in a search and on a queue of doorbells."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from holdfast.domain.event import Doorbell, NewEvent
from holdfast.domain.turns import AGEING_SECONDS, Turns, aged
from holdfast.messaging.broker import DoorbellBroker, redis_broker
from holdfast.messaging.doorbell import PRIORITY_TURNS, QUEUE
from holdfast.messaging.redis_bell import RedisBell
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, candidates, claims, events, routing
from holdfast.storage.database import Database

NOW = datetime(2026, 11, 29, tzinfo=UTC)

Make = Callable[..., UUID]


def tenant_of(item: tuple[str, int]) -> str:
    return item[0]


def test_tenants_take_turns_however_much_one_of_them_has() -> None:
    turns = Turns()
    items = [("a", number) for number in range(100)] + [("b", 0)]

    first = turns.choose(items, 2, tenant=tenant_of, weights={})

    assert sorted(first) == [("a", 0), ("b", 0)]


def test_turns_are_remembered_from_one_search_to_the_next() -> None:
    turns, backlog = Turns(), {"a": list(range(50)), "b": list(range(50))}
    taken: list[str] = []

    for _ in range(20):
        items = [(name, number) for name, left in backlog.items() for number in left]
        [(name, number)] = turns.choose(items, 1, tenant=tenant_of, weights={})
        backlog[name].remove(number)
        taken.append(name)

    assert Counter(taken) == {"a": 10, "b": 10}


def test_who_had_nothing_to_do_does_not_save_turns_up() -> None:
    turns = Turns()
    turns.choose([("a", number) for number in range(1000)], 1000, tenant=tenant_of, weights={})

    chosen = turns.choose(
        [("a", number) for number in range(10)] + [("b", number) for number in range(10)],
        10,
        tenant=tenant_of,
        weights={},
    )

    assert Counter(name for name, _ in chosen) == {"a": 5, "b": 5}


@given(
    weights=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 10), min_size=2),
    rounds=st.integers(1, 30),
    width=st.integers(1, 7),
)
@settings(max_examples=200, deadline=None)
def test_shares_are_as_the_weights_up_to_one_turn(weights: dict[str, int], rounds: int, width: int) -> None:
    turns, taken = Turns(), Counter[str]()
    items = [(name, number) for name in weights for number in range(400)]

    for _ in range(rounds):
        taken.update(name for name, _ in turns.choose(items, width, tenant=tenant_of, weights=weights))

    for one in weights:
        for other in weights:
            # Both always have something to do: their normalised services differ by no more than one turn of each.
            difference = taken[one] / weights[one] - taken[other] / weights[other]
            assert abs(difference) <= 1 / weights[one] + 1 / weights[other] + 1e-9


def test_a_refused_one_costs_its_tenant_no_turn() -> None:
    turns = Turns()
    items = [("a", 0), ("a", 1), ("b", 0)]

    chosen = turns.choose(items, 2, tenant=tenant_of, weights={}, may_run=lambda item: item != ("a", 0))

    assert chosen == [("a", 1), ("b", 0)]


def test_a_step_of_priority_is_worth_ten_minutes() -> None:
    urgent, old = aged(NOW, 9), aged(NOW - timedelta(seconds=4 * AGEING_SECONDS + 1), 5)

    assert old < urgent < aged(NOW, 5)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=4)
    yield made
    made.close()


@pytest.fixture
def make(database: Database) -> Make:
    def make_one(tenant: str, *, type_: str = "turn", **extensions: Any) -> UUID:
        event = NewEvent(
            id=uuid7(), tenant=tenant, source="/s", ce_id=uuid4().hex, type=type_, data_json="{}", extensions=extensions
        )
        with database.transaction() as session:
            events.record(session, [event], grace_seconds=60)
        return event.id

    return make_one


def due(session: Session, limit: int, **options: Any) -> list[UUID]:
    return [
        lease.event.id for lease, _ in claims.claim_due(session, owner="w", lease_seconds=30, limit=limit, **options)
    ]


def test_a_search_meets_the_oldest_of_every_tenant_and_priority(database: Database, make: Make) -> None:
    flood = [make("a") for _ in range(50)]
    one, urgent = make("b"), make("a", priority=9)

    with database.transaction() as session:
        found, _ = candidates.due(session, candidates.kinds_of(session, [""]), 0.0, 6)
    met = {each.event_id for each in found}

    assert {one, urgent, flood[0]} <= met
    assert flood[-1] not in met


def test_a_search_begins_where_the_last_one_ended(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MOST_KINDS", 2)
    for tenant in "abcd":
        make(tenant)

    with database.transaction() as session:
        first = candidates.kinds_of(session, [""])
        rest = candidates.kinds_of(session, [""], after=first[-1].tenant)

    assert [each.tenant for each in first] == ["a", "b"]
    assert [each.tenant for each in rest] == ["b", "c"]


def test_events_of_a_pool_are_met_in_that_pool_alone(database: Database, make: Make) -> None:
    with database.transaction() as session:
        routing.declare_routes(session, [("turn.gpu", routing.PLAIN._replace(pool="gpu")), ("turn.*.x", routing.PLAIN)])
    gpu, plain = make("a", type_="turn.gpu"), make("a")

    with database.transaction() as session:
        assert due(session, 10) == [plain]
        assert due(session, 10, pools=["gpu"]) == [gpu]


def test_routes_come_and_go_with_their_handlers(database: Database) -> None:
    routes = {"turn.gpu": routing.PLAIN._replace(pool="gpu"), "turn.*": routing.PLAIN._replace(priority=7)}
    with database.transaction() as session:
        routing.declare_routes(session, routes.items())
        found = routing.routing_of(session)
        assert (found.route("turn.gpu").pool, found.route("turn.other").priority) == ("gpu", 7)
        assert found.route("other") is routing.PLAIN
        routing.declare_routes(session, [("turn.gpu", routing.PLAIN)])
        assert session.scalars(text("SELECT pattern FROM handler_route")).all() == ["turn.*"]


@pytest.fixture
def broker(redis_url: str) -> Iterator[DoorbellBroker]:
    made = redis_broker(redis_url, timeout_seconds=5, is_consumer=True)
    yield made
    made.client.close()


def heard(broker: DoorbellBroker, count: int) -> list[str]:
    """The ids of the next doorbells that a consumer takes, in their order."""
    consumer = broker.consume(QUEUE, prefetch=count, timeout=50)
    taken = []
    for _ in range(count):
        message = next(consumer)
        if message is not None:
            taken.append(message.args[0])
    consumer.close()
    return taken


def bells(count: int, **given: Any) -> list[Doorbell]:
    return [Doorbell(uuid4(), 1, **given) for _ in range(count)]


def test_the_doorbell_of_another_tenant_does_not_wait_behind_a_flood(broker: DoorbellBroker) -> None:
    flood, one = bells(500, tenant="a"), bells(1, tenant="b")
    RedisBell(broker).ring(flood)
    RedisBell(broker).ring(one)

    assert str(one[0].event_id) in heard(broker, 2)


def test_doorbells_are_heard_by_weight_and_in_their_order(broker: DoorbellBroker) -> None:
    light, heavy = bells(40, tenant="a"), bells(40, tenant="b", weight=3)
    RedisBell(broker).ring([*light, *heavy])

    first = heard(broker, 20)

    own = [str(each.event_id) for each in light]
    assert sum(each in own for each in first) == 5
    assert [each for each in first if each in own] == own[:5]


def test_priorities_go_first_and_low_ones_are_not_forgotten(broker: DoorbellBroker) -> None:
    low = bells(1, tenant="a", priority=4)
    RedisBell(broker).ring(low)
    RedisBell(broker).ring(bells(300, tenant="a"))
    urgent = bells(2, tenant="a", priority=9)
    RedisBell(broker).ring(urgent)
    RedisBell(broker).ring(bells(PRIORITY_TURNS, tenant="a"))

    order = heard(broker, 1 + 300 + 2 + PRIORITY_TURNS)

    assert set(order[:2]) == {str(each.event_id) for each in urgent}
    place = order.index(str(low[0].event_id))
    assert PRIORITY_TURNS - 10 <= place <= PRIORITY_TURNS + 10, "after a thousand turns it is its own"


def test_nothing_is_left_of_turns_once_nobody_waits(broker: DoorbellBroker) -> None:
    RedisBell(broker).ring(bells(10, tenant="a"))

    assert len(heard(broker, 20)) == 10

    assert broker.client.keys("*.shares") == []
    assert broker.client.keys("*.turns") == []
