"""Members of a group that end at the same time, and the event that follows the last of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import text
from tests.interleaving.actors import REST, Actor, Bell, Place, Sweep, Violation, Worker, write_effect
from tests.interleaving.world import Rows, Seen, World, state_key

from holdfast.domain import transitions
from holdfast.domain.event import Doorbell, NewEvent, NewGroup
from holdfast.domain.state import CLAIMABLE, FINISHED, State
from holdfast.domain.transitions import Completion, Transition
from holdfast.domain.update import Update
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, claims, groups, lifecycle, settling, uncounted
from holdfast.storage.updates import update_of

__all__ = ["Grouped", "GroupSweep", "LateGrouped", "Member", "OfBefore", "Replayer"]

FOLLOWING = UUID(int=(1 << 128) - 1)
"""Stands for the event that follows the group. Behind all others, as that one is: its id is younger."""

JOINED = "joined"
"""That event's type."""

LIMIT = 10


class Grouped(World):
    """The events are one group, made by the handler of another one."""

    further: ClassVar[Sequence[str]] = ("event_group", "event_group_member")
    is_counted_late: ClassVar[bool] = False
    """Whether members that have ended may be counted later."""

    def fill(self, event_count: int, subject: str | None) -> list[UUID]:
        # Events that are made on the way wait for their redispatch until the clock steps.
        self.execute("""
            CREATE OR REPLACE TRIGGER wait_for_the_clock BEFORE INSERT OR UPDATE ON processing_state
                FOR EACH ROW EXECUTE FUNCTION wait_for_the_clock()
        """)
        self._parent_id = self._record(subject)
        with self.database.transaction() as session:
            [(lease, _)] = claims.claim_events(session, [(self._parent_id, 1)], owner="first", lease_seconds=30)
        group = NewGroup(id=uuid7(), tenant="t", parent_id=self._parent_id, type=JOINED, data_json='{"a": 1}')
        members = [
            NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x", parent_id=self._parent_id,
                     group_id=group.id)
            for _ in range(event_count)
        ]  # fmt: skip
        with self.database.transaction() as session:
            lifecycle.hold(session, lease)
            write_effect(session, lease)
            done = Completion("h", None, 0, emitted=tuple(members), groups=(group,))
            settling.move(session, [transitions.settle(lease.event.id, lease.token, done)])
        self.pass_time()
        return sorted(each.id for each in members)

    def key(self, rows: Rows) -> tuple[Any, ...]:
        states = rows["processing_state"]
        claimable = [row for row in states if State(row["state"]) in CLAIMABLE]
        # Which is due first decides whom the poller takes. What has ended is in no order: it ended before or after a step of
        # the clock, whichever was quicker.
        order = [row["event_id"] for row in sorted(claimable, key=lambda row: (row["available_at"], row["event_id"]))]
        places = {row["event_id"]: number for number, row in enumerate(states)}
        done = Counter(row["event_id"] for row in rows["effect"])
        counted = [
            (row["open"], row["processed"], row["dead"], row["discarded"], row["completed_at"] is None)
            for row in rows["event_group"]
        ]
        outcomes = [row["outcome"] for row in sorted(rows["event_group_member"], key=lambda row: row["event_id"])]
        return (
            *map(state_key, states), *map(places.__getitem__, order), *(done[row["event_id"]] for row in states),
            *counted, *outcomes, len(rows["event"]),
        )  # fmt: skip

    def check(self, seen: Seen) -> None:
        super().check(seen)
        [group] = seen.rows["event_group"]
        first = [self._first_end(seen, row["event_id"]) for row in seen.rows["event_group_member"]]
        outcomes = [row["outcome"] for row in seen.rows["event_group_member"]]
        if not self.is_counted_late and outcomes != first:
            raise Violation(f"members ended as {first} and count as {outcomes}")
        counts = {state: group[state] for state in ("processed", "dead", "discarded")}
        ended = Counter(each for each in outcomes if each is not None)
        if Counter(counts) != ended or group["open"] != outcomes.count(None):
            raise Violation(f"members count as {outcomes}, and the group says {counts} and {group['open']} open")
        followed = len(seen.rows["event"])
        if followed != (group["open"] == 0) or (group["completed_at"] is not None) != (group["open"] == 0):
            raise Violation(f"{followed} events follow a group of which {group['open']} are open")
        for event in seen.rows["event"]:
            self._check_following(event, {"group": group["id"], **counts, "data": {"a": 1}})

    def recover(self) -> Seen:
        seen = super().recover()
        if len(seen.rows["event"]) != 1:
            raise Violation(f"{len(seen.rows['event'])} events follow a group of which all have ended")
        return seen

    def number(self, event_id: UUID) -> int:
        return self.event_ids.index(event_id) if event_id in self.event_ids else len(self.event_ids)

    def named(self, doorbells: tuple[Doorbell, ...]) -> tuple[Doorbell, ...]:
        return tuple(
            each if each.event_id in self.event_ids else each._replace(event_id=FOLLOWING) for each in doorbells
        )

    @staticmethod
    def _first_end(seen: Seen, event_id: str) -> str | None:
        """The state in which a member first ended, whatever became of it afterwards."""
        states = [row["state"] for row in seen.rows["event_update"] if row["event_id"] == event_id]
        return next((state for state in states if State(state) in FINISHED), None)

    def _check_following(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        found = json.loads(bytes.fromhex(event["data_bytes"].removeprefix("\\x")))
        if found != data:
            raise Violation(f"the event that follows says {found} where {data} is")
        if (event["type"], event["parent_id"]) != (JOINED, str(self._parent_id)):
            raise Violation(f"what follows is a {event['type']} of {event['parent_id']}")


class LateGrouped(Grouped):
    """A processor of the release before is among those that end members."""

    is_counted_late: ClassVar[bool] = True


class Member(Worker):
    """A worker of members. What ``lifecycle.apply`` does in two statements takes two steps, and rings for what follows."""

    def _apply(self, session: Session, transition: Transition) -> list[Update]:
        return moved(session, transition, self.name)

    def _before_commit(self, session: Session, updates: list[Update], place: Place) -> Place:
        ended = ended_among(session, updates)
        return replace(place, step="count", ended=ended) if ended else place

    def count(self, session: Session, place: Place, _: int) -> Place:
        groups.count_ended(session, place.ended)
        rung = tuple(each.doorbell for each in groups.take_completed(session))
        return replace(place, step="commit", doorbells=rung)

    def commit(self, session: Session, place: Place, option: int) -> Place:
        after = super().commit(session, place, option)
        return replace(after, step="ring", doorbells=place.doorbells) if place.doorbells else after

    def ring(self, session: Session, place: Place, _: int) -> Place:  # noqa: ARG002
        self.bell.ring(place.doorbells)
        return self._rested(place)


class OfBefore(Worker):
    """A worker of the release before, which counts nobody."""

    def _apply(self, session: Session, transition: Transition) -> list[Update]:
        return moved(session, transition, self.name)


class GroupSweep(Sweep):
    """Gives members up whose workers were lost too often, which counts them; and counts those that nobody did.

    It may have to wait for a worker that counts at the same moment.
    """

    skips_locked = False

    def options(self, place: Place) -> range:
        return range(3 if place.rounds else 0) if place.step == REST else range(1)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        if option < 2:
            after = super().rest(session, place, option)
            groups.take_completed(session)  # left to redispatch
            return after
        counted = uncounted.count_uncounted(session, after=uncounted.START, limit=LIMIT)
        rung = tuple(each.doorbell for each in counted.completed)
        # Where a group is open it is locked, whether there is anybody to count or not.
        return replace(place, step="end_turn", rounds=place.rounds - (counted.last_id is not None), doorbells=rung)


class Replayer(Actor):
    """Sends members round again that are dead; a turn that finds none costs no round."""

    def __init__(self, name: str, bell: Bell, *, rounds: int) -> None:
        super().__init__(name, bell, rounds=rounds)
        self.event_ids = sorted({each.event_id for each in bell.doorbells})

    def options(self, place: Place) -> range:
        return range(len(self.event_ids) if place.rounds else 0) if place.step == REST else range(1)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        updates = lifecycle.apply(session, [transitions.replay(self.event_ids[option])])
        rung = tuple(Doorbell(each.event_id, each.version) for each in updates)
        return replace(place, step="end", rounds=place.rounds - bool(updates), doorbells=rung)

    def end(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        self.bell.ring(place.doorbells)
        return self._rested(place)


def moved(session: Session, transition: Transition, worker: str) -> list[Update]:
    """The first statement of ``lifecycle.apply`` alone."""
    rows = lifecycle.execute(session, lifecycle.PLANNED[0], [transition], worker)
    return [update_of(row) for row in rows]


def ended_among(session: Session, updates: list[Update]) -> tuple[groups.Ended, ...]:
    """The members of groups among events that this transaction has moved, where they have ended."""
    ended = {each.event_id: each.state for each in updates if each.state in FINISHED}
    found = session.execute(
        text("SELECT event_id, group_id FROM event_group_member WHERE event_id = ANY (:ids)"), {"ids": list(ended)}
    )
    return tuple(groups.Ended(row.event_id, row.group_id, ended[row.event_id]) for row in found)
