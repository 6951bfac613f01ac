"""What wants an operator's eye now, worst first: sentences with a link to what to look at. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.pauses import Paused
from holdfast.ingest.console import words
from holdfast.storage.nodes import NodeView
from holdfast.storage.statistics import Unserved

__all__ = ["OVERDUE_SECONDS", "Point", "points"]

OVERDUE_SECONDS = 60
"""As the alert ``HoldfastEventsWait`` has it."""


MOST_PAUSES = 5
"""That are named."""

PAUSES = "/console/handlers#pauses"


@dataclass(frozen=True, slots=True)
class Point:
    """One sentence. ``tone``: ``bad`` for what holds events up, ``warn`` for what may."""

    tone: str
    text: str
    link: str


def points(
    *,
    oldest_due_at: datetime | None,
    unserved: Iterable[Unserved],
    nodes: Sequence[NodeView] | None,
    now: datetime,
    pauses: Sequence[Paused] = (),
) -> list[Point]:
    """All that there is; nothing if all is well.

    ``nodes``: ``None`` for somebody who may not see them.
    """
    found = [*_processors(nodes)] if nodes is not None else []
    found += [_paused(each, now) for each in pauses[:MOST_PAUSES]]
    if (more := len(pauses) - MOST_PAUSES) > 0:
        found.append(Point("warn", f"{words.count_text(more)} more pauses are in force.", PAUSES))
    if oldest_due_at is not None and (late := (now - oldest_due_at).total_seconds()) > OVERDUE_SECONDS:
        found.append(Point("bad", f"An event has been due for {words.span(late)}.", "/console/events?state=queued"))
    found += [_unserved(each) for each in unserved if not each.is_served]
    return sorted(found, key=lambda point: point.tone != "bad")


def _paused(each: Paused, now: datetime) -> Point:
    what = "Your tenant" if each.kind == "tenant" else f"The {each.kind} {each.name}"
    said = f" ({each.note})" if each.note else ""
    since = words.since(each.paused_at, now)
    return Point("warn", f"{what} is paused: {each.paused_by} paused it {since}{said}.", PAUSES)


def _processors(nodes: Sequence[NodeView]) -> Iterable[Point]:
    link = "/console/workers"
    alive = [node for node in nodes if node.service == "processor" and not node.is_stale]
    if not alive:
        yield Point("bad", "No processor has been heard of: nothing is processed.", link)
    elif all(node.drain_since for node in alive):
        yield Point("bad", "Every processor is drained: nothing new is processed.", link)
    else:
        for node in alive:
            if node.drain_since:
                yield Point("warn", f"The processor on {node.host} takes nothing new: it is drained.", link)
    for node in nodes:
        if node.is_stale:
            yield Point("warn", f"The {node.service} on {node.host} has said nothing for half a minute.", link)
        elif any(worker.is_broker_away and not worker.is_stale for worker in node.workers):
            yield Point(
                "warn", f"The {node.service} on {node.host} cannot reach the broker; it finds events later.", link
            )
    if nodes and not any(node.service == "maintenance" and not node.is_stale for node in nodes):
        yield Point("bad", "No maintenance has been heard of: lost work is not recovered.", link)


def _unserved(each: Unserved) -> Point:
    count = f"{words.count_text(each.events)}{' or more' if each.is_at_least else ''}"
    noun = "event waits" if each.events == 1 and not each.is_at_least else "events wait"
    return Point("bad", f"{count} {noun} for a handler of {each.type}.", "/console/handlers")
