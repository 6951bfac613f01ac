"""Testing handlers with nothing but PostgreSQL.

::

    def test_charges_once(session):
        done = run(charge, OrderPlaced(order_id="1", amount_cents=4200), session=session)
        assert done.result == {"charged": 4200}
        assert_idempotent(charge, OrderPlaced(order_id="1", amount_cents=4200), session=session)
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from holdfast.domain.event import StoredEvent
from holdfast.processor.context import Context
from holdfast.runtime import logging
from holdfast.runtime.ids import utc_now, uuid7
from holdfast.storage import Session
from holdfast.storage.contents import table_contents

__all__ = ["Run", "assert_idempotent", "run"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a handler did. ``progress`` has ``(fraction, message)`` of each report."""

    result: Any
    progress: list[tuple[float, str | None]] = field(default_factory=list)


def run(
    function: Callable[..., Any],
    payload: Any,
    *,
    session: Session,
    attempt: int = 1,
    event_id: UUID | None = None,
    name: str = "handler-under-test",
    **attributes: Any,
) -> Run:
    """Call a handler as an attempt would, in the caller's transaction. What it raises is passed on.

    ``attributes`` are the event's (``type``, ``source``, ``subject``, ``audience``, ``time``, …).
    """
    progress: list[tuple[float, str | None]] = []
    context = Context(
        event=_event(payload, event_id or uuid7(), attributes),
        handler=name,
        attempt=attempt,
        session=session,
        log=logging.get(function.__module__),
        report=lambda _, fraction, message: progress.append((fraction, message)),
    )
    result = function(payload, context)
    session.flush()
    return Run(result, progress)


def assert_idempotent(function: Callable[..., Any], payload: Any, *, session: Session, **attributes: Any) -> Run:
    """Run a handler twice for one event and compare the whole database.

    For handlers whose effects leave the transaction, or whose types are also fed from elsewhere. Handlers that only use
    ``ctx.session`` need not pass: Holdfast applies their effects once.

    Raises:
        AssertionError: the second run changed a table; the message names it.
    """
    event_id = uuid7()
    first = run(function, payload, session=session, event_id=event_id, **attributes)
    before = table_contents(session)
    run(function, payload, session=session, event_id=event_id, attempt=2, **attributes)
    after = table_contents(session)
    changed = sorted(table for table in before if before[table] != after[table])
    if changed:
        raise AssertionError(f"the second run changed {', '.join(changed)}")
    return first


def _event(payload: Any, event_id: UUID, attributes: dict[str, Any]) -> StoredEvent:
    data = TypeAdapter(type(payload)).dump_python(payload, mode="json") if isinstance(payload, BaseModel) else payload
    defaults: dict[str, Any] = {
        "tenant": "test", "source": "/test", "ce_id": str(event_id), "type": "test", "subject": None, "time": None,
        "audience": None, "datacontenttype": "application/json", "dataschema": None, "extensions": {},
        "traceparent": None, "received_at": utc_now(),
    }  # fmt: skip
    return StoredEvent(**(defaults | attributes | {"id": event_id, "data": data}))
