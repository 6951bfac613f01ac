"""Testing handlers with nothing but PostgreSQL.

::

    def test_charges_once(session):
        done = run(charge, OrderPlaced(order_id="1", amount_cents=4200), session=session)
        assert done.result == {"charged": 4200}
        assert done.progress == [(0.1, "charging")]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from holdfast.domain.event import StoredEvent
from holdfast.processor.attempt.effects import guarded
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.declaration import payload_of
from holdfast.runtime import logging
from holdfast.runtime.ids import utc_now, uuid7
from holdfast.storage import Session
from holdfast.storage.contents import table_contents

__all__ = ["Run", "assert_idempotent", "run"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a handler did. ``progress`` has ``(fraction, message)`` of each report."""

    result: Any
    progress: list[tuple[float, str | None]]


def run(
    function: Callable[..., Any],
    payload: Any,
    *,
    session: Session,
    attempt: int = 1,
    event_id: UUID | None = None,
    name: str = "handler-under-test",
    transactional: bool = True,
    **attributes: Any,
) -> Run:
    """Call a handler as an attempt would, in the transaction of ``session``, which stays open. What it raises is passed on.

    ``payload`` is the model, or data as a producer would send it, which is checked against the model. ``attributes`` are
    the event's (``type``, ``source``, ``subject``, ``audience``, ``time``, …). Every report of progress is returned, those
    too that would follow one another too fast to be told. ``transactional=False`` for handlers that are declared so.

    Raises:
        pydantic.ValidationError: the data does not fit the model; the event would be dead (``invalid_data``).
        holdfast.processor.handlers.outcomes.InvalidResult: the result could not be stored; the event would be dead.
    """
    progress: list[tuple[float, str | None]] = []
    event = _event(payload, event_id or uuid7(), attributes)
    argument = payload_of(function).validate_python(event.data)
    with guarded(session):
        context = Context(
            event=event, handler=name, attempt=attempt, session=session if transactional else None,
            log=logging.get(function.__module__),
            report=lambda fraction, message: progress.append((fraction, message)),
        )  # fmt: skip
        result = function(argument, context)
    session.expire_all()  # objects that the test has loaded: statements may have changed their rows
    return Run(checked_result(result), progress)


def assert_idempotent(function: Callable[..., Any], payload: Any, *, session: Session, **attributes: Any) -> Run:
    """Run a handler twice for one event and compare the whole database; returns the first run.

    For handlers whose effects leave the transaction, or whose rows are also written from elsewhere. Handlers that only use
    ``ctx.session`` need not pass: Holdfast applies their effects once.

    Raises:
        AssertionError: the second run changed a table; the message names it.
    """
    event_id = uuid7()
    first = run(function, payload, session=session, event_id=event_id, **attributes)
    before = table_contents(session)
    run(function, payload, session=session, event_id=event_id, attempt=2, **attributes)
    after = table_contents(session)
    changed = sorted(table for table in before.keys() | after.keys() if before.get(table) != after.get(table))
    if changed:
        raise AssertionError(f"the second run changed {', '.join(changed)}")
    return first


def _event(payload: Any, event_id: UUID, attributes: dict[str, Any]) -> StoredEvent:
    defaults: dict[str, Any] = {
        "tenant": "test", "source": "/test", "ce_id": str(event_id), "type": "test", "subject": None, "time": None,
        "audience": None, "datacontenttype": "application/json", "dataschema": None, "extensions": {},
        "traceparent": None, "received_at": utc_now(),
    }  # fmt: skip
    data = payload.model_dump(mode="json", by_alias=True) if isinstance(payload, BaseModel) else payload
    return StoredEvent(**(defaults | attributes | {"id": event_id, "data": data}))
