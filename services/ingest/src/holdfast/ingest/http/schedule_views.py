"""What answers about schedules look like."""

from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from flask import json

from holdfast.domain.errors import InvalidSchedule
from holdfast.domain.schedule import ScheduleSpec, source_of
from holdfast.domain.window import WINDOW_ATTRIBUTES
from holdfast.ingest.http.views import address_of, rfc3339, with_member
from holdfast.runtime.cron import read_cron
from holdfast.storage.schedules import Schedule

__all__ = ["NEXT_TICKS", "address_of_schedule", "next_ticks", "schedule_text", "schedule_view", "words_of"]

NEXT_TICKS = 5
"""Shown of one schedule."""


def schedule_view(schedule: Schedule) -> dict[str, Any]:
    """A schedule as a JSON value, without its data."""
    spec = schedule.spec
    last_event = {} if schedule.last_event_id is None else {"last_event": address_of(schedule.last_event_id)}
    return {
        "name": spec.name,
        "cron": spec.cron,
        "words": words_of(spec),
        "timezone": spec.timezone,
        "type": spec.type,
        "source": spec.source or source_of(spec.name),
        "subject": spec.subject,
        "audience": spec.audience,
        "missed": spec.missed,
        "overlap": spec.overlap,
        **{name: spec.extensions.get(name) for name in sorted(WINDOW_ATTRIBUTES)},
        "paused": schedule.is_paused,
        "declared": schedule.is_declared,
        "created_by": schedule.created_by,
        "created_at": rfc3339(schedule.created_at),
        "next_at": rfc3339(schedule.next_at),
        "last_at": rfc3339(schedule.last_at),
        "last_event_id": schedule.last_event_id and str(schedule.last_event_id),
        "skipped": schedule.skipped,
        "failures": schedule.failures,
        "last_error": schedule.last_error,
        "links": {"self": address_of_schedule(spec.name), **last_event},
    }


def schedule_text(schedule: Schedule) -> bytes:
    """The JSON of one schedule: with its next ticks, and its data as it was sent."""
    view = schedule_view(schedule) | {"next": [rfc3339(tick) for tick in next_ticks(schedule)]}
    data = schedule.spec.data
    return json.dumps(view).encode() if data is None else with_member(view, "data", data)


def next_ticks(schedule: Schedule) -> list[datetime]:
    """The first that come from ``next_at`` on; that one alone where nobody here knows its time zone."""
    if schedule.next_at is None:
        return []
    try:
        cron = read_cron(schedule.spec.cron, schedule.spec.timezone)
    except InvalidSchedule:
        return [schedule.next_at]
    return list(islice(cron.ticks_after(schedule.next_at - timedelta(microseconds=1)), NEXT_TICKS))


def words_of(spec: ScheduleSpec) -> str | None:
    """Its cron expression in English; ``None`` where nobody here can read it."""
    try:
        return read_cron(spec.cron, spec.timezone).words()
    except InvalidSchedule:
        return None


def address_of_schedule(name: str) -> str:
    """The path of a schedule."""
    return f"/v1/schedules/{name}"
