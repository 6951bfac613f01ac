"""Events that handlers make: they exist exactly if the event of their handler is processed."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import text

from holdfast.domain.data import MAX_DATA_BYTES
from holdfast.domain.event import Doorbell, Lease
from holdfast.messaging.doorbell import QUEUE
from holdfast.processor import BatchContext, Context, Handlers
from holdfast.processor.handlers.emitting import MAX_EMITTED, MAX_EMITTED_BYTES
from holdfast.processor.testing import attempt, run

MakeExecutor = Callable[..., Any]

LATER = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)

CHILDREN = """
SELECT e.*, s.state, s.version, s.available_at, convert_from(e.data_bytes, 'UTF8') AS told
FROM event e JOIN processing_state s ON s.event_id = e.id WHERE e.parent_id = :id ORDER BY e.ce_id
"""


class Receipt(BaseModel):
    order: str = Field(alias="orderId")


def with_session(data: Any, ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})
    emit_two(data, ctx)


def emit_two(data: Any, ctx: Context) -> None:
    ctx.emit("receipt.requested", Receipt(orderId="7"), subject="order-7", audience="user-1")
    ctx.emit("stock.lowered", {"by": 1}, deliver_at=LATER, traced=True)
    if data == "fail":
        raise RuntimeError("after emitting")


def emit_for_all(data: list[Any], ctx: BatchContext) -> None:
    for each, item in zip(data, ctx.items, strict=True):
        item.emit("stock.lowered", {"by": each})
        item.emit("receipt.requested", None)
        if each == "fail":
            ctx.fail(ctx.items.index(item), RuntimeError("after emitting"))


WAYS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "session": (with_session, {}),
    "no session": (emit_two, {}),
    "outside": (emit_two, {"transactional": False}),
    "batch": (with_session, {"batch": 10}),
    "list": (emit_for_all, {"batch": 10}),
}
"""How a handler may be declared, each settled in another way."""


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="maker", **options)(function)
    return handlers


def bodies(live: Any) -> dict[UUID, int]:
    """Versions of the doorbells that were rung, by event."""
    rung = [json.loads(body)["args"] for body in live.client.hvals(f"dramatiq:{QUEUE}.msgs")]
    return {UUID(event_id): version for event_id, version, *_ in rung}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Handlers:
    function, options = WAYS[request.param]
    return handling(function, **options)


@pytest.fixture
def group(stored: Any, executor: MakeExecutor) -> Callable[..., list[Lease]]:
    """Claim events with these data together and run them, in one group where their handler is declared so."""

    def run_all(handlers: Handlers, *data: Any, lost: int | None = None) -> list[Lease]:
        event_ids = [stored.record("test.done", each) for each in data]
        made = executor(handlers)
        leases = {lease.event.id: lease for lease in made.claim([Doorbell(each, 1) for each in event_ids])}
        if lost is not None:
            gone = "UPDATE processing_state SET lease_token = gen_random_uuid(), lease_owner = 'other' WHERE event_id ="
            stored.run(f"{gone} '{event_ids[lost]}'")
        for each in made.groups([leases[event_id] for event_id in event_ids]):
            made.run_together(each)
        return [leases[event_id] for event_id in event_ids]

    return run_all


def test_what_is_emitted_is_there_once_its_event_is_processed(
    stored: Any, live: Any, group: Any, way: Handlers
) -> None:
    leases = group(way, 1, 2)

    for lease in leases:
        assert stored.state(lease.event.id) == "processed"
        children = stored.rows(CHILDREN, lease.event.id)
        assert [each.ce_id for each in children] == [f"{lease.event.id}:0", f"{lease.event.id}:1"]
        assert {each.source for each in children} == {"/handlers/maker"}
        assert {each.tenant for each in children} == {lease.event.tenant}
        assert {(each.state, each.version) for each in children} == {("queued", 1)}
        for each in children:
            assert live.told(each.id) == [("queued", 1, 0)], "clients see it"
            assert bodies(live).get(each.id) == (1 if each.available_at < LATER else None), "rung for what is due"


def test_an_attempt_that_fails_makes_nothing_and_its_neighbours_do(stored: Any, group: Any, way: Handlers) -> None:
    failed, done = group(way, "fail", 1)

    assert (stored.state(failed.event.id), stored.rows(CHILDREN, failed.event.id)) == ("failed", [])
    assert (stored.state(done.event.id), len(stored.rows(CHILDREN, done.event.id))) == ("processed", 2)


def test_an_attempt_whose_lease_is_lost_makes_nothing(stored: Any, group: Any, way: Handlers) -> None:
    lost, done = group(way, 1, 2, lost=0)

    assert stored.rows(CHILDREN, lost.event.id) == []
    assert len(stored.rows(CHILDREN, done.event.id)) == 2


def test_what_an_attempt_makes_is_made_once_however_many_attempts_there_are(
    stored: Any, executor: MakeExecutor
) -> None:
    event_id = stored.record("test.done", "fail")
    executor(handling(emit_two)).execute(event_id, 1)
    stored.make_due()
    executor(handling(lambda data, ctx: emit_two(None, ctx))).execute(event_id, 3)  # noqa: ARG005

    assert (stored.row(event_id).attempt, len(stored.rows(CHILDREN, event_id))) == (2, 2)


def test_an_emitted_event_has_what_was_said_of_it(stored: Any, executor: MakeExecutor) -> None:
    event_id = stored.record("test.done")

    executor(handling(emit_two)).execute(event_id, 1)

    receipt, stock = stored.rows(CHILDREN, event_id)
    assert (receipt.type, receipt.subject, receipt.audience) == ("receipt.requested", "order-7", "user-1")
    assert (json.loads(receipt.told), receipt.datacontenttype, receipt.is_json) == (
        {"orderId": "7"}, "application/json", True,
    )  # fmt: skip
    assert (stock.available_at, stock.extensions) == (LATER, {"deliverat": "2999-01-02T03:04:05Z", "traced": True})


def test_a_key_makes_one_event_whichever_event_makes_it(stored: Any, live: Any, group: Any, way: Handlers) -> None:
    del way

    def close_day(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit("day.closed", {"day": 1}, key="2026-11-24")

    first, second = group(handling(close_day), 1, 2)

    made = stored.rows(CHILDREN, first.event.id) + stored.rows(CHILDREN, second.event.id)
    assert [each.ce_id for each in made] == ["2026-11-24"]
    assert live.told(made[0].id) == [("queued", 1, 0)]
    assert {stored.state(lease.event.id) for lease in (first, second)} == {"processed"}


@pytest.mark.parametrize("options", [{}, {"batch": 10}])
def test_a_key_of_another_event_fails_the_attempt_and_says_which(
    stored: Any, group: Any, options: dict[str, Any]
) -> None:
    def close_day(data: Any, ctx: Context) -> None:
        ctx.emit("day.closed", data, key="2026-11-24")

    first, second, third = group(handling(close_day, **options), 1, 2, 1)

    assert [stored.state(each.event.id) for each in (first, second, third)] == ["processed", "failed", "processed"]
    error = stored.error(second.event.id)
    assert error.error_type == "IdentityTaken"
    assert "'/handlers/maker'" in error.message
    assert "'2026-11-24'" in error.message


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        (("",), {}, "the attribute type is required"),
        ((7,), {}, "the attribute type must be a string"),
        (("a.b", {1, 2}), {}, "data of an event is what JSON can carry"),
        (("a.b", float("nan")), {}, "data of an event is what JSON can carry"),
        (("a.b", "\ud800"), {}, "data of an event is what JSON can carry"),
        (("a.b", b"bytes"), {}, "data of an event is what JSON can carry"),
        (("a.b", "x" * MAX_DATA_BYTES), {}, "at most 262144 bytes"),
        (("a.b",), {"subject": "a\nb"}, "the attribute subject has control characters"),
        (("a.b",), {"audience": "*"}, "audience becomes the topic"),
        (("a.b",), {"key": ""}, "the attribute id is required"),
        (("a.b",), {"key": "k" * 1025}, "the attribute id has at most 1024 bytes"),
        (("a.b",), {"deliver_at": datetime(2999, 1, 1)}, "with a time zone"),  # noqa: DTZ001
        (("a.b",), {"source": "/mine"}, "'source'"),
        (("a.b",), {"Bad": 1}, "an extension attribute's name"),
    ],
)
def test_what_is_no_event_is_refused_where_it_is_made(
    arguments: tuple[Any, ...], options: dict[str, Any], told: str
) -> None:
    def wrong(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit(*arguments, **options)

    handler = handling(wrong, transactional=False).find("test.done")

    with pytest.raises((TypeError, ValueError), match=re.escape(told)):
        run(handler, None)


def test_an_attempt_emits_so_many_and_no_more() -> None:
    def many(count: int, ctx: Context) -> None:
        for _ in range(count):
            ctx.emit("a.b")

    def large(count: int, ctx: Context) -> None:
        for _ in range(count):
            ctx.emit("a.b", "x" * (MAX_DATA_BYTES - 2))

    ways = [handling(each, transactional=False).find("test.done") for each in (many, large)]
    fit = MAX_EMITTED_BYTES // MAX_DATA_BYTES
    assert [len(run(each, count).emitted) for each, count in zip(ways, (MAX_EMITTED, fit), strict=True)] == [1000, fit]
    for each, count, told in zip(ways, (MAX_EMITTED + 1, fit + 1), ("1000 events", "4194304 bytes"), strict=True):
        with pytest.raises(ValueError, match=told):
            run(each, count)


def test_nothing_is_emitted_once_the_handler_has_returned() -> None:
    kept: list[Context] = []

    def keep(data: Any, ctx: Context) -> None:  # noqa: ARG001
        kept.append(ctx)

    run(handling(keep, transactional=False).find("test.done"), None)

    with pytest.raises(RuntimeError, match="the attempt is over"):
        kept[0].emit("a.b")


def test_a_forked_process_emits_nothing() -> None:
    def fork(data: Any, ctx: Context) -> int:  # noqa: ARG001
        pid = os.fork()
        if pid == 0:
            try:
                ctx.emit("a.b")
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    done = run(handling(fork, transactional=False).find("test.done"), None)

    assert (done.result, done.emitted) == (7, [])


def test_authors_see_what_their_handler_emits() -> None:
    handler = handling(emit_two, transactional=False).find("test.done")

    done, failed = attempt(handler, None), attempt(handler, "fail")

    receipt, stock = done.emitted
    assert (receipt.type, receipt.data, receipt.subject, receipt.key) == (
        "receipt.requested", {"orderId": "7"}, "order-7", None,
    )  # fmt: skip
    assert (stock.data, stock.deliver_at, stock.extensions) == ({"by": 1}, LATER, {"traced": True})
    assert (failed.state, failed.emitted) == ("failed", [])
