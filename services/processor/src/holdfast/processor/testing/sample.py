"""Events that are made up for tests, those that a handler made, and its steps."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from holdfast.domain.attributes import DELIVER_AT
from holdfast.domain.event import Lease, NewEvent, NewGroup, StoredEvent, canonical_json
from holdfast.domain.window import WINDOW_ATTRIBUTES
from holdfast.domain.window_options import Debounce, Unique, debounce_of, unique_of
from holdfast.processor.attempt.results import checked_result
from holdfast.processor.attempt.stepping import AttemptSteps
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.steps import Sleeping
from holdfast.runtime.ids import utc_now, uuid7
from holdfast.storage.steps import DoneStep, NewStep

__all__ = ["Emitted", "EmittedGroup", "GivenSteps", "sample_lease"]

_FIELDS = WINDOW_ATTRIBUTES | {DELIVER_AT}
"""Extension attributes that are fields of :class:`Emitted`."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that a handler made. ``key``: the one that it chose, or ``None``.

    ``debounce`` and ``unique``: the window that it asked for, by option or by attributes, which are not in ``extensions``.
    """

    type: str
    data: Any
    subject: str | None
    audience: str | None
    deliver_at: datetime | None
    key: str | None
    extensions: Mapping[str, Any]
    debounce: Debounce | None = None
    unique: Unique | None = None

    @classmethod
    def of(cls, event: NewEvent) -> Self:
        """As the handler made it."""
        is_named = event.ce_id.startswith(f"{event.parent_id}:")
        return cls(
            event.type, None if event.data_json is None else json.loads(event.data_json), event.subject, event.audience,
            event.deliver_at, None if is_named else event.ce_id,
            {name: value for name, value in event.extensions.items() if name not in _FIELDS},
            debounce_of(event.extensions), unique_of(event.extensions),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmittedGroup:
    """A group that a handler made: type and data of the event that follows it, and its members."""

    type: str
    data: Any
    members: list[Emitted]

    @classmethod
    def of(cls, group: NewGroup, events: Iterable[NewEvent]) -> Self:
        """As the handler made it, with those of the events that are its members."""
        data = None if group.data_json is None else json.loads(group.data_json)
        return cls(group.type, data, [Emitted.of(event) for event in events if event.group_id == group.id])


def sample_lease(
    handler: Handler, payload: Any, event_id: UUID | None, attributes: dict[str, Any], number: int
) -> Lease:
    """An event that the handler serves, claimed for its attempt ``number``."""
    event = _event(handler, payload, event_id or uuid7(), attributes)
    return Lease(
        event=event, token=uuid7(), version=2 * number, attempt=number, crashes=0, seconds=30.0, claimed_at=utc_now()
    )


def _event(handler: Handler, payload: Any, event_id: UUID, attributes: dict[str, Any]) -> StoredEvent:
    types = [pattern for pattern in handler.patterns if "*" not in pattern]
    defaults: dict[str, Any] = {
        "tenant": "test", "source": "/test", "ce_id": str(event_id), "type": types[0] if types else "test",
        "subject": None, "time": None, "audience": None, "datacontenttype": "application/json", "dataschema": None,
        "extensions": {}, "traceparent": None, "received_at": utc_now(),
    }  # fmt: skip
    data = payload.model_dump(mode="json", by_alias=True) if isinstance(payload, BaseModel) else payload
    content = data if isinstance(data, bytes) else _json(data)
    sent = {"id": event_id, "content": content, "is_json": not isinstance(data, bytes)}
    event = StoredEvent(**(defaults | attributes | sent))
    vars(event)["data"] = data  # the very object that the test has made, a date in it or a tuple
    return event


def _json(data: Any) -> bytes | None:
    """What a producer would send; ``None`` for what has no JSON."""
    try:
        return json.dumps(data).encode()
    except (TypeError, ValueError):
        return None


class GivenSteps:
    """The notebook of a call. Sleeps are over as soon as they begin, and are kept as a ``timedelta``.

    Args:
        given: results by the names of their steps; a ``timedelta`` for a sleep, which is over.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = [_done(name, result) for name, result in given.items()]
        self.kept: dict[str, Any] = {}
        """What the call itself did, in its order."""

    def steps(self) -> AttemptSteps:
        """Those of one call."""
        return AttemptSteps(self)

    def check(self) -> None:
        """Nothing ends an attempt here."""

    def done(self) -> Sequence[DoneStep]:
        """What the test has given."""
        return self._given

    def store(self, step: NewStep) -> None:
        """Keep it."""
        is_sleep = step.sleep_seconds is not None
        self.kept[step.name] = (
            timedelta(seconds=step.sleep_seconds or 0) if is_sleep else json.loads(step.result or "null")
        )

    def fall_asleep(self, seconds: float) -> Sleeping | None:  # noqa: ARG002
        """It is over."""
        return None

    def note_reused(self) -> None:
        """Not counted."""


def _done(name: str, result: Any) -> DoneStep:
    if isinstance(result, timedelta):
        return DoneStep(name=name, sleeps_seconds=0.0)
    return DoneStep(name=name, result=canonical_json(checked_result(result, of=f"the step {name!r}")))
