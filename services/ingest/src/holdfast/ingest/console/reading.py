"""What the pages show, read through the functions that the API reads with; each call is one transaction."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from holdfast.domain.waiting import Waiting
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.parts import parts
from holdfast.storage import (
    audit,
    event_views,
    groups,
    key_changes,
    listing,
    nodes,
    overview,
    replays,
    statistics,
    steps,
    waiting,
)
from holdfast.storage.audit import AuditFilter, AuditPage
from holdfast.storage.dead_letters import DeadGroup, dead_groups
from holdfast.storage.event_views import EventView, TimelineEntry
from holdfast.storage.filters import EventFilter
from holdfast.storage.key_changes import KeyPage
from holdfast.storage.keys import KeyEntry
from holdfast.storage.listing import Attempt, Page
from holdfast.storage.nodes import NodeView
from holdfast.storage.overview import OpenCounts
from holdfast.storage.replays import Action, Replay, ReplayPage
from holdfast.storage.statistics import Point, Unserved, Window

__all__ = [
    "COUNTED",
    "PAGE",
    "EventStory",
    "all_events",
    "audit_page",
    "count_matching",
    "event_story",
    "event_view",
    "find_key",
    "flow",
    "groups_of_dead",
    "key_page",
    "list_events",
    "list_nodes",
    "list_replays",
    "one_replay",
    "open_counts",
    "unserved",
]

COUNTED = 10_000
"""Events that are counted before a replay, which takes some 30 ms; of more the page says that they are more."""


PAGE = 200
"""Events of one statement, as the API has them at most."""


@dataclass(frozen=True, slots=True)
class EventStory:
    """An event, all that happened to it, and what it waits for."""

    view: EventView
    timeline: list[TimelineEntry]
    attempts: list[Attempt]
    waiting: Waiting | None
    """Why it has not been processed yet; ``None`` for one that is done with."""
    has_emitted: bool
    """Whether its handler made other events."""
    groups: list[groups.Group]
    """Groups among those, in their order."""
    steps: list[steps.Step]
    """What its handlers have stored, oldest first."""


def list_events(wanted: EventFilter, *, tenant: str, limit: int, before_id: UUID | None = None) -> Page:
    """A page of events, newest first."""
    return reconnecting(
        lambda: parts().database.call(listing.list_events, wanted, tenant=tenant, limit=limit, before_id=before_id)
    )


def all_events(wanted: EventFilter, tenant: str, most: int) -> Iterator[EventView]:
    """Events, newest first, each page read when it is wanted."""
    before_id: UUID | None = None
    while most > 0:
        page = list_events(wanted, tenant=tenant, limit=min(most, PAGE), before_id=before_id)
        yield from page.items
        most -= len(page.items)
        before_id = page.next_id
        if before_id is None:
            return


def event_view(event_id: UUID, tenant: str) -> EventView | None:
    """One event of the tenant."""
    return reconnecting(lambda: parts().database.call(event_views.find, event_id=event_id, tenant=tenant))


def event_story(event_id: UUID, tenant: str) -> EventStory | None:
    """One event of the tenant with its timeline, its attempts and what it waits for."""

    def read() -> EventStory | None:
        with parts().database.transaction() as session:
            view = event_views.find(session, event_id=event_id, tenant=tenant)
            if view is None:
                return None
            return EventStory(
                view, event_views.timeline(session, event_id=event_id), listing.attempts(session, event_id=event_id),
                waiting.why(session, event_id), event_views.has_emitted(session, event_id=event_id),
                groups.groups_of(session, event_id), steps.steps_of(session, event_id),
            )  # fmt: skip

    return reconnecting(read)


def open_counts(tenant: str) -> OpenCounts:
    """What of the tenant's is waiting or running."""
    return reconnecting(lambda: parts().database.call(overview.open_counts, tenant=tenant))


def unserved(tenant: str) -> list[Unserved]:
    """The types for which events wait and nobody is there."""
    return reconnecting(lambda: parts().database.call(statistics.unserved, tenant))


def groups_of_dead(tenant: str, limit: int) -> list[DeadGroup]:
    """Dead letters by cause, the largest group first."""
    return reconnecting(lambda: parts().database.call(dead_groups, tenant=tenant, limit=limit))


def count_matching(wanted: EventFilter, tenant: str) -> int:
    """How many events a replay or discard that was started now would have; of more than :data:`COUNTED` one more."""
    return reconnecting(lambda: parts().database.call(replays.count_matching, wanted, tenant=tenant, most=COUNTED))


def list_replays(tenant: str, action: Action, *, limit: int, before_id: UUID | None = None) -> ReplayPage:
    """The tenant's replays, or discards, newest first."""
    return reconnecting(
        lambda: parts().database.call(
            replays.list_replays, tenant=tenant, action=action, limit=limit, before_id=before_id
        )
    )


def one_replay(replay_id: UUID, tenant: str, action: Action) -> Replay | None:
    """One replay, or discard, of the tenant."""
    return reconnecting(lambda: parts().database.call(replays.find_replay, replay_id, tenant=tenant, action=action))


def flow(tenant: str, window: Window) -> list[Point]:
    """What happened in each step of a window, oldest first."""

    def read() -> list[Point]:
        with parts().database.transaction() as session:
            since = window.since(statistics.present(session))
            return statistics.flow(session, tenant, since=since, step_seconds=window.step_seconds)

    return reconnecting(read)


def audit_page(wanted: AuditFilter, tenant: str, *, limit: int, after_id: int | None) -> AuditPage:
    """Entries of the audit log, newest first."""
    return reconnecting(
        lambda: parts().database.call(audit.list_audit, wanted, tenant=tenant, limit=limit, after_id=after_id)
    )


def key_page(tenant: str, *, limit: int, after_id: str | None) -> KeyPage:
    """The tenant's API keys, newest first."""
    return reconnecting(
        lambda: parts().database.call(key_changes.key_page, tenant=tenant, limit=limit, after_id=after_id)
    )


def find_key(key_id: str, tenant: str) -> KeyEntry | None:
    """One API key of the tenant."""
    return reconnecting(lambda: parts().database.call(key_changes.find_entry, key_id, tenant=tenant))


def list_nodes() -> list[NodeView]:
    """Every node that was heard of lately, by service and host."""
    return reconnecting(lambda: parts().database.call(nodes.list_nodes))
