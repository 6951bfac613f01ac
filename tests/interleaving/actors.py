"""Who takes part: workers, the poller and the sweep, each a sequence of database steps.

A step runs at most one statement of ``storage`` or ends the transaction, and says where it leaves the actor. Everything an
actor knows is in its :class:`Place`, so that an actor in the same place with the same database behind it goes on in the
same way. The steps follow ``processor.execute`` and ``maintenance``; what those do besides (publish, log, count) touches no
event.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import text

from holdfast.domain import transitions
from holdfast.domain.errors import AlreadyProcessed, LaneTaken, LeaseLost
from holdfast.domain.event import Doorbell, Lease
from holdfast.domain.state import CLAIMABLE, State
from holdfast.domain.transitions import AttemptError, Completion, Transition
from holdfast.domain.update import Update
from holdfast.storage import Session, cancels, claims, dispatch, lanes, leases, lifecycle
from holdfast.storage.groups import Ended

__all__ = [
    "Actor",
    "Attentive",
    "Bell",
    "CancelSweep",
    "Joiner",
    "Operator",
    "Place",
    "Poller",
    "Sweep",
    "Violation",
    "Worker",
    "held",
    "write_effect",
]

REST = "rest"
"""The step between two rounds: no transaction, nothing in hand."""

LEASE_SECONDS = 30
"""Never over by itself: see ``world``."""

LIMIT = 10
"""Events a sweep takes: more than there are."""


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor stands: the step it takes next, and all that it knows.

    ``rounds`` is how often it may still begin anew. ``others`` are leases beside ``lease``. ``has_waited``: a statement of
    the open transaction waited for a lock (PostgreSQL may leave the row locked even where its new version fits no guard).
    ``wrote``: what is not committed yet, where the step alone does not tell. ``ended``: members of groups that are to be
    counted before the commit.
    """

    step: str
    rounds: int
    lease: Lease | None = None
    others: tuple[Lease, ...] = ()
    doorbells: tuple[Doorbell, ...] = ()
    lanes: tuple[UUID, ...] = ()
    has_waited: bool = False
    wrote: str = ""
    ended: tuple[Ended, ...] = ()

    @property
    def leases(self) -> tuple[Lease, ...]:
        """All in hand."""
        return (() if self.lease is None else (self.lease,)) + self.others


class Bell:
    """The doorbells under way: a list with duplicates, taken from in any order."""

    def __init__(self) -> None:
        self.doorbells: tuple[Doorbell, ...] = ()

    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        self.doorbells = tuple(sorted([*self.doorbells, *doorbells]))

    @property
    def kinds(self) -> list[Doorbell]:
        """Each doorbell once."""
        return sorted(set(self.doorbells))

    def take(self, kind: int) -> Doorbell:
        taken = self.kinds[kind]
        number = self.doorbells.index(taken)
        self.doorbells = self.doorbells[:number] + self.doorbells[number + 1 :]
        return taken


Step = Callable[[Session, Place, int], Place]


class Actor:
    """One actor: a name, and a step for every place but ``rest``, where it begins."""

    unseen: frozenset[str] = frozenset()
    """Steps of which nobody else can tell, neither while nor after: see ``explorer``."""
    skips_locked: bool = False
    """Whether it looks for any event at all when it begins a round, and so must not wait for a locked one."""

    def __init__(self, name: str, bell: Bell, *, rounds: int) -> None:
        self.name = name
        self.kind = type(self).__name__
        self.bell = bell
        self.start = Place(REST, rounds)

    def options(self, place: Place) -> range:
        """The choices it has for its next step; none when it has nothing to do."""
        return range(1 if place.step != REST or place.rounds else 0)

    def take_step(self, session: Session, place: Place, option: int) -> Place:
        """Take the step that ``place`` names."""
        step: Step = getattr(self, place.step)
        return step(session, place, option)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        """Begin a round."""
        raise NotImplementedError

    @staticmethod
    def _rested(place: Place) -> Place:
        return Place(REST, place.rounds)


