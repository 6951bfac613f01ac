"""Who goes first on real processors: tenants in turn, and urgent events before a backlog; with Redis and without."""

import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from holdfast.domain.event import Doorbell, NewEvent, canonical_json
from holdfast.local.fixtures import Eventually
from holdfast.messaging.brokers import open_bell
from holdfast.runtime.ids import uuid7
from holdfast.storage import events

Start = Callable[..., Any]

RUN = "CREATE TABLE run (event_id uuid, type text, attempt int, pid int, began timestamptz, ended timestamptz)"

SECONDS = 0.2
BACKLOG = 10_000
LARGE_BACKLOG = 100_000
AT_ONCE = 10_000
"""Recorded in one transaction."""

FLOW = {"HANDLERS": "flow_handlers:handlers", "PROCESSOR_THREADS": "2"}


def record(stored: Any, type_: str, data: Any, *, tenant: str, count: int = 1, **extensions: Any) -> list[Doorbell]:
    """New events, and the doorbells that ingest would ring for them."""
    new = [
        NewEvent(
            id=uuid7(), tenant=tenant, source="/test", ce_id=uuid4().hex, type=type_, data_json=canonical_json(data),
            extensions=extensions,
        )
        for _ in range(count)
    ]  # fmt: skip
    doorbells: list[Doorbell] = []
    for part in range(0, count, AT_ONCE):
        with stored.database.transaction() as session:
            recorded = events.record(session, new[part : part + AT_ONCE], grace_seconds=3600)
        doorbells += [each.doorbell for each in recorded]
    return doorbells


def waited(stored: Any, event_id: UUID) -> float:
    return float(
        stored.scalar(
            f"SELECT extract(epoch FROM r.began - e.received_at) FROM run r JOIN event e ON e.id = r.event_id"  # noqa: S608
            f" WHERE e.id = '{event_id}'"
        )
    )


@pytest.fixture
def backlog() -> int:
    """How many slow events tenant a has."""
    return BACKLOG


@pytest.fixture
def busy(stored: Any, backlog: int) -> list[Doorbell]:
    """Tenant a has a backlog of slow events."""
    stored.run(RUN)
    return record(stored, "flow.slow", SECONDS, tenant="a", count=backlog)


@pytest.mark.parametrize("has_redis", [True, False])
def test_one_event_of_a_tenant_waits_for_one_handler_of_another_at_most(
    start: Start, stored: Any, busy: list[Doorbell], redis_url: str, closed_url: str, eventually: Eventually,
    has_redis: bool,
) -> None:  # fmt: skip
    url = redis_url if has_redis else closed_url
    bell = open_bell(redis_url, timeout_seconds=5, is_consumer=False)
    if has_redis:
        bell.ring(busy)
    start(BROKER_URL=url, REDIS_URL=url, **FLOW)
    eventually(lambda: stored.scalar("SELECT count(*) FROM run") > 10)

    ones = []
    for _ in range(3):
        [one] = record(stored, "flow.slow", 0, tenant="b")
        if has_redis:
            bell.ring([one])
        eventually(lambda one=one: stored.state(one.event_id) == "processed", timeout_seconds=20)  # type: ignore[misc]
        ones.append(one)
    bell.close()

    waits = sorted(waited(stored, one.event_id) for one in ones)
    assert waits[0] <= SECONDS + 1, "one handler's time and a second"
    assert waits[-1] <= SECONDS + 3, "however busy the machine is: behind the backlog it would be minutes"
    assert stored.count("processed") < BACKLOG / 2, "while the backlog stood"


@pytest.mark.parametrize("has_redis", [True, False])
@pytest.mark.parametrize("backlog", [BACKLOG, pytest.param(LARGE_BACKLOG, marks=pytest.mark.soak)])
def test_an_urgent_event_beside_a_backlog_goes_as_if_alone(
    start: Start, stored: Any, busy: list[Doorbell], redis_url: str, closed_url: str, eventually: Eventually,
    has_redis: bool, backlog: int,
) -> None:  # fmt: skip
    url = redis_url if has_redis else closed_url
    bell = open_bell(redis_url, timeout_seconds=5, is_consumer=False)
    if has_redis:
        bell.ring(busy)
    start(BROKER_URL=url, REDIS_URL=url, **FLOW)
    eventually(lambda: stored.scalar("SELECT count(*) FROM run") > 10)

    waits = []
    for _ in range(3):
        [one] = record(stored, "flow.slow", 0, tenant="a", priority=9)
        if has_redis:
            bell.ring([one])
        eventually(lambda one=one: stored.state(one.event_id) == "processed", timeout_seconds=20)  # type: ignore[misc]
        assert stored.row(one.event_id).priority == 9
        waits.append(waited(stored, one.event_id))
    bell.close()
    if backlog == LARGE_BACKLOG:
        told = ", ".join(f"{each:.2f}" for each in waits)
        print(f"\nbeside {backlog} events, Redis {has_redis}: begun after {told} s", file=sys.stderr)  # noqa: T201

    assert max(waits) <= SECONDS + 3, waits
    assert stored.count("processed") < backlog / 2


def test_the_priority_of_a_handler_is_that_of_its_events(start: Start, stored: Any, eventually: Eventually) -> None:
    stored.run(RUN)
    start(**FLOW)
    eventually(lambda: stored.scalar("SELECT count(*) FROM handler_route") == 2)

    # A process goes by what it has read for some seconds.
    eventually(lambda: record(stored, "flow.urgent", None, tenant="a")[0].priority == 9)

    assert stored.scalar("SELECT max(priority) FROM processing_state") == 9
    [named] = record(stored, "flow.urgent", None, tenant="a", priority=1)
    assert stored.row(named.event_id).priority == 1, "an event's own word counts for more"


def test_threads_are_kept_for_urgent_events(start: Start, stored: Any, redis_url: str, eventually: Eventually) -> None:
    stored.run(RUN)
    start(HANDLERS="flow_handlers:handlers", PROCESSOR_THREADS="2", RESERVED_THREADS="1", RESERVED_PRIORITY="9")
    bell = open_bell(redis_url, timeout_seconds=5, is_consumer=False)
    bell.ring(record(stored, "flow.slow", 60, tenant="a", count=5))
    eventually(lambda: stored.scalar("SELECT count(*) FROM run") == 1)

    usual, urgent = (record(stored, "flow.slow", 0, tenant="b", priority=each)[0] for each in (8, 9))
    bell.ring([usual, urgent])
    bell.close()

    eventually(lambda: stored.state(urgent.event_id) == "processed", timeout_seconds=10)
    assert waited(stored, urgent.event_id) < 5
    assert stored.state(usual.event_id) == "queued", "it waits for the thread that the slow one has"
    assert stored.scalar("SELECT count(*) FROM run") == 2


def test_not_all_threads_can_be_kept_for_urgent_events(launch: Start) -> None:
    worker = launch(PROCESSOR_THREADS="2", RESERVED_THREADS="2")

    assert worker.process.wait(30) == 78
    assert "HOLDFAST_RESERVED_THREADS=2 leaves none of the 2 threads" in worker.log.read_text()
