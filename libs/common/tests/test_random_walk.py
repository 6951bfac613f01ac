"""The state machine on a random walk: the SQL against the pure rules, whatever comes after whatever.

``test_state_machine`` tries every transition from every state that was made by force; here states come about by the
transitions themselves, several events share the tables, and every step is committed. Before each step the pure rule says what
must become of every row; afterwards all rows and their histories are compared with it. The choices are derandomized: each run
walks the same ways.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from tests.walks.model import Model, clock, is_between, look, rows_of

from holdfast.domain import transitions
from holdfast.domain.errors import LeaseLost
from holdfast.domain.event import Doorbell, Lease, NewEvent
from holdfast.domain.state import CLAIMABLE, State
from holdfast.domain.transitions import LEGAL_EDGES, AttemptError, Completion, Grant, Snapshot, Transition
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, aside, candidates, claims, dispatch, events, leases, lifecycle, limits
from holdfast.storage.database import Database
from holdfast.storage.lanes import WAIT_SECONDS

WALKS = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True, database=None, print_blob=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

ERROR = AttemptError("ValueError", "no", handler="h", traceback="…", fingerprint="f", duration_ms=1)

HELD: dict[str, Callable[[UUID, UUID], Transition]] = {
    "settle": lambda event_id, token: transitions.settle(event_id, token, Completion("h", {"a": 1}, 3)),
    "resettle": transitions.resettle,
    "fail": lambda event_id, token: transitions.fail(event_id, token, ERROR, delay_seconds=0),
    "fail for an hour": lambda event_id, token: transitions.fail(event_id, token, ERROR, delay_seconds=3600),
    "bury": lambda event_id, token: transitions.bury(event_id, token, ERROR),
    "release": transitions.release,
    "recover": lambda event_id, token: transitions.recover(event_id, token, crashes=0),
    "recover for the last time": lambda event_id, token: transitions.recover(event_id, token, crashes=2),
    "cancel": lambda event_id, token: transitions.cancel(event_id, token, by="ann"),
}
"""What the holder of a token may do."""

OPERATORS: dict[str, Callable[[UUID], Transition]] = {"replay": transitions.replay, "discard": transitions.discard}

EVENTS: Bundle[UUID] = Bundle("events")
LEASES = st.just(0) | st.integers(0, 9)
"""Which lease: 0 is the newest one, and most others have been lost."""
VERSIONS = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
LINE = "limit:h"
"""Of events that may run one at a time."""
SECONDS = st.sampled_from([0.0, 3600.0])
MARGINS = st.sampled_from([0.0, 60.0])
"""How long ago a time must have come: a minute is over only for events for which time has passed."""


class Walk(RuleBasedStateMachine):
    """Transitions in any order, by holders, late holders, sweeps and operators."""

    database: ClassVar[Database]
    reached: ClassVar[set[tuple[State, State]]] = set()
    seen: ClassVar[set[str]] = set()
    """What became of lines."""

    @initialize(target=EVENTS)
    def record(self) -> MultipleResults[UUID]:
        """Few events, so that a walk takes each of them far. Two have failed, which few walks would come to."""
        recorded = [NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x") for _ in range(3)]
        with self.database.transaction() as session:
            session.execute(text("DELETE FROM event"))
        for event in recorded:  # each at a time of its own: which is older must be known
            with self.database.transaction() as session:
                events.record(session, [event], grace_seconds=0)
                rows = rows_of(session)
        self.leases: list[Lease] = []
        self.events = {
            event_id: Model(row, row.available_at, history=[(1, "queued", 0, {})]) for event_id, row in rows.items()
        }
        for event, kind in zip(recorded[1:], ("fail", "bury"), strict=True):
            self._claim(event.id, 1, 0.0)
            self._apply(HELD[kind](event.id, self.leases[-1].token))
        return multiple(*(event.id for event in recorded))

    @rule(event_id=EVENTS, behind=VERSIONS, seconds=SECONDS)
    def claim(self, event_id: UUID, behind: int, seconds: float) -> None:
        self._claim(event_id, self._version(event_id) - behind, seconds)

    def _claim(self, event_id: UUID, version: int, seconds: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            doorbells = [Doorbell(event_id, version), Doorbell(uuid4(), version)]
            claimed = claims.claim_events(session, doorbells, owner="w", lease_seconds=seconds)
            return {event_id: self._claims(event_id, version, [lease for lease, _ in claimed], seconds)}

        self._step(run)

    @rule(limit=st.integers(1, 3), is_suspect=st.booleans(), seconds=SECONDS, overdue_seconds=MARGINS)
    def claim_due(self, limit: int, is_suspect: bool, seconds: float, overdue_seconds: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            claimed = claims.claim_due(
                session, owner="w", lease_seconds=seconds, limit=limit, is_suspect=is_suspect,
                overdue_seconds=overdue_seconds,
            )  # fmt: skip
            leases = [lease for lease, _ in claimed]
            due = self._oldest(
                session, limit, overdue_seconds, lambda row: row.available_at,
                lambda row: row.state in CLAIMABLE and (row.crashes > 0) == is_suspect and not self._waits(row),
            )  # fmt: skip
            assert {lease.event.id for lease in leases} == set(due)
            return {event_id: self._claims(event_id, self._version(event_id), leases, seconds) for event_id in due}

        self._step(run)

    @rule(event_id=EVENTS, behind=VERSIONS, seconds=SECONDS)
    def claim_limited(self, event_id: UUID, behind: int, seconds: float) -> None:
        """As a processor claims an event of a handler that runs one at a time: it looks first, and lets the event wait."""
        version = self._version(event_id) - behind

        def run(session: Session) -> dict[UUID, Transition]:
            met = [each.event_id for each in candidates.look(session, [Doorbell(event_id, version)])]
            limits.lock(session, [LINE])
            is_reached = any(model.limit for model in self.events.values())
            assert limits.running(session, [LINE]) == ({LINE: 1} if is_reached else {})
            if not met or is_reached:
                self._set_aside(session, met)
                return {}
            claimed = claims.claim_events(
                session, [(event_id, version)], owner="w", lease_seconds=seconds, limits={event_id: LINE}
            )
            self.seen.add("starts from the line" if self.events[event_id].line else "starts")
            return {event_id: self._claims(event_id, version, [lease for lease, _ in claimed], seconds, LINE)}

        self._step(run)

    @rule(event_id=EVENTS, count=st.sampled_from([0, 0, 0, 1, 2]))
    def wait_or_call(self, event_id: UUID, count: int) -> None:
        """An event is set aside, or the first ones of the line are called: in one rule, or few steps would be claims."""
        if count:
            self._promote(count)
            return
        with self.database.transaction() as session:
            self._set_aside(session, [event_id])

    def _set_aside(self, session: Session, event_ids: Sequence[UUID]) -> None:
        aside.set_aside(session, dict.fromkeys(event_ids, LINE))
        now: datetime = session.execute(text("SELECT now()")).scalar_one()
        for model in (self.events[event_id] for event_id in event_ids):
            if model.row.state in CLAIMABLE:
                self.seen.add("waits on" if model.line else "waits")
                model.waits(LINE, now + timedelta(seconds=WAIT_SECONDS))

    def _promote(self, count: int) -> None:
        with self.database.transaction() as session:
            now: datetime = session.execute(text("SELECT now()")).scalar_one()
            rung = aside.promote(session, {LINE: count})
        first = self._waiting()[:count]
        assert sorted(rung) == sorted(
            Doorbell(each.row.event_id, each.row.version, each.row.crashes > 0, "t") for each in first
        )
        for each in first:
            self.seen.add("is called")
            each.is_called(now + timedelta(seconds=5))

    @rule(number=LEASES, kind=st.sampled_from(sorted(HELD)))
    def move(self, number: int, kind: str) -> None:
        lease = self._lease(number)
        self._apply(HELD[kind](lease.event.id, lease.token))

    @rule(event_id=EVENTS, kind=st.sampled_from(list(OPERATORS)))
    def operate(self, event_id: UUID, kind: str) -> None:
        self._apply(OPERATORS[kind](event_id))

    @rule(event_id=EVENTS, behind=VERSIONS)
    def await_handler(self, event_id: UUID, behind: int) -> None:
        self._apply(transitions.await_handler(event_id, self._version(event_id) - behind, delay_seconds=0))

    @rule(number=LEASES, seconds=SECONDS)
    def keep(self, number: int, seconds: float) -> None:
        lease = replace(self._lease(number), seconds=seconds)
        event_id, model = lease.event.id, self.events[lease.event.id]
        is_held = model.row.lease_token == lease.token
        with self.database.transaction() as session, nullcontext() if is_held else pytest.raises(LeaseLost):
            lifecycle.hold(session, lease)
        with self.database.transaction() as session:
            before = clock(session)
            extended = leases.extend(session, [lease])
            found, now = rows_of(session)[event_id], clock(session)
        assert extended == ({event_id: True} if is_held else {})
        if found.lease_expires_at is not None and is_held:
            assert before <= found.lease_expires_at - timedelta(seconds=seconds) <= now
            model.row = replace(model.row, lease_expires_at=found.lease_expires_at)

    @rule(
        duty=st.sampled_from(["recover", "redispatch", "pass_time"]), event_id=EVENTS, limit=st.integers(1, 3),
        margin=MARGINS,
    )  # fmt: skip
    def maintain(self, duty: str, event_id: UUID, limit: int, margin: float) -> None:
        if duty == "recover":
            self._recover(limit, margin)
        elif duty == "redispatch":
            self._redispatch()
        else:
            self._pass_time(event_id)

    def _recover(self, limit: int, margin: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            expired = self._oldest(
                session, limit, margin, lambda row: row.lease_expires_at, lambda row: row.state is State.PROCESSING
            )
            updates = leases.recover_expired(session, limit=limit, expired_for_seconds=margin)
            assert {update.event_id for update in updates} == set(expired)
            rows = {event_id: self.events[event_id].row for event_id in expired}
            return {
                event_id: transitions.recover(event_id, row.lease_token or uuid4(), crashes=row.crashes)
                for event_id, row in rows.items()
            }

        self._step(run)

    def _redispatch(self) -> None:
        with self.database.transaction() as session:
            now: datetime = session.execute(text("SELECT now()")).scalar_one()
            rung = dispatch.redispatch_due(session, limit=100)
        due = [each for each in self.events.values() if each.row.state in CLAIMABLE and each.rings_at <= now]
        assert sorted(rung) == sorted(
            Doorbell(each.row.event_id, each.row.version, each.row.crashes > 0, "t") for each in due
        )
        for each in due:
            each.rings_at = now + timedelta(seconds=min(30 * 2**each.dispatches, 1800))
            each.dispatches += 1

    def _pass_time(self, event_id: UUID) -> None:
        """Two hours pass for one event."""
        earlier = text("""
            UPDATE processing_state SET available_at = available_at - interval '2 h',
                next_dispatch_at = next_dispatch_at - interval '2 h', lease_expires_at = lease_expires_at - interval '2 h',
                waiting_since = waiting_since - interval '2 h'
            WHERE event_id = :event_id
        """)
        with self.database.transaction() as session:
            session.execute(earlier, {"event_id": event_id})
        model, passed = self.events[event_id], timedelta(hours=2)
        expiry = model.row.lease_expires_at
        model.rings_at -= passed
        model.due_at = model.due_at and model.due_at - passed
        model.row = replace(
            model.row, available_at=model.row.available_at - passed, lease_expires_at=expiry and expiry - passed
        )

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        with self.database.transaction() as session:
            found = look(session)
            lines = aside.lines(session, limit=10)
        assert found == {event_id: model.found for event_id, model in self.events.items()}
        # Whoever waits is in a line that is found, and so is called in its turn.
        assert lines == ([LINE] if self._waiting() else [])

    def _apply(self, transition: Transition) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            lifecycle.apply(session, [transition], worker="w")
            return {transition.event_id: transition}

        self._step(run)

    def _step(self, run: Callable[[Session], dict[UUID, Transition]]) -> None:
        """Run a statement, and let the model make the moves that it should have made."""
        with self.database.transaction() as session:
            before = clock(session)
            wanted = run(session)
            found, now = rows_of(session), clock(session)
        for event_id, transition in wanted.items():
            model = self.events[event_id]
            earliest, latest = (model.after(transition, now=moment) for moment in (before, now))
            row = found[event_id]
            if latest is not None and (earliest is not None or row.version > model.row.version):
                assert is_between(row, earliest or latest, latest)
                self.reached.add((model.row.state, row.state))
                model.moves(transition, row)

    def _claims(
        self, event_id: UUID, version: int, leases: list[Lease], seconds: float, limit: str | None = None
    ) -> Transition:
        own = [lease for lease in leases if lease.event.id == event_id]
        self.leases += own
        return transitions.claim(event_id, version, Grant(own[0].token if own else uuid4(), "w", seconds, limit))

    def _oldest(
        self,
        session: Session,
        limit: int,
        margin: float,
        time: Callable[[Snapshot], datetime | None],
        fits: Callable[[Snapshot], bool],
    ) -> list[UUID]:
        """The events of a kind whose time has come, oldest first. ``now()`` stands still within a transaction."""
        now: datetime = session.execute(text("SELECT now()")).scalar_one()
        latest = now - timedelta(seconds=margin)
        come = [(when, row.event_id) for row in self._rows() if fits(row) and (when := time(row)) and when <= latest]
        return [event_id for _, event_id in sorted(come)[:limit]]

    def _waiting(self) -> list[Model]:
        """Who waits in the line, the first one first."""
        waiting = [(each.due_at, event_id, each) for event_id, each in self.events.items() if each.line and each.due_at]
        return [each for _, _, each in sorted(waiting)]

    def _waits(self, row: Snapshot) -> bool:
        return self.events[row.event_id].line is not None

    def _rows(self) -> list[Snapshot]:
        return [model.row for model in self.events.values()]

    def _version(self, event_id: UUID) -> int:
        return self.events[event_id].row.version

    def _lease(self, number: int) -> Lease:
        return self.leases[-1 - number % len(self.leases)]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test")
    yield database
    database.close()


@pytest.mark.timeout(600)  # some 20 s on a machine of its own
def test_the_sql_follows_the_pure_rules_on_every_walk(database: Database) -> None:
    Walk.database, Walk.reached, Walk.seen = database, set(), set()

    run_state_machine_as_test(Walk, settings=WALKS)

    assert Walk.reached == LEGAL_EDGES, "the walks are too short to say much"
    assert Walk.seen == {"starts", "starts from the line", "waits", "waits on", "is called"}
