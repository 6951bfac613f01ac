"""Schedules: what one is, and which of its ticks become events. Pure; what a cron expression means is ``runtime.cron``'s."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Any
from uuid import UUID

from holdfast.domain.attributes import MAX_ATTRIBUTE_BYTES
from holdfast.domain.errors import InvalidTopic
from holdfast.domain.event import NewEvent
from holdfast.domain.moment import moment_text
from holdfast.domain.names import MAX_NAME_BYTES, is_text
from holdfast.domain.topics import check_topic
from holdfast.domain.window import window_of

__all__ = [
    "MAX_CAUGHT_UP",
    "MAX_SCHEDULES",
    "MOST_AT_ONCE",
    "NAME_RULE",
    "SKIP_AFTER",
    "Missed",
    "Overlap",
    "ScheduleSpec",
    "TicksAfter",
    "Turn",
    "event_of",
    "faults_of",
    "is_schedule_name",
    "source_of",
    "turn_of",
    "without_overlap",
]

MAX_SCHEDULES = 1000
"""Of one tenant."""

MAX_CAUGHT_UP = 1000
"""Ticks that ``missed="all"`` makes up for, the latest ones; older ones have no event."""

MOST_AT_ONCE = 100
"""Ticks recorded in one transaction; a turn that leaves some over is followed by another one."""

SKIP_AFTER = timedelta(seconds=60)
"""Age beyond which ``missed="skip"`` passes a tick over: maintenance looks once a second, and a restart takes some."""

MAX_NAME_CHARACTERS = 100

NAME_RULE = (
    f"1 to {MAX_NAME_CHARACTERS} ASCII letters, digits, dots, dashes and underscores, the first a letter or digit"
)

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")

TicksAfter = Callable[[datetime], Iterator[datetime]]
"""The ticks of a schedule that come after a moment, in order, in UTC; each one once."""


class Missed(StrEnum):
    """What becomes of ticks that came while nobody looked: maintenance was down, say. Stored as its text value."""

    LATEST = "latest"
    """The last one has its event, the others have none."""

    ALL = "all"
    """Each has its event, up to :data:`MAX_CAUGHT_UP` of the latest."""

    SKIP = "skip"
    """One that is older than :data:`SKIP_AFTER` has none."""


class Overlap(StrEnum):
    """Whether a tick has an event while the one of the tick before is still open. Stored as its text value."""

    ALLOW = "allow"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """What is asked for: when, and the event that each tick becomes. ``data`` is JSON text, ``None`` for no data."""

    name: str
    cron: str
    type: str
    timezone: str = "UTC"
    source: str | None = None
    """``None``: :func:`source_of` its name."""
    subject: str | None = None
    audience: str | None = None
    data: bytes | None = None
    missed: Missed = Missed.LATEST
    overlap: Overlap = Overlap.ALLOW
    extensions: Mapping[str, Any] = field(default_factory=dict)
    """Of ``domain.window.WINDOW_ATTRIBUTES``, what the events ask for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a look at a schedule decides.

    Attributes:
        due: ticks that have their event now, oldest first.
        passed: ticks that have none, because they were missed; those before the latest :data:`MAX_CAUGHT_UP` not counted.
        next_at: when to look again: the first tick that is not decided yet. ``None``: there is none any more.
    """

    due: tuple[datetime, ...]
    passed: int
    next_at: datetime | None


def turn_of(ticks_after: TicksAfter, *, planned: datetime, now: datetime, missed: Missed) -> Turn:
    """Decide about every tick from ``planned``, the first that is not decided yet, to ``now``; both on PostgreSQL's clock."""
    ticks = _latest(ticks_after, planned, now)
    due = _chosen(ticks, now, missed)
    at_once = due[:MOST_AT_ONCE]
    decided = now if len(at_once) == len(due) else at_once[-1]
    return Turn(tuple(at_once), len(ticks) - len(due), next(ticks_after(decided), None))


