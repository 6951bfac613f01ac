"""The processor alone: events are recorded and rung for while it is held, then it is let go."""

import time
from collections.abc import Callable
from dataclasses import replace

from bench.limits import clear
from holdfast.domain.event import Doorbell, NewEvent, canonical_json
from holdfast.domain.trace import Origin
from holdfast.local.stack import Stack
from holdfast.messaging.brokers import open_bell
from holdfast.runtime.ids import uuid7
from holdfast.storage import events
from holdfast.storage.database import Database

__all__ = ["count_of", "measure", "record"]

BATCH = 500
PATIENCE_SECONDS = 120


def measure(stack: Stack, *, events: int, kind: str = "bench.processing") -> float:
    """Events a second from the first claim to the last settled event, of a type of ``bench.handlers``.

    Raises:
        RuntimeError: not all were processed in time.
    """
    stack.hold("processor")
    record(stack, events, kind)
    stack.resume("processor")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while count_of(stack, "processed") < events:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count_of(stack, 'processed')} of {events} events processed in {PATIENCE_SECONDS} s")
        time.sleep(0.05)
    took = stack.postgres.execute(
        "SELECT extract(epoch FROM max(at) FILTER (WHERE state = 'processed') - min(at) FILTER (WHERE state = 'processing'))"
        " FROM event_update",
        database="holdfast",
    )
    clear(stack)
    return events / float(took)


def record(stack: Stack, count: int, kind: str, *, origin: Callable[[], Origin] = Origin) -> None:
    """Record events and ring for them; ``origin`` makes what each came from."""
    database = Database(stack.database_url, application_name="bench", pool_size=1)
    bell = open_bell(stack.redis.url(0), timeout_seconds=5, is_consumer=False)
    for start in range(0, count, BATCH):
        batch = [replace(_event(kind), origin=origin()) for _ in range(min(BATCH, count - start))]
        with database.transaction() as session:
            recorded = events.record(session, batch, grace_seconds=3600)
        bell.ring([Doorbell(each.update.event_id, each.update.version) for each in recorded])
    database.close()


def _event(kind: str) -> NewEvent:
    identifier = uuid7()
    return NewEvent(
        id=identifier, tenant="demo", source="/bench", ce_id=str(identifier), type=kind,
        audience="bench", data_json=canonical_json({"text": "x" * 400}),
    )  # fmt: skip


def count_of(stack: Stack, state: str) -> int:
    """Events in this state."""
    statement = f"SELECT count(*) FROM processing_state WHERE state = '{state}'"  # noqa: S608
    return int(stack.postgres.execute(statement, database="holdfast"))
