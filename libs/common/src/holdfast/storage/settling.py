"""Transitions with what comes of them: the events that handlers emitted exist exactly if their event is processed."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from holdfast.domain.errors import IdentityTaken
from holdfast.domain.event import Doorbell, NewEvent
from holdfast.domain.transitions import Transition
from holdfast.domain.update import Update
from holdfast.storage import events, lifecycle, windows
from holdfast.storage.events import Recorded
from holdfast.storage.groups import record_group, take_completed

__all__ = ["Moved", "lock_windows", "move", "record_emitted"]


class Moved(NamedTuple):
    """What was done. ``emitted``: events that are new; those whose ``key`` was there already are not among them. Events that
    they replaced are.
    """

    updates: Sequence[Update]
    emitted: Sequence[Recorded]

    @property
    def all_updates(self) -> list[Update]:
        """To be shown live after the commit."""
        return [*self.updates, *(each.update for each in self.emitted)]

    @property
    def doorbells(self) -> list[Doorbell]:
        """To be rung after the commit: for emitted events that are due."""
        return [each.doorbell for each in self.emitted if each.is_due]


def move(session: Session, transitions: Sequence[Transition], *, worker: str | None = None) -> Moved:
    """Apply transitions, and record what the handlers of those that moved have emitted.

    Raises:
        AlreadyProcessed: see ``lifecycle.apply``.
        IdentityTaken: see :func:`record_emitted`.
    """
    lock_windows(session, transitions)
    updates = lifecycle.apply(session, transitions, worker=worker)
    return Moved(updates, record_emitted(session, transitions, updates))


def lock_windows(session: Session, transitions: Sequence[Transition]) -> None:
    """Lock the keys of what handlers have emitted, before their events end: keys come before groups, see ``windows``."""
    emitted = [each for made in transitions if made.completion is not None for each in made.completion.emitted]
    if any(each.window is not None for each in emitted):
        windows.lock(session, emitted, ending=[each.event_id for each in transitions])


def record_emitted(session: Session, transitions: Iterable[Transition], moved: Iterable[Update]) -> list[Recorded]:
    """Record, in the transaction of these transitions, what the handlers of those that moved have emitted.

    Returns what is new, and the events of groups of which the last member has ended.

    Raises:
        IdentityTaken: a ``key`` belongs to an event with other data. The transaction is to be rolled back.
    """
    completions = {each.event_id: each.completion for each in transitions if each.completion is not None}
    moved_ids = [update.event_id for update in moved]
    done = [completions[event_id] for event_id in moved_ids if event_id in completions]
    new = [child for completion in done for child in completion.emitted]
    groups = [group for completion in done for group in completion.groups]
    kept = windows.record(session, new, grace_seconds=events.GRACE_SECONDS) if new else windows.Kept([])
    for child, each in zip(new, kept.recorded, strict=True):
        if each.is_conflict:
            raise IdentityTaken(_taken(child))
    emitted = [each for each in kept.recorded if each.is_new]
    for group in groups:
        emitted += record_group(session, group, [child.id for child in new if child.group_id == group.id])
    emitted += windows.supersede(session, kept.superseding)
    return emitted + take_completed(session)


def _taken(child: NewEvent) -> str:
    return (
        f"an event of source {child.source!r} with the key {child.ce_id!r} is there already, with other data or another"
        " type; emit with another key"
    )
