"""Schedules: events that come by the clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from holdfast.client.answers import optional_time, read, time_of
from holdfast.client.events import Accepted
from holdfast.client.requests import JSON, Requests

__all__ = ["Schedule", "Scheduling"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, and how far it is."""

    name: str
    cron: str
    words: str | None
    """``cron`` in English."""
    timezone: str
    type: str
    """Event type."""
    missed: str
    """``latest``, ``all`` or ``skip``."""
    overlap: str
    """``allow`` or ``skip``."""
    is_paused: bool
    is_declared: bool
    """Handlers declare it, and change it back."""
    created_by: str
    """Id of the API key that made it, or ``handlers``."""
    next_at: datetime | None
    """Its next tick, with a time zone, as are all times; ``None``: none comes any more."""
    last_at: datetime | None
    """The tick of ``last_event_id``."""
    last_event_id: str | None
    """The event of its last tick that has one."""
    skipped: int
    """Ticks that had no event."""
    failures: int
    """How many turns in a row have failed; it is tried again until it succeeds."""
    last_error: str | None
    """Type of the error of the latest of these failures."""
    next: tuple[datetime, ...]
    """Its next ticks; empty in lists."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The schedule as the API sent it, with its data, and with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            name=body["name"],
            cron=body["cron"],
            words=body["words"],
            timezone=body["timezone"],
            type=body["type"],
            missed=body["missed"],
            overlap=body["overlap"],
            is_paused=body["paused"],
            is_declared=body["declared"],
            created_by=body["created_by"],
            next_at=optional_time(body["next_at"]),
            last_at=optional_time(body["last_at"]),
            last_event_id=body["last_event_id"],
            skipped=body["skipped"],
            failures=body["failures"],
            last_error=body["last_error"],
            next=tuple(map(time_of, body.get("next", ()))),
            raw=body,
        )


class Scheduling(Requests):
    """The part of :class:`~holdfast.client.Client` that looks after schedules. Needs the scope ``operate``.

    All methods raise ``ApiProblem`` and ``Unreachable``.
    """

    def schedules(self, *, limit: int | None = None) -> Iterator[Schedule]:
        """Schedules without their data, by name, at most ``limit``; each page is requested when the iterator reaches it."""
        return self._pages("/v1/schedules", {}, Schedule.read, limit)

    def schedule(self, name: str) -> Schedule:
        """One schedule, with its next ticks and its data."""
        return read(self._request("GET", _path(name)), Schedule.read)

    def put_schedule(self, name: str, schedule: Mapping[str, Any]) -> Schedule:
        """Make a schedule, or replace the one of this name whole.

        ``schedule``: ``cron`` and ``type``, and of ``timezone, source, subject, audience, data, missed, overlap`` and the
        attributes of windows (``debounceseconds``, …) what is to be other than usual.
        """
        answer = self._request("PUT", _path(name), body=dict(schedule), content_type=JSON)
        return read(answer, Schedule.read)

    def delete_schedule(self, name: str) -> Schedule:
        """Delete a schedule, and return what it was. Its events stay."""
        return read(self._request("DELETE", _path(name)), Schedule.read)

    def pause_schedule(self, name: str) -> Schedule:
        """Let a schedule rest; again it changes nothing."""
        return read(self._request("POST", f"{_path(name)}/pause"), Schedule.read)

    def resume_schedule(self, name: str) -> Schedule:
        """Let a schedule go on with its next tick from now; again it changes nothing."""
        return read(self._request("POST", f"{_path(name)}/resume"), Schedule.read)

    def run_schedule(self, name: str) -> Accepted:
        """Record the event of a schedule now, once however often the request is sent. Its ticks go on as before."""
        return read(self._act(f"{_path(name)}/run"), Accepted.read)


def _path(name: str) -> str:
    return f"/v1/schedules/{quote(name, safe='')}"
