"""What became of events that were handed to ``events.record``."""

from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.event import Doorbell, NewEvent
from holdfast.domain.moment import moment_text
from holdfast.domain.routes import PLAIN, Route
from holdfast.domain.state import State
from holdfast.domain.update import Update

__all__ = ["Recorded", "newly_recorded"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one event handed to ``events.record``.

    ``update`` is the event's state now: the new event's first update, or the original's current state for a duplicate.
    ``is_conflict``: the identity belongs to an event with another type or data, which is left untouched.
    ``due_at``: when a new event is due, if that is later than now: no doorbell is to be rung for it yet.
    ``unique_until``: it is a duplicate by its key, of an event with another identity, until then. ``is_superseded``: a later
    event of its key has taken its place, and ``update`` is its last one.
    ``is_forgotten``: a duplicate of an event that is gone, of which nothing but its identity, id, last state and version is
    known; whether the data is the same nobody can say any more.
    ``doorbell``: what is to be rung for a new event that is due.
    """

    update: Update
    is_duplicate: bool = False
    is_conflict: bool = False
    due_at: datetime | None = None
    unique_until: datetime | None = None
    is_superseded: bool = False
    is_forgotten: bool = False
    route: Route = PLAIN
    weight: int = 1

    @property
    def is_due(self) -> bool:
        """Whether to ring its doorbell after the commit."""
        return self.is_new and self.due_at is None and not self.is_superseded

    @property
    def doorbell(self) -> Doorbell:
        """To be rung, after the commit, for a new event that is due."""
        update = self.update
        return Doorbell(update.event_id, update.version, False, update.tenant, *self.route, self.weight)

    @property
    def is_new(self) -> bool:
        """Whether the event was not there before."""
        return not (self.is_duplicate or self.is_conflict)


def newly_recorded(event: NewEvent, received_at: datetime, route: Route, weight: int) -> Recorded:
    """Of an event that was not there before."""
    due_at = event.deliver_at if event.deliver_at is not None and event.deliver_at > received_at else None
    update = Update(
        event_id=event.id,
        tenant=event.tenant,
        type=event.type,
        audience=event.audience,
        state=State.QUEUED,
        version=1,
        attempt=0,
        at=received_at,
        detail={} if due_at is None else {"deliver_at": moment_text(due_at)},
    )
    return Recorded(update, due_at=due_at, route=route, weight=weight)
