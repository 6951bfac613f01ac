"""Why an open event has not been processed yet, and what it waits for. Pure: ``storage.waiting`` reads the facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from holdfast.domain.event_types import fits, nearest
from holdfast.domain.pauses import Paused
from holdfast.domain.state import State

__all__ = [
    "MOST_AHEAD", "MOST_BEFORE", "Aside", "Facts", "Fleet", "Line", "Queue", "Reason", "Run", "Standing", "Waiting", "Worker",
    "explain",
]  # fmt: skip

MOST_AHEAD = 100
"""Events of a subject that are counted; of more it is said that there are more."""

MOST_BEFORE = 1000
"""Due events that are counted, likewise."""


class Reason(StrEnum):
    """What an open event waits for; the first that applies."""

    RUNNING = "running"
    """A handler has it."""
    LOST = "lost"
    """Its worker's lease has ended: recovery takes it back within seconds."""
    NO_HANDLER = "no_handler"
    """No processor serves its type."""
    PAUSED = "paused"
    """Somebody has paused its handler, type, tenant or pool."""
    LIMIT = "limit"
    """Others of its handler run, as many as may at once."""
    RATE = "rate"
    """Others of its handler have started, as many as may within a time."""
    TURN = "turn"
    """An earlier event of its subject."""
    SCHEDULED = "scheduled"
    """The time for which it was sent."""
    DEBOUNCED = "debounced"
    """A later event of its key, which would replace it, until its wait ends."""
    SNOOZED = "snoozed"
    """The time for which its handler put it off."""
    SLEEPING = "sleeping"
    """The time until which its handler sleeps between two steps."""
    RETRY = "retry"
    """The wait after a failed attempt."""
    NOT_DUE = "not_due"
    """A due time, after a recovery for instance."""
    NO_PROCESSOR = "no_processor"
    """Due, and no processor has been heard of lately."""
    DRAINED = "drained"
    """Due, and every processor that could take it is drained."""
    SUSPECT = "suspect"
    """Due, was with a lost worker, and runs alone: the process for such events takes one at a time."""
    BROKER_AWAY = "broker_away"
    """Due, and no doorbell rings: processors look for due events by themselves."""
    BACKLOG = "backlog"
    """Due: a thread of a processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an open event stands. ``now`` is PostgreSQL's clock, as are all times here."""

    now: datetime
    event_id: UUID
    type: str
    subject: str | None
    state: State
    attempt: int
    crashes: int
    available_at: datetime
    """When it was or is due; for one that waits for its turn or a handler, since when it waits."""
    waits_aside: bool
    """It waits for its turn or for a handler, where no search meets it."""
    is_unserved: bool
    """A processor has met it and does not serve its type."""
    is_scheduled: bool
    """It was sent for later, and no attempt was made yet."""
    is_snoozed: bool
    """Its handler put it off."""
    is_sleeping: bool
    """Its handler sleeps between two steps."""
    moved_at: datetime | None
    """When it came into its state."""
    error_type: str | None
    lease_expires_at: datetime | None
    is_debounced: bool = False
    """It is the last of its key so far, and a later one would replace it."""


