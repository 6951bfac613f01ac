"""Workers whose handler runs one event at a time, over all of them: they look, lock the line, count, and claim or wait."""

from dataclasses import replace

from sqlalchemy.orm import Session
from tests.interleaving.actors import LEASE_SECONDS, Place, Worker

from holdfast.storage import aside, candidates, claims, limits

__all__ = ["LINE", "Limited", "Unlocked"]

LINE = "limit:h"
"""Of every event; it lets one run."""


class Limited(Worker):
    """As a processor claims events of a handler with ``limit=Concurrency(1)``."""

    def rest(self, session: Session, place: Place, option: int) -> Place:
        doorbell = self.bell.take(option)
        met = candidates.look(session, [doorbell])
        after = replace(place, rounds=place.rounds - 1, doorbells=(doorbell,))
        return replace(after, step="lock" if met else "give_up")

    def lock(self, session: Session, place: Place, _: int) -> Place:
        limits.lock(session, [LINE])
        return replace(place, step="count")

    def count(self, session: Session, place: Place, _: int) -> Place:
        if limits.running(session, [LINE]).get(LINE, 0) >= 1:
            aside.set_aside(session, {each.event_id: LINE for each in place.doorbells})
            return replace(place, step="commit_aside")
        held = {each.event_id: LINE for each in place.doorbells}
        claimed = claims.claim_events(
            session, place.doorbells, owner=self.name, lease_seconds=LEASE_SECONDS, limits=held
        )
        return replace(place, step="commit_claim", lease=claimed[0][0] if claimed else None, doorbells=())

    def commit_aside(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return self._rested(place)

    def commit(self, session: Session, place: Place, option: int) -> Place:
        super().commit(session, place, option)
        return Place("call", place.rounds)

    def call(self, session: Session, place: Place, _: int) -> Place:
        return replace(place, step="commit_promotion", doorbells=tuple(aside.promote(session, {LINE: 1})))


class Unlocked(Limited):
    """Counts without the lock: what the next one counts is what it saw too."""

    def lock(self, session: Session, place: Place, _: int) -> Place:
        limits.running(session, [LINE])
        return replace(place, step="count")
