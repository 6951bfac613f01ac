"""Every interleaving of the actors' steps, executed.

The explorer walks the graph of states depth first. A state is what is committed, where every actor stands, and which
doorbells are under way. From each state every actor that can go on takes its next step, for every choice that it has. A
state that was met before is not walked again: actors are deterministic, so what follows is the same. Workers that stand
in the same place are alike: one of them steps, and what follows counts for each. PostgreSQL can not take a step back,
so the way to a state is executed again from the last moment without an open transaction, whose rows are put back.

**Crashes.** An actor may crash after every step: its transaction is rolled back and it does nothing more. Where it has
none open, that is the interleaving in which it is never scheduled again; hence recovery is run to its end from every
committed state that was met, not only from the last ones. A crash while waiting for a lock is one right after the wait.

**Waiting.** A statement that waits for a lock goes on waiting, in its actor's thread, with the snapshot it has begun
with, so the snapshot belongs to the state. The actor is not schedulable until the step that frees the lock, and that
step ends when PostgreSQL says that the actor has its answer or waits on. Nothing depends on speed. One actor waits at a
time: which of two is let in first is PostgreSQL's choice and can not be repeated, so a second one is held back until
the first has its answer.

**Time.** Waits end and leases expire when the clock steps, at any moment. It passes over locked rows: whether an expiry
comes to be behind a lock or after it makes no difference, since sweeps skip locked rows and a claim that waits asks
again.

**What is left out**, because nobody else can tell. A transaction that has neither written nor locked anything is ended
at once. And where an actor's next step touches only rows that it has locked or that nobody sees, and can not end the
transaction, then that step (or the actor's crash) comes next: a persistent set, in terms of partial order reduction.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from sqlalchemy import text
from tests.interleaving.actors import REST, Actor, Bell, Place, Violation
from tests.interleaving.world import Seen, World

from holdfast.domain.event import Doorbell
from holdfast.storage import Session

__all__ = ["Explorer", "Found"]

Action = tuple[str, int]
"""An actor's name, or ``CLOCK``, and its choice, or ``CRASH``."""

Key = tuple[Any, ...]

CRASH = -1

CLOCK = "clock"

GONE = "gone"