@dataclass(frozen=True, slots=True)
class Line:
    """The line of a subject. ``ahead`` is counted up to ``MOST_AHEAD + 1``; ``front`` is the event that is taken first."""

    ahead: int
    front_id: UUID
    front_state: State
    front_due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """The line that an event waits in: because of ``paused``, or of a handler's limit or rate (``kind``).

    ``ahead`` is counted up to ``MOST_AHEAD + 1``; ``running`` events hold the limit; ``free_at`` is when a rate has room.
    """

    kind: str
    handler: str | None
    key: str | None
    ahead: int
    paused: Paused | None = None
    running: int = 0
    free_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Due events before this one, counted up to ``MOST_BEFORE + 1``, and when the oldest one became due."""

    before: int
    oldest_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Run:
    """What a worker said of the event: which node and host, which handler. ``is_heard``: it has spoken lately."""

    node: str
    host: str
    handler: str | None = None
    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process of a processor that was heard of lately."""

    node: str
    slots: int
    busy: int
    is_suspect: bool
    is_draining: bool
    is_broker_away: bool
    types: Sequence[str]
    """Types and patterns that it serves."""

    def serves(self, event_type: str) -> bool:
        """Whether one of its handlers takes the type."""
        return any(fits(each, event_type) for each in self.types)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers of processors that were heard of lately."""

    workers: Sequence[Worker]

    def nearest_type(self, event_type: str) -> str | None:
        """The served type that this one was probably meant to be."""
        return nearest(event_type, (each for worker in self.workers for each in worker.types))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an open event. ``line``, ``queue`` and ``run`` where they apply."""

    standing: Standing
    fleet: Fleet
    line: Line | None = None
    aside: Aside | None = None
    queue: Queue | None = None
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The answer: a reason, one sentence, and the facts behind it (docs/http-api.md lists them by reason)."""

    reason: Reason
    summary: str
    facts: Mapping[str, Any]


def explain(facts: Facts) -> Waiting:
    """Why this event waits, or what it does."""
    standing = facts.standing
    if standing.state is State.PROCESSING:
        return _running(facts)
    if standing.is_unserved:
        return _without_handler(facts, standing.available_at)
    if facts.aside is not None:
        return _aside(standing, facts.aside)
    if facts.line is not None and facts.line.ahead and not _is_later(standing):
        return _in_line(standing, facts.line)
    if _is_later(standing):
        return _later(standing)
    return _due(facts)


def _is_later(standing: Standing) -> bool:
    return standing.available_at > standing.now and not standing.waits_aside


def _running(facts: Facts) -> Waiting:
    standing, run = facts.standing, facts.run
    known = {
        "attempt": standing.attempt, "since": standing.moved_at, "lease_until": standing.lease_expires_at,
        "handler": run.handler if run else None, "node": run.node if run else None, "host": run.host if run else None,
    }  # fmt: skip
    by = f" by {run.handler}" if run and run.handler else ""
    since = f" for {_span(standing.now, standing.moved_at)}" if standing.moved_at else ""
    if standing.lease_expires_at is not None and standing.lease_expires_at <= standing.now:
        if run is not None and run.is_heard:
            summary = f"attempt {standing.attempt} runs{by}{since}; its transaction keeps the event"
            return Waiting(Reason.RUNNING, summary, known | {"lease_until": None})
        ago = _span(standing.now, standing.lease_expires_at)
        summary = f"its worker's lease ended {ago} ago without a word; the event is taken back within seconds"
        return Waiting(Reason.LOST, summary, known)
    until = (
        f"; its lease lasts {_span(standing.lease_expires_at, standing.now)} more" if standing.lease_expires_at else ""
    )
    return Waiting(Reason.RUNNING, f"attempt {standing.attempt} runs{by}{since}{until}", known)


def _without_handler(facts: Facts, since: datetime) -> Waiting:
    standing, fleet = facts.standing, facts.fleet
    serving = [worker for worker in fleet.workers if worker.serves(standing.type)]
    known = {"type": standing.type, "since": since, "did_you_mean": None, "is_served_now": bool(serving)}
    if serving:
        summary = f"no processor served {standing.type} so far; one does now and takes the event within seconds"
        return Waiting(Reason.NO_HANDLER, summary, known)
    near = fleet.nearest_type(standing.type)
    hint = f"; did you mean {near}?" if near else ""
    summary = f"no processor serves {standing.type}, for {_span(standing.now, since)} now{hint}"
    return Waiting(Reason.NO_HANDLER, summary, known | {"did_you_mean": near})


def _aside(standing: Standing, aside: Aside) -> Waiting:
    is_more, ahead = aside.ahead > MOST_AHEAD, min(aside.ahead, MOST_AHEAD)
    known: dict[str, Any] = {"since": standing.available_at, "ahead": ahead, "is_more_ahead": is_more}
    if aside.kind == "pause":
        return _paused(known, aside.paused)
    known |= {"handler": aside.handler, "key": aside.key}
    of = f"{aside.handler}" if aside.key is None else f"{aside.handler} with its key"
    place = f"{_count(ahead, is_more)} ahead of it in line" if ahead else "it is the next one"
    if aside.kind == "limit":
        verb = "runs" if aside.running == 1 else "run"
        summary = f"{_count(aside.running, False)} of {of} {verb} now, as many as may at once; {place}"
        return Waiting(Reason.LIMIT, summary, known | {"running": aside.running})
    until = "" if aside.free_at is None else f" until {_moment(aside.free_at)}"
    summary = f"no more events of {of} may start{until or ' for now'}; {place}"
    return Waiting(Reason.RATE, summary, known | {"free_at": aside.free_at})


def _paused(known: dict[str, Any], paused: Paused | None) -> Waiting:
    if paused is None:
        summary = "what it waited for is resumed; it is taken within seconds"
        return Waiting(Reason.PAUSED, summary, known | {"pause_id": None})
    note = f": {paused.note}" if paused.note else ""
    summary = f"{paused.kind} {paused.name} is paused by {paused.paused_by} since {_moment(paused.paused_at)}{note}"
    facts = {
        "pause_id": paused.id, "kind": paused.kind, "name": paused.name, "paused_by": paused.paused_by,
        "paused_at": paused.paused_at, "note": paused.note,
    }  # fmt: skip
    return Waiting(Reason.PAUSED, summary, known | facts)


def _in_line(standing: Standing, line: Line) -> Waiting:
    is_more = line.ahead > MOST_AHEAD
    ahead = min(line.ahead, MOST_AHEAD)
    known = {
        "subject": standing.subject, "since": standing.available_at, "ahead": ahead, "is_more_ahead": is_more,
        "front": {"event_id": line.front_id, "state": line.front_state, "due_at": line.front_due_at},
    }  # fmt: skip
    wait = f", due in {_span(line.front_due_at, standing.now)}" if _front_waits(standing, line) else ""
    summary = (
        f"it waits for its turn: {_count(ahead, is_more)} of subject {standing.subject} ahead, the first of which is"
        f" {line.front_state}{wait}"
    )
    return Waiting(Reason.TURN, summary, known)


def _front_waits(standing: Standing, line: Line) -> bool:
    return line.front_state is not State.PROCESSING and line.front_due_at > standing.now


def _later(standing: Standing) -> Waiting:
    wait = _span(standing.available_at, standing.now)
    known: dict[str, Any] = {"due_at": standing.available_at, "attempts": standing.attempt, "crashes": standing.crashes}
    if standing.state is State.FAILED:
        summary = f"attempt {standing.attempt + 1} is due in {wait}, after {standing.error_type or 'an error'}"
        return Waiting(Reason.RETRY, summary, known | {"error_type": standing.error_type})
    if standing.is_debounced:
        summary = (
            f"debounced until {_moment(standing.available_at)}, for {wait} more: a later event of its key replaces it"
        )
        return Waiting(Reason.DEBOUNCED, summary, known)
    if standing.is_scheduled:
        return Waiting(Reason.SCHEDULED, f"it was sent for {_moment(standing.available_at)}, in {wait}", known)
    if standing.is_snoozed:
        summary = f"its handler put it off until {_moment(standing.available_at)}, for {wait} more"
        return Waiting(Reason.SNOOZED, summary, known)
    if standing.is_sleeping:
        summary = f"its handler sleeps between two steps until {_moment(standing.available_at)}, for {wait} more"
        return Waiting(Reason.SLEEPING, summary, known)
    crash = ", because its worker was lost" if standing.crashes else ""
    return Waiting(Reason.NOT_DUE, f"it is due in {wait}{crash}", known)


def _due(facts: Facts) -> Waiting:
    standing, workers = facts.standing, facts.fleet.workers
    able = [worker for worker in workers if worker.is_suspect == (standing.crashes > 0)]
    serving = [worker for worker in able if worker.serves(standing.type)]
    since = {"since": standing.available_at}
    if not able:
        summary = f"due for {_span(standing.now, standing.available_at)}, and no processor has been heard of lately"
        return Waiting(Reason.NO_PROCESSOR, summary, since)
    if not serving:
        return _without_handler(facts, standing.available_at)
    ready = [worker for worker in serving if not worker.is_draining]
    if not ready:
        nodes = sorted({worker.node for worker in serving})
        summary = f"due for {_span(standing.now, standing.available_at)}, and every processor that serves it is drained"
        return Waiting(Reason.DRAINED, summary, since | {"nodes": nodes})
    return _in_backlog(standing, facts.queue or Queue(0, None), ready)


def _in_backlog(standing: Standing, queue: Queue, ready: Sequence[Worker]) -> Waiting:
    is_more = queue.before > MOST_BEFORE
    before = min(queue.before, MOST_BEFORE)
    slots, busy = sum(worker.slots for worker in ready), sum(worker.busy for worker in ready)
    is_away = all(worker.is_broker_away for worker in ready)
    known = {
        "since": standing.available_at, "before": before, "is_more_before": is_more, "oldest_due_at": queue.oldest_due_at,
        "slots": slots, "busy": busy, "is_broker_away": is_away, "crashes": standing.crashes,
    }  # fmt: skip
    place = f"{_count(before, is_more)} due before it, {busy} of {slots} slots busy"
    if standing.crashes:
        summary = f"its worker was lost {standing.crashes} times, so it runs alone, one such event at a time: {place}"
        return Waiting(Reason.SUSPECT, summary, known)
    due = f"due for {_span(standing.now, standing.available_at)}: {place}"
    if is_away:
        return Waiting(Reason.BROKER_AWAY, f"{due}; the broker is away and processors look by themselves", known)
    return Waiting(Reason.BACKLOG, due, known)


def _count(number: int, is_more: bool) -> str:
    if is_more:
        return f"{number}+ events"
    return f"{number} event" if number == 1 else f"{number} events"


def _moment(moment: datetime) -> str:
    """``2026-11-24 09:30:00 UTC``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(later: datetime, earlier: datetime) -> str:
    """``4 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 2 h``."""
    minutes, seconds = divmod(max(0, round((later - earlier).total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (count, _) in enumerate(units) if count), len(units) - 1)
    return " ".join(
        f"{count} {name}" for place, (count, name) in enumerate(units[first : first + 2]) if count or not place
    )