class Worker(Actor):
    """Takes doorbells; ``outcomes`` are what its handler may do: succeed, raise, or be interrupted by a shutdown."""

    unseen = frozenset({"write_effect"})

    def __init__(
        self, name: str, bell: Bell, *, rounds: int, outcomes: Sequence[str] = ("succeed",), is_ordered: bool = False
    ) -> None:
        super().__init__(name, bell, rounds=rounds)
        self.outcomes = tuple(outcomes)
        self.kind += str(self.outcomes)
        self.is_ordered = is_ordered
        if self.unseen and self.outcomes == ("succeed",):
            self.unseen |= {"finish_handler"}

    def options(self, place: Place) -> range:
        if place.step == REST:
            return range(len(self.bell.kinds) if place.rounds else 0)
        return range(len(self.outcomes) if place.step == "finish_handler" else 1)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        doorbell = self.bell.take(option)
        try:
            claimed = claims.claim_events(session, [doorbell], owner=self.name, lease_seconds=LEASE_SECONDS)
        except LaneTaken:
            return replace(place, step="give_up", rounds=place.rounds - 1)
        if not claimed and self.is_ordered:
            return replace(place, step="wait_for_turn", rounds=place.rounds - 1, doorbells=(doorbell,))
        return self._claimed(claimed, place)

    def wait_for_turn(self, session: Session, place: Place, _: int) -> Place:
        waiting = lanes.wait_for_turn(session, [each.event_id for each in place.doorbells])
        return replace(place, step="commit_wait", doorbells=(), lanes=tuple(waiting.values()))

    def commit_wait(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="promote", has_waited=False) if place.lanes else self._rested(place)

    def promote(self, session: Session, place: Place, _: int) -> Place:
        doorbell = lanes.promote(session, place.lanes[0])
        return replace(place, step="commit_promotion", doorbells=(doorbell,) if doorbell else ())

    def commit_promotion(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        self.bell.ring(place.doorbells)
        return self._rested(place)

    def commit_claim(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="hold") if place.lease else self._rested(place)

    def hold(self, session: Session, place: Place, _: int) -> Place:
        try:
            lifecycle.hold(session, held(place))
        except LeaseLost:
            return replace(place, step="give_up")
        except AlreadyProcessed:
            return replace(place, step="roll_back_effects")
        return replace(place, step="write_effect")

    def write_effect(self, session: Session, place: Place, _: int) -> Place:
        write_effect(session, held(place))
        return replace(place, step="finish_handler")

    def finish_handler(self, session: Session, place: Place, option: int) -> Place:
        outcome = self.outcomes[option]
        if outcome != "succeed":
            session.rollback()
            return replace(place, step=outcome, has_waited=False)
        try:
            updates = self._apply(session, self.settling(held(place)))
        except AlreadyProcessed:
            session.rollback()
            return replace(place, step="resettle", has_waited=False)
        self._check_own(updates, place)
        return self._settled(session, updates, place)

    def commit(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        if self.is_ordered and place.wrote == "effect" and (lane := held(place).lane):
            return Place("promote", place.rounds, lanes=(lane,))
        return self._rested(place)

    def give_up(self, session: Session, place: Place, _: int) -> Place:
        session.rollback()
        return self._rested(place)

    def roll_back_effects(self, session: Session, place: Place, _: int) -> Place:
        session.rollback()
        return replace(place, step="resettle", has_waited=False)

    def resettle(self, session: Session, place: Place, _: int) -> Place:
        return self._moved(session, place, transitions.resettle(held(place).event.id, held(place).token))

    def fail(self, session: Session, place: Place, _: int) -> Place:
        return self._moved(session, place, self.failing(held(place)))

    def bury(self, session: Session, place: Place, _: int) -> Place:
        error = AttemptError("Reject", "no")
        return self._moved(session, place, transitions.bury(held(place).event.id, held(place).token, error))

    def release(self, session: Session, place: Place, _: int) -> Place:
        return self._moved(session, place, transitions.release(held(place).event.id, held(place).token))

    def settling(self, lease: Lease) -> Transition:
        """The transition after success."""
        return transitions.settle(lease.event.id, lease.token, Completion("h", None, 0))

    def failing(self, lease: Lease) -> Transition:
        """The transition after an error."""
        return transitions.fail(lease.event.id, lease.token, AttemptError("ValueError", "no"), delay_seconds=60)

    def _claimed(self, claimed: Sequence[tuple[Lease, Update]], place: Place) -> Place:
        lease = claimed[0][0] if claimed else None
        return replace(place, step="commit_claim", rounds=place.rounds - 1, lease=lease)

    def _settled(self, session: Session, updates: list[Update], place: Place) -> Place:
        if not updates:
            raise Violation(f"{self.name} has locked the row and lost its lease")
        return self._before_commit(session, updates, replace(place, step="commit", wrote="effect"))

    def _moved(self, session: Session, place: Place, transition: Transition) -> Place:
        updates = self._apply(session, transition)
        self._check_own(updates, place)
        return self._before_commit(session, updates, replace(place, step="commit", wrote=place.step))

    def _apply(self, session: Session, transition: Transition) -> list[Update]:
        return lifecycle.apply(session, [transition], worker=self.name)

    def _before_commit(self, session: Session, updates: list[Update], place: Place) -> Place:  # noqa: ARG002
        """Where to go on after a move, which is at the commit unless there is more to do."""
        return place

    def _check_own(self, updates: list[Update], place: Place) -> None:
        """A lease is the right to move the event on from the version it was claimed at, and from no other."""
        for update in updates:
            if update.version != held(place).version + 1:
                raise Violation(
                    f"{self.name} claimed version {held(place).version} and moved the event to {update.version}"
                )


class Poller(Worker):
    """A worker that asks the database instead of waiting for the bell, for suspects or for the others.

    Asking in vain costs no round.
    """

    skips_locked = True

    def options(self, place: Place) -> range:
        if place.step == REST:
            return range(2 if place.rounds else 0)
        return super().options(place)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        claimed = claims.claim_due(
            session, owner=self.name, lease_seconds=LEASE_SECONDS, limit=1, is_suspect=bool(option)
        )
        return self._claimed(claimed, place) if claimed else replace(place, step="give_up")


class Caller(Worker):
    """A worker whose handler works outside the database: it holds no transaction meanwhile and keeps its lease alive.

    Effects outside are at least once; what must be single is the settling, so that is where it writes.
    """

    unseen = frozenset()

    def hold(self, session: Session, place: Place, option: int) -> Place:
        after = super().hold(session, place, option)
        return replace(after, step="commit_hold") if after.step == "write_effect" else after

    def commit_hold(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="extend", has_waited=False)

    def extend(self, session: Session, place: Place, _: int) -> Place:
        is_held = bool(leases.extend(session, [held(place)]))
        return replace(place, step="commit_extend" if is_held else "give_up")

    def commit_extend(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="finish_handler", has_waited=False)

    def _settled(self, session: Session, updates: list[Update], place: Place) -> Place:
        if not updates:
            return replace(place, step="give_up")
        write_effect(session, held(place))
        return super()._settled(session, updates, place)


class Joiner(Worker):
    """A process that claims two events at once and settles them at once, and holds no row while its handlers run."""

    unseen = frozenset()

    def rest(self, session: Session, place: Place, option: int) -> Place:
        taken = [self.bell.take(option), *(self.bell.take(0) for _ in self.bell.kinds[:1])]
        claimed = claims.claim_events(session, taken, owner=self.name, lease_seconds=LEASE_SECONDS)
        leases = sorted((lease for lease, _ in claimed), key=lambda lease: lease.event.id)
        return replace(
            place, step="commit_claim", rounds=place.rounds - 1, lease=leases[0] if leases else None,
            others=tuple(leases[1:]),
        )  # fmt: skip

    def commit_claim(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="finish_handler") if place.lease else self._rested(place)

    def finish_handler(self, session: Session, place: Place, option: int) -> Place:
        del option
        updates = lifecycle.apply(session, [self.settling(lease) for lease in place.leases], worker=self.name)
        self._check_own(updates, place)
        moved = {update.event_id for update in updates}
        for lease in place.leases:
            if lease.event.id in moved:
                write_effect(session, lease)
        return replace(place, step="commit", wrote="effect")

    def _check_own(self, updates: list[Update], place: Place) -> None:
        versions = {lease.event.id: lease.version for lease in place.leases}
        for update in updates:
            if update.version != versions[update.event_id] + 1:
                raise Violation(
                    f"{self.name} claimed version {versions[update.event_id]} and moved the event to {update.version}"
                )


class Attentive(Worker):
    """Looks whether its event is to be cancelled while its handler runs, and then ends it, whatever the handler has done."""

    def write_effect(self, session: Session, place: Place, _: int) -> Place:
        write_effect(session, held(place))
        return replace(place, step="look")

    def look(self, session: Session, place: Place, _: int) -> Place:
        """As ``cancels.requested``, within this session: in no transaction of its own it sees what is committed as well."""
        event_id = str(held(place).event.id)
        [found] = session.connection().exec_driver_sql(cancels.REQUESTED, {"event_ids": [event_id]}).scalars()
        if not found:
            return replace(place, step="finish_handler")
        session.rollback()
        return replace(place, step="cancel", has_waited=False)

    def cancel(self, session: Session, place: Place, _: int) -> Place:
        return self._moved(session, place, self.cancelling(held(place)))

    def cancelling(self, lease: Lease) -> Transition:
        """The transition of a cancelled event."""
        return transitions.cancel(lease.event.id, lease.token, by="operator")


class Operator(Actor):
    """Cancels an event, as ``operate.cancel_event`` does, without its audit."""

    def __init__(self, name: str, bell: Bell, *, rounds: int, event_id: UUID | None = None) -> None:
        super().__init__(name, bell, rounds=rounds)
        self.event_id = event_id or bell.doorbells[0].event_id

    def rest(self, session: Session, place: Place, _: int) -> Place:
        row = session.execute(
            text("SELECT state, version FROM processing_state WHERE event_id = :id"), {"id": self.event_id}
        ).one()
        session.commit()  # READ COMMITTED: the next statement sees what is committed by then all the same
        place = replace(place, rounds=place.rounds - 1, doorbells=(Doorbell(self.event_id, row.version),))
        if row.state == State.PROCESSING:
            return replace(place, step="ask")
        return replace(place, step="discard") if State(row.state) in CLAIMABLE else self._rested(place)

    def ask(self, session: Session, place: Place, _: int) -> Place:
        cancels.ask(session, self.event_id, version=place.doorbells[0].version, actor=self.name)
        return replace(place, step="end")

    def discard(self, session: Session, place: Place, _: int) -> Place:
        move = replace(transitions.discard(self.event_id), from_states=CLAIMABLE)
        moved = lifecycle.apply(session, [replace(move, expected_version=place.doorbells[0].version)])
        # What changed meanwhile is read again, which is another round.
        return replace(place, step="end", rounds=place.rounds + (not moved))

    def end(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return self._rested(place)


class Sweep(Actor):
    """Maintenance's two duties, each at any time; a turn that finds nothing costs no round."""

    skips_locked = True

    def options(self, place: Place) -> range:
        if place.step == REST:
            return range(2 if place.rounds else 0)
        return range(1)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        return self._redispatch(session, place) if option else self._recover(session, place)

    def end_turn(self, session: Session, place: Place, _: int) -> Place:
        session.commit()
        return replace(place, step="ring") if place.doorbells else self._rested(place)

    def ring(self, session: Session, place: Place, _: int) -> Place:  # noqa: ARG002
        self.bell.ring(place.doorbells)
        return self._rested(place)

    def _recover(self, session: Session, place: Place) -> Place:
        updates = leases.recover_expired(session, limit=LIMIT)
        return replace(place, step="end_turn", rounds=place.rounds - bool(updates))

    def _redispatch(self, session: Session, place: Place) -> Place:
        lanes.promote_forgotten(session, limit=LIMIT)
        doorbells = tuple(dispatch.redispatch_due(session, limit=LIMIT))
        return replace(place, step="end_turn", rounds=place.rounds - bool(doorbells), doorbells=doorbells)


class CancelSweep(Sweep):
    """Carries requests to cancel out as well, where no worker has the event."""

    def options(self, place: Place) -> range:
        if place.step == REST:
            return range(3 if place.rounds else 0)
        return range(1)

    def rest(self, session: Session, place: Place, option: int) -> Place:
        return self._carry_out(session, place) if option == 2 else super().rest(session, place, option)

    def _carry_out(self, session: Session, place: Place) -> Place:
        updates = cancels.carry_out(session, limit=LIMIT)
        return replace(place, step="end_turn", rounds=place.rounds - bool(updates))


def held(place: Place) -> Lease:
    """The lease in hand; every step past the claim has one."""
    assert place.lease is not None
    return place.lease


def write_effect(session: Session, lease: Lease) -> None:
    """What a handler does. Nothing in the table would hide a doublet."""
    session.execute(text("INSERT INTO effect VALUES (:event_id)"), {"event_id": lease.event.id})
