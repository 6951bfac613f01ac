"""Statistics: what happened lately and how it stands now, for charts and tables. Reads counters, never the history.

``storage.counting`` fills the counters some seconds behind. A series ends with the step that is under way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.event_types import route_text
from holdfast.domain.histogram import quantile_ms
from holdfast.domain.state import CLAIMABLE, State
from holdfast.storage.counters import COUNTED_STATES, FLOW, OUTCOMES, STEPS, arrays
from holdfast.storage.lanes import ITS_TURN
from holdfast.storage.outbox import NOT_CONFIRMED
from holdfast.storage.served import SEEN_SECONDS, unserved_types
from holdfast.storage.statements import statement

__all__ = [
    "Flow", "HandlerRow", "Overview", "Point", "Rates", "Times", "Unserved", "Window", "flow", "handlers", "overview",
    "present", "unserved",
]  # fmt: skip

MINUTE = 60

LOOK_AT = 1000
"""Due events, the oldest of all tenants, among which a tenant's own oldest is looked for: some 5 ms."""

UNSERVED_TYPES = 50

UNSERVED_EVENTS = 500
"""Of one type that are counted; more are "at least"."""


class Window(Enum):
    """A span of time that charts show: its seconds, and those of one step."""

    HOUR = (3600, 60)
    DAY = (86_400, 600)
    QUARTER = (90 * 86_400, 86_400)

    @property
    def step_seconds(self) -> int:
        """Of one point of the series."""
        return self.value[1]

    def since(self, now: datetime) -> datetime:
        """The beginning of the first step; the last one has ``now`` in it."""
        seconds, step = self.value
        return _floor(now, step) - timedelta(seconds=seconds - step)


@dataclass(frozen=True, slots=True)
class Flow:
    """How many events or attempts went which way; see ``statistics_tables.EventStatistics``."""

    accepted: int = 0
    processed: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    discarded: int = 0
    replayed: int = 0
    lost: int = 0

    def __add__(self, other: "Flow") -> "Flow":
        return Flow(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Flow)))


@dataclass(frozen=True, slots=True)
class Point:
    """What happened within a step that begins ``at``."""

    at: datetime
    flow: Flow


@dataclass(frozen=True, slots=True)
class Rates:
    """Events or attempts a second, over the last minute."""

    accepted: float
    processed: float
    failed: float


@dataclass(frozen=True, slots=True)
class Overview:
    """How a tenant's events stand.

    Attributes:
        rates: over the minute before ``counted_at``.
        last_hour: sums of the last 60 steps of a minute.
        open_events: how many are in each open state, and how many are dead.
        oldest_due_seconds: for how long the oldest due event has been waiting for a processor; 0 when none is.
        is_at_most: older events of other tenants are so many that the tenant's own were not reached: they are due for
            ``oldest_due_seconds`` at most.
        counted_at: up to then everything is in the counters.
        lag_seconds: for how long something has been waiting to be counted; 0 when nothing is.
    """

    rates: Rates
    last_hour: Flow
    open_events: dict[State, int]
    oldest_due_seconds: float
    is_at_most: bool
    counted_at: datetime
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds that half and 95 % of the times did not exceed; ``None`` where none was measured."""

    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class HandlerRow:
    """Attempts of one handler, or of one event type where no handler ran, or (``other``) of all that have no place.

    Attributes:
        kind: ``handler``, ``type`` or ``other``.
        name: empty for ``other``.
        failed: attempts that another one follows.
        lost: attempts whose worker was lost.
        rate_per_s: attempts a second since the window began.
        last_seen_at: when an attempt ended last, be it before the window; ``None`` for ``other``.
    """

    kind: str
    name: str
    processed: int
    failed: int
    dead: int
    lost: int
    rate_per_s: float
    run: Times
    wait: Times
    end_to_end: Times
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Unserved:
    """A type for which events of the tenant wait, since no processor that met them serves it.

    Attributes:
        events: how many wait; at least so many if ``is_at_least``.
        is_served: a processor has said within the last minute that it serves the type, so they are about to be taken.
    """

    type: str
    events: int
    is_at_least: bool
    oldest_waiting_seconds: float
    is_served: bool


_FLOW = statement(
    """