def _latest(ticks_after: TicksAfter, planned: datetime, now: datetime) -> list[datetime]:
    """The ticks from ``planned`` to ``now``, oldest first: the latest :data:`MAX_CAUGHT_UP` of them.

    No schedule ticks more than once a minute, so looking back that many minutes is enough for one that ticks often, and
    costs little after a standstill of years. For one that ticks rarely the look back is made longer until it has enough.
    """
    before = planned - timedelta(microseconds=1)
    span = timedelta(minutes=MAX_CAUGHT_UP)
    while True:
        begin = max(before, now - span)
        ticks = list(takewhile(lambda tick: tick <= now, ticks_after(begin)))
        if begin == before or len(ticks) >= MAX_CAUGHT_UP:
            return ticks[-MAX_CAUGHT_UP:]
        span *= 4


def _chosen(ticks: list[datetime], now: datetime, missed: Missed) -> list[datetime]:
    if missed is Missed.ALL:
        return ticks
    if missed is Missed.LATEST:
        return ticks[-1:]
    return [tick for tick in ticks if now - tick <= SKIP_AFTER]


def without_overlap(due: Sequence[datetime], overlap: Overlap, *, is_open: bool) -> Sequence[datetime]:
    """The ticks of a turn that have an event although the one of the tick before may be open.

    Each event is open when it has just been recorded, so of several ticks the first alone has one.
    """
    if overlap is Overlap.ALLOW:
        return due
    return () if is_open else due[:1]


def source_of(name: str) -> str:
    """The source of a schedule's events, unless it says another one."""
    return f"/holdfast/schedules/{name}"


def event_of(spec: ScheduleSpec, tick: datetime, *, tenant: str, event_id: UUID, ce_id: str | None = None) -> NewEvent:
    """The event of a tick. The tick is its identity, so that recording it again records nothing; ``time`` has it too.

    Args:
        ce_id: of an event that was asked for by hand, which is no tick's.
    """
    identity = ce_id or moment_text(tick)
    asked = {"subject": spec.subject, **spec.extensions}
    return NewEvent(
        id=event_id, tenant=tenant, type=spec.type, time=tick, subject=spec.subject, audience=spec.audience,
        source=spec.source or source_of(spec.name),
        # A source of somebody else's choice may be that of another schedule too, which ticks at the same moment.
        ce_id=identity if spec.source is None else f"{spec.name}@{identity}",
        datacontenttype=None if spec.data is None else "application/json",
        data_json=None if spec.data is None else spec.data.decode(), extensions=dict(spec.extensions),
        window=window_of(asked),
    )  # fmt: skip


def is_schedule_name(text: str) -> bool:
    """Whether a text can be a schedule's name, see :data:`NAME_RULE`."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and text[0] in _LETTERS and set(text) <= _LETTERS | set("._-")


def faults_of(spec: ScheduleSpec) -> list[tuple[str, str]]:
    """``(field, what it takes)`` of everything wrong with a schedule, but for its cron, timezone, data and extensions."""
    faults = [] if is_schedule_name(spec.name) else [("name", NAME_RULE)]
    for name, value, most in (
        ("type", spec.type, MAX_ATTRIBUTE_BYTES),
        ("source", spec.source, MAX_ATTRIBUTE_BYTES),
        ("subject", spec.subject, MAX_ATTRIBUTE_BYTES),
        ("audience", spec.audience, MAX_NAME_BYTES),
    ):
        # Surrogates have no UTF-8, so is_text comes first.
        if value is not None and not (is_text(value) and 0 < len(value.encode()) <= most):
            faults.append((name, f"1 to {most} bytes in UTF-8 without control characters"))
    if spec.audience is not None and not faults and not _is_topic(f"audience:{spec.audience}"):
        faults.append(("audience", "what the topic audience:<value> does: no '*'"))
    return faults


def _is_topic(text: str) -> bool:
    try:
        check_topic(text)
    except InvalidTopic:
        return False
    return True
