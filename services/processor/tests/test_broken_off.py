"""Handlers that are broken off, or break off, in the middle of a statement: the connection goes with them, and PostgreSQL is
not to blame. Taken for an outage the event would be given back unjudged, and run so again for ever.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from sqlalchemy import Integer, bindparam, select, text
from sqlalchemy.types import TypeDecorator

from holdfast.domain.event import Doorbell
from holdfast.processor import Context, Handlers

MakeExecutor = Callable[..., Any]

TIMEOUT_SECONDS = 0.4


class Exits(TypeDecorator[int]):
    """A type whose values end the process, as it thinks."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, *_: Any) -> NoReturn:
        raise SystemExit(3)


def never_done(ctx: Context) -> None:
    while True:
        ctx.session.execute(text("SELECT 1"))


def exits(ctx: Context) -> None:
    ctx.session.execute(select(bindparam("value", 1, type_=Exits())))


def closes(ctx: Context) -> None:
    driver_s: Any = ctx.session.connection().connection.dbapi_connection
    driver_s.close()
    ctx.session.execute(text("SELECT 1"))


def closes_and_returns(ctx: Context) -> None:
    driver_s: Any = ctx.session.connection().connection.dbapi_connection
    driver_s.close()


WAYS = {
    "its time is up": (never_done, "timeout", "failed"),
    "it exits": (exits, "SystemExit", "failed"),
    "it closes the connection": (closes, "InterfaceError", "failed"),
    "it closes the connection and returns": (closes_and_returns, "transaction_ended", "dead"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_handler_that_is_broken_off_has_failed_and_no_other(
    stored: Any, executor: MakeExecutor, way: str, batch: int
) -> None:
    misbehave, error_type, state = WAYS[way]

    def handle(data: Any, ctx: Context) -> None:
        ctx.session.execute(text("INSERT INTO effect VALUES (:id)"), {"id": ctx.event.id})
        if data == "poison":
            misbehave(ctx)

    handlers = Handlers()
    handlers.on("test.done", name="handler", timeout=TIMEOUT_SECONDS, batch=batch)(handle)
    event_ids = [stored.record("test.done", each) for each in ("well", "poison", "well")]
    made = executor(handlers)
    leases = made.claim([Doorbell(each, 1) for each in event_ids])
    by_id = {lease.event.id: lease for lease in leases}

    made.start()  # the watch over timeouts
    try:
        for group in made.groups([by_id[each] for each in event_ids]):
            made.run_together(group)
    finally:
        made.stop()

    assert [stored.state(each) for each in event_ids] == ["processed", state, "processed"]
    assert [each.error_type for each in stored.errors(event_ids[1])] == [error_type]
    assert [stored.effects(each) for each in event_ids] == [1, 0, 1]