-- Parameters: tenant; stored_seconds, of the rows; step_seconds, of the points; since.
SELECT date_bin(make_interval(secs => :step_seconds), at, 'epoch') AS at, {sums}
FROM event_statistics WHERE tenant = :tenant AND step_seconds = :stored_seconds AND at >= :since
GROUP BY 1 ORDER BY 1
""",
    sums=", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in FLOW),
)

_HANDLERS = statement(
    """
-- Parameters: tenant, stored_seconds, since.
SELECT h.kind, h.name, {sums}, {buckets},
       (SELECT n.seen_at FROM statistics_name n WHERE n.tenant = :tenant AND n.kind = h.kind AND n.name = h.name) AS seen_at
FROM handler_statistics h WHERE h.tenant = :tenant AND h.step_seconds = :stored_seconds AND h.at >= :since
GROUP BY h.kind, h.name
""",
    sums=", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in OUTCOMES),
    buckets=arrays("ARRAY[{elements}] AS {name}", "CAST(sum({name}[{place}]) AS bigint)"),
)

_NOW = text("SELECT statement_timestamp()")

_STATES = text("SELECT state, events FROM state_count WHERE tenant = :tenant")

_COUNTED = text(f"""
SELECT counted_at, statement_timestamp() AS now, {NOT_CONFIRMED.format(snapshot="c.counted")} AS is_behind
FROM statistics_cursor c
""")  # noqa: S608

_OLDEST_DUE = statement("""
-- States do not know their tenant: the oldest due ones of all tenants are looked through. Parameters: tenant, look_at.
WITH due AS MATERIALIZED (
    SELECT s.event_id, s.available_at FROM processing_state s
    WHERE s.state IN {CLAIMABLE} AND s.available_at <= now() AND {turn}
    ORDER BY s.available_at LIMIT :look_at
)
SELECT extract(epoch FROM now() - min(d.available_at) FILTER (WHERE e.tenant = :tenant)) AS own,
       extract(epoch FROM now() - max(d.available_at)) AS reached, count(*) AS looked_at
FROM due d JOIN event e ON e.id = d.event_id
""", turn=ITS_TURN)  # fmt: skip

_UNSERVED = statement("""
-- Parameters: types; tenant; most, events of a type that are looked at; seen_seconds.
SELECT t.type, count(*) FILTER (WHERE w.tenant = :tenant) AS events, count(*) = :most AS is_at_least,
       extract(epoch FROM now() - min(w.waiting_since) FILTER (WHERE w.tenant = :tenant)) AS oldest_seconds,
       EXISTS (SELECT FROM served_type k WHERE k.type = t.type AND k.seen_at > now() - make_interval(secs => :seen_seconds))
           AS is_served
FROM unnest(CAST(:types AS text[])) AS t(type) CROSS JOIN LATERAL (
    SELECT s.waiting_since, e.tenant FROM (
        SELECT event_id, waiting_since FROM processing_state
        WHERE unserved_type = t.type AND state IN {CLAIMABLE} ORDER BY waiting_since LIMIT :most
    ) s JOIN event e ON e.id = s.event_id
) w
GROUP BY t.type HAVING count(*) FILTER (WHERE w.tenant = :tenant) > 0
ORDER BY events DESC, t.type
""")


def present(session: Session) -> datetime:
    """What time it is by PostgreSQL's clock, which is the one that counters go by."""
    now: datetime = session.scalars(_NOW).one()
    return now


