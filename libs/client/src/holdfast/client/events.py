"""Events as the API shows them: where each stands, its timeline and its attempts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of
from holdfast.client.nodes import Waiting

__all__ = ["Accepted", "Attempt", "AttemptError", "LastError", "StoredEvent", "TimelineEntry"]


@dataclass(frozen=True, slots=True)
class LastError:
    """Why the latest failed attempt of an event failed."""

    type: str
    """Such as ``KeyError``, or ``no_handler`` when no handler ran."""
    message: str | None = field(repr=False)
    """``None`` if there is none, or if the API key may not read it."""
    handler: str | None
    """``None`` when no handler ran."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["type"], body.get("message"), body.get("handler"))


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One transition of an event."""

    version: int
    """Of the event after the transition."""
    state: str
    attempt: int
    """Number of the attempt, from 1; 0 before the first one."""
    at: datetime
    """With a time zone."""
    detail: Mapping[str, Any] = field(repr=False, hash=False)
    """As in an update: ``result``, ``error``, ``retry_in_seconds`` or ``reason``, where they apply."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The entry as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["version"], body["state"], body["attempt"], time_of(body["at"]), body["detail"], body)


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Why one attempt failed. The text is visible to keys with the scope ``operate`` only."""

    type: str
    message: str | None = field(repr=False)
    fingerprint: str | None
    """Equal for errors that were raised at the same place in the code; ``None`` when no handler ran."""
    traceback: str | None = field(repr=False)

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["type"], body.get("message"), body.get("fingerprint"), body.get("traceback"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that has ended."""

    attempt: int
    """Number of the attempt, from 1. A replay starts the numbers over; ``at`` gives the order."""
    outcome: str
    """``processed`` or ``failed``."""
    handler: str | None
    """``None`` when no handler ran."""
    error: AttemptError | None
    """``None`` for an attempt that succeeded."""
    worker: str | None
    duration_ms: int | None
    at: datetime
    """When it ended, with a time zone."""
    trace_id: str | None
    """Of the trace that the event belongs to; ``None`` without one."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The attempt as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            attempt=body["attempt"],
            outcome=body["outcome"],
            handler=body["handler"],
            error=AttemptError.read(body["error"]) if body["error"] else None,
            worker=body.get("worker"),
            duration_ms=body.get("duration_ms"),
            at=time_of(body["at"]),
            trace_id=body.get("trace_id"),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in Holdfast's database, and where it stands."""

    event_id: str
    """The UUID that Holdfast gave it. The producer's own id is ``cloudevent["id"]``."""
    cloudevent: Mapping[str, Any] = field(repr=False, hash=False)
    """Its CloudEvents attributes, as :meth:`Client.send` takes them; ``data`` or ``data_base64`` only if included."""
    state: str
    """``queued``, ``processing``, ``failed``, ``processed``, ``dead`` or ``discarded``."""
    version: int
    """Rises with each transition, from 1."""
    attempt: int
    """Number of the latest attempt, from 1; 0 before the first one."""
    received_at: datetime
    """With a time zone, as are the other times."""
    available_at: datetime | None
    """When it is due, or was."""
    finished_at: datetime | None
    """When it was processed, died or was discarded; ``None`` while it is open."""
    last_error: LastError | None
    replay_of: str | None
    """Event id of the processed event that this one replays."""
    parent_id: str | None
    """Event id of the event whose handler emitted this one."""
    request_id: str | None
    """The ``x-request-id`` of the POST that brought it; ``None`` for a copy that a replay made."""
    trace_id: str | None
    """Of the trace that it belongs to, 32 hexadecimal digits; ``None`` without one."""
    timeline: tuple[TimelineEntry, ...] | None
    """Its transitions, oldest first; ``None`` unless included."""
    attempts: tuple[Attempt, ...] | None
    """Its attempts that have ended, oldest first; ``None`` unless included."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The event as the API sent it, with any fields that this client does not know."""
    waiting: Waiting | None = None
    """Why it has not been processed yet; ``None`` once it is done with, and in lists."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        timeline, attempts = body.get("timeline"), body.get("attempts")
        return cls(
            event_id=body["event_id"],
            cloudevent=body["event"],
            state=body["state"],
            version=body["version"],
            attempt=body["attempt"],
            received_at=time_of(body["received_at"]),
            available_at=optional_time(body.get("available_at")),
            finished_at=optional_time(body.get("finished_at")),
            last_error=LastError.read(body["last_error"]) if body.get("last_error") else None,
            replay_of=body.get("replay_of"),
            parent_id=body.get("parent_id"),
            request_id=body.get("request_id"),
            trace_id=body.get("trace_id"),
            timeline=None if timeline is None else tuple(map(TimelineEntry.read, timeline)),
            attempts=None if attempts is None else tuple(map(Attempt.read, attempts)),
            raw=body,
            waiting=Waiting.read(body["waiting"]) if body.get("waiting") else None,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a replay, discard or cancel of one event."""

    event_id: str
    """The event that was queued again, discarded or is to end; after the replay of a processed event, the new one."""
    state: str
    version: int
    is_duplicate: bool
    """An earlier request with the same key has done it, and nothing changed now."""
    is_enqueued: bool
    """A processor has been notified; otherwise it finds the event by itself, a little later."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["event_id"], body["state"], body["version"], body["duplicate"], body["enqueued"], body)
