"""An accepted event: CloudEvents attributes, who sent it, and what makes two of them the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from holdfast.domain.attributes import DELIVER_AT, HANDLER
from holdfast.domain.errors import HoldfastError
from holdfast.domain.event_types import route_of
from holdfast.domain.moment import read_moment
from holdfast.domain.trace import NO_ORIGIN, Origin
from holdfast.domain.update import Update
from holdfast.domain.window import Window, debounce_seconds

__all__ = ["Doorbell", "Lease", "NewEvent", "NewGroup", "StoredEvent", "UnreadableEvent", "canonical_json", "digest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event as a producer sent it, checked, not yet recorded.

    ``(tenant, source, ce_id)`` is its identity (CloudEvents 1.0: ``source`` + ``id`` is unique for each distinct event).
    Data is JSON (``data_json``, the sender's own text), or bytes (``data_bytes``), or absent (both ``None``); a JSON
    ``null`` is the text ``"null"``. ``domain.data`` says which data is the same.
    """

    id: UUID
    tenant: str
    source: str
    ce_id: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    audience: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)
    data_json: str | None = None
    data_bytes: bytes | None = None
    traceparent: str | None = None
    replay_of: UUID | None = None
    """The processed event that this one repeats."""
    parent_id: UUID | None = None
    """The event whose handler emitted this one."""
    deliver_at: datetime | None = None
    """When it is due; at once where that is past, or ``None``."""
    group_id: UUID | None = None
    """The group that it is a member of."""
    window: Window | None = None
    """What it is to be to other events of its key; ``storage.windows`` sees to it."""
    origin: Origin = NO_ORIGIN

    @property
    def content(self) -> bytes | None:
        """The data's bytes; ``None`` without data."""
        return self.data_bytes if self.data_json is None else self.data_json.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGroup:
    """A group of events as a handler made it: its members name it, and the event that follows the last of them."""

    id: UUID
    tenant: str
    parent_id: UUID
    type: str
    subject: str | None = None
    audience: str | None = None
    data_json: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as it was recorded. ``content`` is the data as it was sent, ``None`` without data or where it was not read.

    ``is_json``: the content is JSON. Of events that a release before revision 0008 recorded it is not the sender's own text,
    but one with the same value.
    """

    id: UUID
    tenant: str
    source: str
    ce_id: str
    type: str
    subject: str | None
    time: datetime | None
    audience: str | None
    datacontenttype: str | None
    dataschema: str | None
    extensions: Mapping[str, Any]
    content: bytes | None
    is_json: bool
    traceparent: str | None
    received_at: datetime
    replay_of: UUID | None = None
    """The processed event that this one repeats."""
    parent_id: UUID | None = None
    """The event whose handler emitted this one."""
    origin: Origin = NO_ORIGIN

    @property
    def due_since(self) -> datetime:
        """When it was due first: when it was received, or later if it asked for that; of a debounced one at the latest."""
        if wait := debounce_seconds(self.extensions):
            return self.received_at + timedelta(seconds=wait)
        wanted = self.extensions.get(DELIVER_AT)
        moment = read_moment(wanted) if isinstance(wanted, str) else None
        return self.received_at if moment is None or moment < self.received_at else moment

    @property
    def route(self) -> str:
        """By which its handler is found: its type, and the handler that it was made for, if it was made for one."""
        return route_of(self.type, self.extensions.get(HANDLER))

    @cached_property
    def data(self) -> Any:
        """The parsed JSON value, the bytes of other data, or ``None`` without data. Parsed when it is asked for first."""
        return json.loads(self.content) if self.is_json and self.content is not None else self.content


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class UnreadableEvent(StoredEvent):
    """An event whose data is sealed and does not open here. To ask for ``content`` or ``data`` raises ``fault``."""

    fault: HoldfastError

    def __post_init__(self) -> None:
        object.__delattr__(self, "content")  # not None: that would be an event without data

    def __getattr__(self, name: str) -> Any:
        raise self.fault.with_traceback(None) if name == "content" else AttributeError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A claimed event: the right to run its handler until ``seconds`` have passed on the database's clock.

    The worker that holds ``token`` may settle the event; once it has been recovered the token fits nothing any more.
    """

    event: StoredEvent
    token: UUID
    version: int
    attempt: int
    crashes: int
    seconds: float
    claimed_at: datetime
    lane: UUID | None = None
    """Set while the event has its subject to itself (``ordering="subject"``)."""
    limit: str | None = None
    """The line of the limit that the event counts for while it runs."""
    flow_version: int = 0
    """As of which pauses and resumptions it was claimed (``storage.pauses``)."""
    starts_by: float | None = None
    """By when its handler has to begin, in seconds of the monotonic clock: a rate counts it as started until then."""


class Doorbell(NamedTuple):
    """A hint that an event may be due; stale when its version has moved on.

    ``is_suspect``: the event was with a worker that was lost, and is to be tried where it can take no neighbours along.
    ``tenant``, its ``weight`` and ``priority`` say when it is heard, ``pool`` where.
    """

    event_id: UUID
    version: int
    is_suspect: bool = False
    tenant: str = ""
    priority: int = 5
    pool: str = ""
    weight: int = 1

    @staticmethod
    def of(update: Update, *, is_suspect: bool = False) -> "Doorbell":
        """For an event that has just moved. A hint has no need of the rest."""
        return Doorbell(update.event_id, update.version, is_suspect, update.tenant)


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no white space, no escapes beyond the necessary.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(type_: str, data_json: str | None, data_bytes: bytes | None) -> bytes:
    """SHA-256 over type and data, as releases before revision 0008 stored it: their events are recognised by it.

    ``data_json`` as ``canonical_json`` writes it. Numbers had gone through floats by then.
    """
    hasher = hashlib.sha256(type_.encode())
    if data_json is not None:
        hasher.update(b"\0json\0" + data_json.encode())
    elif data_bytes is not None:
        hasher.update(b"\0bytes\0" + data_bytes)
    return hasher.digest()