def flow(session: Session, tenant: str, *, since: datetime, step_seconds: int) -> list[Point]:
    """A point for each step from ``since``, rounded down, to now; zeros where nothing happened.

    Args:
        step_seconds: a multiple of a minute. Minutes are kept for a day, hours and days for 90 days.
    """
    rows = session.execute(_FLOW, {
        "tenant": tenant, "stored_seconds": _stored(step_seconds), "step_seconds": step_seconds,
        "since": (begin := _floor(since, step_seconds)),
    })  # fmt: skip
    counted = {row.at: Flow(*row[1:]) for row in rows}
    now = present(session)
    steps = int((now - begin).total_seconds() // step_seconds) + 1
    times = (begin + timedelta(seconds=step_seconds * number) for number in range(steps))
    return [Point(at, counted.get(at, Flow())) for at in times]


def handlers(session: Session, tenant: str, *, since: datetime) -> list[HandlerRow]:
    """A row for each handler, type or "other" with an attempt since then, the busiest first.

    ``since`` is rounded down to a minute; beyond an hour ago to an hour, and beyond a week to a day.
    """
    now = present(session)
    age = (now - since).total_seconds()
    stored = MINUTE if age <= 3600 else 3600 if age <= 7 * 86_400 else 86_400
    begin = _floor(since, stored)
    rows = session.execute(_HANDLERS, {"tenant": tenant, "stored_seconds": stored, "since": begin})
    seconds = max(1.0, (now - begin).total_seconds())
    found = [
        HandlerRow(
            row.kind, row.name, row.processed, row.failed, row.dead, row.lost,
            (row.processed + row.failed + row.dead + row.lost) / seconds,
            _times(row.run), _times(row.wait), _times(row.end_to_end), row.seen_at,
        )
        for row in rows
    ]  # fmt: skip
    return sorted(found, key=lambda each: (-each.rate_per_s, each.kind, each.name))


def overview(session: Session, tenant: str) -> Overview:
    """How the tenant's events stand now. Costs the same however many there are."""
    counted_at, now, is_behind = session.execute(_COUNTED).one()
    as_of = counted_at if is_behind else now
    minutes = {
        point.at: point.flow for point in flow(session, tenant, since=Window.HOUR.since(now), step_seconds=MINUTE)
    }
    states = {State(row.state): max(0, row.events) for row in session.execute(_STATES, {"tenant": tenant})}
    open_events = {state: states.get(state, 0) for state in State if state in COUNTED_STATES}
    is_waiting = is_behind or any(open_events[state] for state in CLAIMABLE)
    oldest, is_at_most = _oldest_due(session, tenant) if is_waiting else (0.0, False)
    return Overview(
        _rates(minutes, as_of), sum(minutes.values(), Flow()), open_events, oldest, is_at_most, as_of,
        (now - counted_at).total_seconds() if is_behind else 0.0,
    )  # fmt: skip


def unserved(session: Session, tenant: str) -> list[Unserved]:
    """The types for which events of the tenant wait for a handler, those with most events first; a bounded number."""
    types = unserved_types(session, limit=UNSERVED_TYPES)
    rows = session.execute(_UNSERVED, {
        "types": types, "tenant": tenant, "most": UNSERVED_EVENTS, "seen_seconds": SEEN_SECONDS,
    }) if types else ()  # fmt: skip
    return [
        Unserved(route_text(row.type), row.events, row.is_at_least, float(row.oldest_seconds), row.is_served) for row in rows
    ]  # fmt: skip


def _oldest_due(session: Session, tenant: str) -> tuple[float, bool]:
    row = session.execute(_OLDEST_DUE, {"tenant": tenant, "look_at": LOOK_AT}).one()
    if row.own is not None:
        return float(row.own), False
    return (float(row.reached), True) if row.looked_at == LOOK_AT else (0.0, False)


def _rates(minutes: dict[datetime, Flow], as_of: datetime) -> Rates:
    """Of the minute before ``as_of``: what this one has, and the last one for the part of it that belongs to that."""
    begin = _floor(as_of, MINUTE)
    this, last = minutes.get(begin, Flow()), minutes.get(begin - timedelta(seconds=MINUTE), Flow())
    part = 1 - (as_of - begin).total_seconds() / MINUTE
    return Rates(*(
        (getattr(this, each.name) + part * getattr(last, each.name)) / MINUTE for each in fields(Rates)
    ))  # fmt: skip


def _times(counts: Sequence[int]) -> Times:
    return Times(quantile_ms(counts, 0.5), quantile_ms(counts, 0.95))


def _stored(step_seconds: int) -> int:
    """The longest stored step that such steps are made of."""
    return max(seconds for seconds in STEPS if step_seconds % seconds == 0)


def _floor(moment: datetime, step_seconds: int) -> datetime:
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % step_seconds, UTC)
