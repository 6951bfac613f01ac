"""What is paused is not begun, on any processor and over restarts, and goes on when it is resumed."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.event import Doorbell
from holdfast.domain.pauses import Paused, PauseKind
from holdfast.local.fixtures import Eventually
from holdfast.processor import Context, Handlers
from holdfast.storage import aside, pauses, waiting
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database

Start = Callable[..., Any]
Stop = Callable[..., Paused]

ACTOR = Actor(tenant="acme", key_id="k", name="ann")

RUN = "CREATE TABLE run (event_id uuid, type text, attempt int, pid int, began timestamptz, ended timestamptz)"


@pytest.fixture
def stop(database: Database) -> Stop:
    """Pause something."""

    def pause(kind: PauseKind, name: str) -> Paused:
        made, _ = database.call(pauses.pause, ACTOR, kind, name, note_text="too many")
        return made

    return pause


@pytest.fixture
def handlers() -> Handlers:
    made = Handlers()

    @made.on("test.one", name="one", pool="gpu")
    def one(data: Any, ctx: Context) -> None: ...

    @made.on("test.other", name="other")
    def other(data: Any, ctx: Context) -> None: ...

    return made


def claim(executor: Any, *event_ids: UUID) -> set[UUID]:
    return {lease.event.id for lease in executor.claim([Doorbell(each, 1) for each in event_ids])}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(PauseKind.HANDLER, "one"), (PauseKind.TYPE, "test.one"), (PauseKind.POOL, "gpu")],
)
def test_what_is_paused_waits_and_other_events_go_on(
    executor: Callable[..., Any], handlers: Handlers, stored: Any, stop: Stop, kind: PauseKind, name: str
) -> None:
    made = executor(handlers, pools=("", "gpu"))
    before = stored.record("test.other")
    assert claim(made, before) == {before}, "the pauses are read with the first claim"
    one, other = stored.record("test.one"), stored.record("test.other")
    paused = stop(kind, name)

    assert claim(made, one, other) == {other}

    assert stored.row(one).waits_in == paused.line
    why = stored.database.call(waiting.why, one)
    assert why.reason == "paused"
    assert why.summary.startswith(f"{kind} {name} is paused by ann since 20")
    assert made.claim_due(10, is_suspect=False, overdue_seconds=0) == []
    stored.database.call(pauses.resume, ACTOR, paused.id)
    assert [lease.event.id for lease in made.claim_due(10, is_suspect=False, overdue_seconds=0)] == [one]


def test_a_paused_tenant_waits_alone(executor: Callable[..., Any], handlers: Handlers, stored: Any, stop: Stop) -> None:
    made = executor(handlers, pools=("", "gpu"))
    stop(PauseKind.TENANT, "acme")
    mine = [stored.record("test.other") for _ in range(3)]

    assert claim(made, *mine) == set()
    assert {stored.row(each).state for each in mine} == {"queued"}
    assert len(stored.database.call(aside.lines, limit=10)) == 1


def test_a_pause_is_told_once_and_written_down(database: Database, stop: Stop) -> None:
    first, again = stop(PauseKind.HANDLER, "one"), stop(PauseKind.HANDLER, "one")

    assert first.id == again.id
    assert [each.paused_by for each in database.call(pauses.list_pauses, "acme")] == ["ann"]
    database.call(pauses.resume, ACTOR, first.id)
    assert database.call(pauses.resume, ACTOR, first.id) is None
    with database.transaction() as session:
        entries = session.execute(text("SELECT action, detail FROM audit_log ORDER BY id")).all()
    assert [(each.action, each.detail["name"]) for each in entries] == [("pause", "one"), ("resume", "one")]


def test_another_tenants_pause_cannot_be_resumed(database: Database, stop: Stop) -> None:
    paused = stop(PauseKind.TYPE, "test.one")
    stranger = Actor(tenant="other", key_id="k", name="eve")

    assert database.call(pauses.resume, stranger, paused.id) is None
    assert database.call(pauses.list_pauses, "other") == []


def test_a_pause_holds_over_a_restart_and_ends_within_a_second_or_two(
    start: Start, stored: Any, stop: Stop, live: Any, database: Database, eventually: Eventually
) -> None:
    stored.run(RUN)
    flow = {"HANDLERS": "flow_handlers:handlers"}
    worker = start(**flow)
    before = stored.record("flow.slow", 0)
    live.ring((before, 1))
    eventually(lambda: stored.state(before) == "processed")

    paused = stop(PauseKind.HANDLER, "slow")
    ids = [stored.record("flow.slow", 0) for _ in range(20)]
    live.ring(*((each, 1) for each in ids))
    eventually(lambda: {stored.row(each).waits_in for each in ids} == {paused.line})
    worker.kill()
    start(**flow)
    other = stored.record("flow.urgent")
    live.ring((other, 1), *((each, 1) for each in ids))
    eventually(lambda: stored.state(other) == "processed")

    assert {stored.state(each) for each in ids} == {"queued"}
    assert stored.scalar("SELECT count(*) FROM run WHERE type = 'flow.slow'") == 1

    database.call(pauses.resume, ACTOR, paused.id)
    eventually(lambda: {stored.state(each) for each in ids} == {"processed"}, timeout_seconds=15)
    assert stored.scalar("SELECT count(*) FROM run WHERE type = 'flow.slow'") == 21


def test_what_runs_when_it_is_paused_finishes(
    executor: Callable[..., Any], handlers: Handlers, stored: Any, stop: Stop
) -> None:
    made = executor(handlers, pools=("", "gpu"))
    one = stored.record("test.one")
    [lease] = made.claim([Doorbell(one, 1)])
    stop(PauseKind.HANDLER, "one")

    made.run(lease)

    assert stored.state(one) == "processed"


def test_an_event_of_another_pool_goes_there(executor: Callable[..., Any], handlers: Handlers, stored: Any) -> None:
    plain, gpu = executor(handlers, pools=("",)), executor(handlers, pools=("gpu",))
    one, other = stored.record("test.one"), stored.record("test.other")

    assert claim(plain, one, other) == {other}

    assert stored.row(one).pool == "gpu"
    assert plain.claim_due(10, is_suspect=False, overdue_seconds=0) == []
    assert [lease.event.id for lease in gpu.claim_due(10, is_suspect=False, overdue_seconds=0)] == [one]


def test_a_processor_of_a_pool_takes_its_events_and_no_others(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    stored.run(RUN)
    start(HANDLERS="flow_handlers:handlers", POOL="default")
    gpu, plain = stored.record("flow.gpu"), stored.record("flow.slow", 0)
    live.ring((gpu, 1), (plain, 1))
    eventually(lambda: stored.state(plain) == "processed")
    eventually(lambda: stored.row(gpu).pool == "gpu")
    assert stored.state(gpu) == "queued"

    start(HANDLERS="flow_handlers:handlers", POOL="gpu")

    eventually(lambda: stored.state(gpu) == "processed")