class Running:
    """An actor at work: its thread and its session, kept for the whole exploration, and where it stands."""

    def __init__(self, actor: Actor, world: World) -> None:
        self.actor = actor
        self.place = actor.start
        self.answer: Future[Place] | None = None
        self.since: Seen | None = None
        """What was committed when the statement that waits had begun."""
        self._is_marked = False
        self._thread = ThreadPoolExecutor(1)
        self._connection = world.database.engine.connect()
        self.session = Session(self._connection)
        self.pid: int = self.session.scalar(text("SELECT pg_backend_pid()")) or 0
        self.session.commit()

    @property
    def is_open(self) -> bool:
        return self.session.in_transaction()

    @property
    def is_gone(self) -> bool:
        return self.place.step == GONE or (self.place.step == REST and not self.place.rounds)

    def has_touched_rows(self) -> bool:
        """Whether the open transaction has written or locked anything: PostgreSQL gives it a number only then."""
        return self.session.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")) is True

    def begin(self, option: int) -> None:
        """Take a step without waiting for its end."""
        self.answer = self._thread.submit(self.actor.take_step, self.session, self.place, option)

    def finish(self) -> None:
        """Note where a step that has ended left the actor."""
        assert self.answer is not None
        place = self.answer.result()
        self.place = replace(place, has_waited=True) if self.since and self.is_open else place
        self.answer = self.since = None

    def mark(self) -> None:
        """Be ready to undo the next step."""
        self._is_marked = self.is_open
        if self._is_marked:
            self.session.connection().exec_driver_sql("SAVEPOINT step")

    def undo(self) -> None:
        """Forget a step whose statement was cancelled, and nothing that the transaction did before."""
        assert self.answer is not None
        self.answer.exception()
        self.answer = None
        if self._is_marked:
            self.session.connection().exec_driver_sql("ROLLBACK TO SAVEPOINT step")
        else:
            self.session.rollback()

    def crash(self) -> None:
        self.session.rollback()
        self.place = Place(GONE, 0)

    def close(self) -> None:
        self.session.close()
        self._connection.close()
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class Moment:
    """A state without open transactions, and so one that can be put back."""

    seen: Seen
    places: dict[str, Place]
    doorbells: tuple[Doorbell, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """A step not taken yet: the last of ``way``, which begins at ``moment`` and leads to ``state`` first."""

    moment: Moment
    way: tuple[Action, ...]
    state: Key
    whole: tuple[str, ...]
    """The same from the very beginning, for people."""
    alike: int = 1
    """Actors that stand where the stepping one does."""


@dataclass(slots=True)
class Found:
    """What an exploration has done."""

    after: dict[Key, list[Key]] = field(default_factory=dict)
    """The graph: the states that follow each state."""
    waits: int = 0
    executed: int = 0
    """Steps executed, repetitions included."""
    runs: int = 0
    endings: int = 0
    """Distinct committed states from which recovery was run to its end."""

    @property
    def steps(self) -> int:
        """Distinct steps: from one state to another."""
        return sum(map(len, self.after.values()))

    @property
    def interleavings(self) -> int:
        """Ways through the graph, from its first state to an end."""

        @cache
        def ways(state: Key) -> int:
            return sum(map(ways, self.after[state])) or 1

        return ways(next(iter(self.after)))

    def __str__(self) -> str:
        return (
            f"{self.interleavings:,} interleavings: {len(self.after):,} states ({self.waits:,} of them with a statement"
            f" that waits for a lock), {self.steps:,} distinct steps, {self.executed:,} steps executed in {self.runs:,}"
            f" runs, recovery run to its end from {self.endings:,} committed states"
        )


class Explorer:
    """See the module."""

    def __init__(self, world: World, bell: Bell, actors: Iterable[Actor], *, is_reversed: bool = False) -> None:
        self.world = world
        self.bell = bell
        self.found = Found()
        self._actors = {actor.name: Running(actor, world) for actor in actors}
        self._pids = {each.pid for each in self._actors.values()}
        self._is_reversed = is_reversed
        self._waiting: Running | None = None
        self._endings: dict[Key, Seen] = {}
        self._todo: list[Branch] = []

    def explore(self) -> Found:
        """Walk the whole graph.

        Raises:
            Violation: with the steps that lead to it.
        """
        seen = self.world.look()
        state = self._state(seen)
        self._meet(state, seen, Branch(self._moment(seen), (), state, ()))
        while self._todo:
            self._run(self._todo.pop())
        for seen in self._endings.values():
            self._abandon()
            self.world.put_back(seen)
            self.world.check(self.world.recover())
            self.found.endings += 1
        return self.found

    def close(self) -> None:
        self._abandon()
        for each in self._actors.values():
            each.close()

    def _run(self, branch: Branch) -> None:
        """Go back, take the branch, and go on from there as long as something is new."""
        self._put_back(branch.moment)
        for action in branch.way[:-1]:
            self._act(action)
        try:
            while self._take(branch):
                branch = self._todo.pop()
        except Violation as exc:
            raise Violation(f"{exc}; after {', '.join(branch.whole)}") from exc

    def _take(self, branch: Branch) -> bool:
        """Take the branch's last step. Whether there is a next one that begins here; it is the last of ``_todo``."""
        self._act(branch.way[-1])
        seen = self.world.look()
        self.world.check(seen)
        state = self._state(seen)
        if state == branch.state:
            # Nothing was found to do, or the actor was held back. Another branch from here may be next.
            return bool(self._todo) and self._todo[-1].state == state and self._todo[-1].way[:-1] == branch.way[:-1]
        self.found.after[branch.state] += [state] * branch.alike
        return state not in self.found.after and self._meet(state, seen, branch)

    def _meet(self, state: Key, seen: Seen, branch: Branch) -> bool:
        """Note a new state and what there is to do in it, if anything."""
        self.found.after[state] = []
        self.found.waits += self._waiting is not None
        self._endings.setdefault(seen.key, seen)
        moment, way = branch.moment, branch.way
        if not any(each.is_open or each.answer for each in self._actors.values()):
            moment, way = self._moment(seen), ()
        choices = self._choices(seen)
        for action, alike in choices if self._is_reversed else reversed(choices):
            self._todo.append(Branch(moment, (*way, action), state, (*branch.whole, self._told(action)), alike))
        return bool(choices)

    def _choices(self, seen: Seen) -> list[tuple[Action, int]]:
        """Every step that can be taken now, once for actors that are alike, and how many those are."""
        idle = [each for each in self._actors.values() if not (each.answer or each.is_gone)]
        unseen = [each for each in idle if each.place.step in each.actor.unseen]
        if unseen:
            return [(action, 1) for action in _steps(unseen[0])]
        places = [self._where(each, seen) for each in idle]
        choices = [
            (action, places.count(place))
            for number, (each, place) in enumerate(zip(idle, places, strict=True))
            if place not in places[:number]
            for action in _steps(each)
        ]
        # The clock and sweeps often find nothing to do; coming first, they spare the others a new run.
        return ([((CLOCK, 0), 1)] if self.world.is_time_awaited(seen) else []) + choices

    def _told(self, action: Action) -> str:
        """The action in words."""
        name, option = action
        if name == CLOCK:
            return "time passes"
        step = self._actors[name].place.step
        return f"{name} crashes" if option == CRASH else f"{name}: {step} {option}" if option else f"{name}: {step}"

    def _act(self, action: Action) -> None:
        """One step, to the point where everyone has an answer or waits."""
        self.found.executed += 1
        name, option = action
        if name == CLOCK:
            self.world.pass_time()
        elif option == CRASH:
            self._actors[name].crash()
            self._answer_waiting()
        else:
            self._step(self._actors[name], option)

    def _step(self, stepping: Running, option: int) -> None:
        doorbells = self.bell.doorbells
        if self._waiting is not None:
            stepping.mark()
        stepping.begin(option)
        if not self._is_answered(stepping):
            if self._waiting is None:
                stepping.since, self._waiting = self.world.look(), stepping
                if stepping.actor.skips_locked and stepping.place.step == REST:
                    raise Violation(f"{stepping.actor.name} waits for a lock")
            else:
                self.world.cancel(stepping.pid)
                stepping.undo()
                self.bell.doorbells = doorbells
            return
        while stepping.is_open and not stepping.has_touched_rows():
            stepping.begin(0)
            assert self._is_answered(stepping)
        if not stepping.is_open:
            self._answer_waiting()

    def _is_answered(self, asked: Running) -> bool:
        """Wait for the end of a step; ``False`` as soon as PostgreSQL says that it waits for one of ours."""
        assert asked.answer is not None
        while not wait([asked.answer], timeout=0.001).done:
            if self.world.is_waiting(asked.pid, self._pids):
                return False
        asked.finish()
        return True

    def _answer_waiting(self) -> None:
        """The end of a transaction may have let the one that waits go on."""
        if self._waiting is not None and self._is_answered(self._waiting):
            self._waiting = None

    def _state(self, seen: Seen) -> Key:
        places = sorted(repr(self._where(each, seen)) for each in self._actors.values())
        return (seen.key, tuple(places), self.world.named(self.bell.doorbells))

    def _where(self, each: Running, seen: Seen) -> Key | str:
        """All that decides what the actor does from here on. Of its token: whether the row has it."""
        if each.is_gone:
            return GONE
        place = each.place
        held = tuple(
            (
                self.world.number(lease.event.id),
                lease.version,
                seen.token_of(lease.event.id) == str(lease.token),
            )
            for lease in place.leases
        )
        since = each.since and each.since.key
        doorbells = self.world.named(place.doorbells)
        rest = (place.step, place.rounds, doorbells, place.has_waited, place.wrote, place.ended)
        return (each.actor.kind, *rest, held, since)

    def _moment(self, seen: Seen) -> Moment:
        return Moment(seen, {name: each.place for name, each in self._actors.items()}, self.bell.doorbells)

    def _put_back(self, moment: Moment) -> None:
        self.found.runs += 1
        self._abandon()
        self.world.put_back(moment.seen)
        self.bell.doorbells = moment.doorbells
        for name, each in self._actors.items():
            each.place = moment.places[name]

    def _abandon(self) -> None:
        """Roll everything back, first those that the one that waits is waiting for."""
        for each in sorted(self._actors.values(), key=lambda each: each is self._waiting):
            if each.answer is not None:
                wait([each.answer])
                each.answer = each.since = None
            each.session.rollback()
        self._waiting = None


def _steps(each: Running) -> list[Action]:
    """What an actor can do now. A crash with nothing open is not a step: see the module."""
    steps = [(each.actor.name, option) for option in each.actor.options(each.place)]
    return [*steps, (each.actor.name, CRASH)] if each.is_open else steps
