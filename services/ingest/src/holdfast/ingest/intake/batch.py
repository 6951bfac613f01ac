"""Reading a batch of CloudEvents (JSON batch format 1.0.2). Pure: the body in, all of its events or every fault out."""

from collections.abc import Callable, Iterator
from uuid import UUID

from holdfast.domain.event import NewEvent
from holdfast.ingest.intake.cloudevents import UNREAD, structured_event
from holdfast.ingest.intake.faults import Fault, InvalidEvent, fail
from holdfast.ingest.intake.strict_json import parse
from holdfast.ingest.intake.verbatim import data_texts

__all__ = ["MAX_EVENTS", "MAX_FAULTS", "BatchTooLarge", "InvalidBatch", "read_batch"]

MAX_EVENTS = 500

MAX_FAULTS = 20
"""Told of one batch."""


class BatchTooLarge(Exception):
    """More than ``MAX_EVENTS``."""

    def __init__(self, count: int) -> None:
        super().__init__(f"a batch has at most {MAX_EVENTS} events, not {count}; send several")


class InvalidBatch(ValueError):
    """Some of its events are none. ``faults`` has the index of each in the batch beside it, at most ``MAX_FAULTS``."""

    def __init__(self, faults: list[tuple[int, Fault]]) -> None:
        super().__init__("; ".join(f"event {index}: {fault.detail}" for index, fault in faults))
        self.faults = faults


def read_batch(body: bytes, *, new_id: Callable[[], UUID], tenant: str, most_bytes: int) -> list[NewEvent]:
    """The events of a batch, in their order. None of them is larger than ``most_bytes``, as one by itself must not be.

    Raises:
        InvalidEvent: it is no JSON array.
        BatchTooLarge: too many events.
        InvalidBatch: with the faults of all events.
    """
    parsed = parse(body, where="")
    items = parsed.value
    if not isinstance(items, list):
        fail(
            "", "not_an_array", "a batch is a JSON array of CloudEvents; send one event as application/cloudevents+json"
        )
    if len(items) > MAX_EVENTS:
        raise BatchTooLarge(len(items))
    events: list[NewEvent] = []
    faults: list[tuple[int, Fault]] = []
    for index, (item, content) in enumerate(zip(items, data_texts(body, len(items)), strict=True)):
        try:
            event = structured_event(parsed, item, content, event_id=new_id(), tenant=tenant)
            _check_size(event, content, most_bytes)
            events.append(event)
        except InvalidEvent as exc:
            faults += ((index, fault) for fault in _at(index, exc.faults))
    if faults:
        raise InvalidBatch(faults[:MAX_FAULTS])
    if any(event.data_json == UNREAD for event in events):
        fail("", "invalid_json", "the text of an event's data cannot be told apart")
    return events


def _check_size(event: NewEvent, content: bytes | None, most_bytes: int) -> None:
    if len(content or event.data_bytes or b"") > most_bytes:
        fail("/data", "too_large", f"an event has at most {most_bytes} bytes; send a reference to large data")


def _at(index: int, faults: list[Fault]) -> Iterator[Fault]:
    for fault in faults:
        yield Fault(f"/{index}{fault.where}", fault.code, fault.detail)
