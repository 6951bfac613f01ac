"""What services do all the time, beside a million events: alone, beside a backlog that statistics do not know, and beside
one that they do. Each statement is planned for its parameters, and once for all parameters.

Bounds are in pages of 8 KiB that all statements of a function read together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from bench.history import block, fall_due, make_history
from sqlalchemy import text
from tests.history.plans import Plan, explained

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.domain.transitions import Completion, settle
from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import (
    Session,
    backlog,
    candidates,
    claims,
    dead_letters,
    dispatch,
    event_views,
    events,
    keys,
    lanes,
    leases,
    lifecycle,
    listing,
    outbox,
    replay_batches,
    replays,
    revocations,
    served,
)
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

BLOCKED, DUE = 50_000, 100_000

LIST = 8
"""Events in a list, where a function takes one."""

EACH = 60
"""Pages an event: its row and indexes, the history, the log, and what it was recorded with."""

DEAD = 500
"""Dead letters in the history, of all tenants; each takes five pages to look at."""


@dataclass(frozen=True, slots=True)
class World:
    """A database, and events in it that functions are tried on. ``apart`` is due and its subject has few events."""

    database: Database
    apart: UUID
    ready: list[tuple[UUID, int]]
    processed: UUID
    dead: UUID
    lane: UUID

    def plans(self, work: Callable[[Session, "World"], object], *, is_generic: bool) -> list[Plan]:
        """The plans of ``work``, of which nothing stays.

        It is done once before: a new session reads catalogues for the statements within a function, which count as its own.
        """
        with self.database.transaction() as session:
            work(session, self)
            session.rollback()
        with explained(self.database, is_generic=is_generic) as plans, self.database.transaction() as session:
            work(session, self)
            session.rollback()
        return plans


APART = """
SELECT s.event_id FROM processing_state s JOIN event e ON e.id = s.event_id
WHERE s.state = 'queued' AND s.lane_key IS NULL AND e.subject LIKE 'subject-%' LIMIT 1
"""


def one(database: Database, condition: str) -> UUID:
    with database.transaction() as session:
        found = session.scalar(text(f"SELECT event_id FROM processing_state WHERE {condition} LIMIT 1"))  # noqa: S608
    return found or uuid4()


def look_at(database: Database) -> World:
    ready = """
        SELECT event_id, version FROM processing_state
        WHERE state = 'queued' AND lane_key IS NULL AND available_at <= now() LIMIT :limit
    """
    with database.transaction() as session:
        rows = [(row.event_id, row.version) for row in session.execute(text(ready), {"limit": LIST})]
        lane = session.scalar(text("SELECT lane_key FROM processing_state WHERE waiting_since IS NOT NULL LIMIT 1"))
        apart = session.scalars(text(APART)).first() or uuid4()
    return World(
        database, apart, rows, one(database, "state = 'processed'"), one(database, "state = 'dead'"), lane or uuid4()
    )


class Scene:
    """A copy of the history, to which a backlog comes."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self._postgres, self._name = postgres, name
        self._is_crowded = False
        # Statistics stay as old as a test wants them.
        for table in ("event", "processing_state", "event_update"):
            self.run(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        self.database = Database(postgres.url(name), application_name="test", pool_size=1)

    def run(self, statements: str) -> str:
        return self._postgres.execute(statements, database=self._name)

    def become(self, kind: str) -> World:
        """``quiet``, then ``crowded``, then ``analyzed``."""
        if kind == "quiet":
            fall_due(self.run, 10 * LIST)
        elif not self._is_crowded:
            block(self.run, BLOCKED)
            fall_due(self.run, DUE)
            self._is_crowded = True
        if kind == "analyzed":
            self.run("VACUUM ANALYZE")
        return look_at(self.database)


@pytest.fixture(scope="module")
def scene(postgres: Postgres, history_name: str) -> Iterator[Scene]:
    name = f"test_{uuid4().hex}"
    postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{history_name}" STRATEGY file_copy')
    made = Scene(postgres, name)
    yield made
    made.database.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module", params=["quiet", "crowded", "analyzed"])
def world(request: pytest.FixtureRequest, scene: Scene) -> World:
    return scene.become(request.param)


def claim_and_settle(session: Session, world: World) -> None:
    leased = claims.claim_events(session, world.ready, owner="w", lease_seconds=30)
    for lease, _ in leased:
        lifecycle.hold(session, lease, timeout_seconds=5)
    leases.extend(session, [lease for lease, _ in leased])
    done = [settle(lease.event.id, lease.token, Completion("h", None, 7)) for lease, _ in leased]
    lifecycle.apply(session, done)


def record(session: Session, _: World) -> None:
    """New events and one that is there already."""
    same: dict[str, Any] = {"tenant": "acme", "source": "/new", "type": "t", "subject": "s", "audience": "a"}
    made = [NewEvent(id=uuid7(), ce_id=str(number), **same) for number in range(LIST)]
    events.record(session, made, grace_seconds=5)
    events.record(session, [NewEvent(id=uuid7(), ce_id="0", **same)], grace_seconds=5)


def show(session: Session, world: World) -> None:
    """What the page of one event asks."""
    for event_id in (world.processed, world.dead):
        event_views.find(session, event_id=event_id, tenant="acme")
        event_views.timeline(session, event_id=event_id)
        listing.attempts(session, event_id=event_id)


def search(session: Session, **options: Any) -> None:
    claims.claim_due(session, owner="w", lease_seconds=30, limit=LIST, **options)


def replay_dead(session: Session, _: World) -> None:
    """Freeze the dead letters of one cause and work off the first ones."""
    wanted = EventFilter(state=State.DEAD, error_type="KeyError")
    begun = replays.start_replay(session, Actor("acme", "k"), wanted, rate_per_s=LIST, idempotency_key="k")
    assert isinstance(begun, replays.Replay)
    replay_batches.due_replays(session, limit=10)
    replay_batches.replay_batch(session, begun.id, limit=LIST, burst_seconds=2, grace_seconds=5)


Work = Callable[[Session, World], object]

WORK: dict[str, tuple[Work, int]] = {
    "record": (record, LIST * EACH),
    "claim and settle": (claim_and_settle, LIST * 3 * EACH),
    "search": (lambda session, _: search(session), LIST * EACH),
    "search for those overdue": (lambda session, _: search(session, overdue_seconds=2.0), LIST * EACH),
    "search for suspects": (
        lambda session, _: search(session, is_suspect=True, unserved_types=["com.example.never"]), EACH,
    ),
    "look": (lambda session, world: candidates.look(session, world.ready), LIST * EACH),
    "wait for turn": (lambda session, world: lanes.wait_for_turn(session, [i for i, _ in world.ready]), LIST * EACH),
    "wait for handler": (
        lambda session, world: served.wait_for_handler(session, [i for i, _ in world.ready], look_again_seconds=9),
        LIST * EACH,
    ),
    "assign": (lambda session, world: lanes.assign(session, world.apart, lambda _: True), 2 * EACH),
    "promote": (lambda session, world: lanes.promote(session, world.lane), EACH),
    "promote forgotten": (lambda session, _: lanes.promote_forgotten(session, limit=500), 50 * EACH),
    "unserved types": (lambda session, _: served.unserved_types(session), EACH),
    "redispatch": (lambda session, _: dispatch.redispatch_due(session, limit=100), 100 * EACH),
    "undo redispatch": (lambda session, world: dispatch.undo_redispatch(session, world.ready), LIST * EACH),
    "recover": (lambda session, _: leases.recover_expired(session, limit=500), EACH),
    "relay": (lambda session, _: outbox.next_page(session, after_seconds=0, limit=500), 500),
    "age of the backlog": (lambda session, _: backlog.oldest_due_age_seconds(session, with_suspects=False), EACH),
    "open events": (lambda session, _: backlog.open_events(session), 1_000 + (BLOCKED + DUE) // 10),
    "show": (show, 2 * EACH),
    "groups of dead letters": (lambda session, _: dead_letters.dead_groups(session, tenant="acme", limit=50), DEAD * 8),
    "groups of nobody": (lambda session, _: dead_letters.dead_groups(session, tenant="nobody", limit=50), DEAD * 8),
    "replay dead letters": (replay_dead, DEAD * 8),
    "count dead letters": (
        lambda session, _: replays.count_matching(session, EventFilter(state=State.DEAD), tenant="acme"), DEAD * 8,
    ),
    "find a replay": (lambda session, _: replays.find_replay(session, uuid4(), tenant="acme"), EACH),
    "list replays": (lambda session, _: replays.list_replays(session, tenant="acme", limit=LIST), EACH),
    "find a key": (lambda session, _: keys.find_key(session, "abcdefghijkl"), EACH),
    "revocations": (lambda session, _: revocations.revocations_after(session, 0, limit=500), EACH),
}  # fmt: skip


ASKED_BY_PEOPLE = {
    "show", "groups of dead letters", "groups of nobody", "replay dead letters", "count dead letters", "find a replay",
    "list replays",
}  # fmt: skip
"""Planned each time: seldom asked, and their best plan depends on what is asked."""


@pytest.mark.parametrize(
    ("name", "is_generic"),
    [
        pytest.param(name, is_generic, id=f"{name}-{'planned once' if is_generic else 'planned each time'}")
        for name in WORK
        for is_generic in ([False] if name in ASKED_BY_PEOPLE else [False, True])
    ],
)
def test_work_costs_what_it_is_about(world: World, name: str, is_generic: bool) -> None:
    work, most = WORK[name]

    plans = world.plans(work, is_generic=is_generic)

    told = "\n\n".join(f"{plan.statement}\n{plan.text}" for plan in plans)
    assert sum(plan.buffers for plan in plans) <= most, told
    assert [plan.scanned for plan in plans if plan.scanned] == [], told


MISLED = {"search": DUE // 2 // 25}
"""A search sorts all that is due, until autovacuum has looked; it used to join them as well, at 201,500 pages."""


@pytest.mark.parametrize("is_generic", [False, True], ids=["planned-each-time", "planned-once"])
def test_statistics_of_an_empty_database_mislead_no_claim(postgres: Postgres, is_generic: bool) -> None:
    name = clone_template(postgres)
    scene = Scene(postgres, name)
    scene.run("ANALYZE")
    make_history(scene.run, DUE, is_analyzed=False)
    fall_due(scene.run, DUE // 2)
    block(scene.run, BLOCKED)
    world = look_at(scene.database)

    read = {each: world.plans(WORK[each][0], is_generic=is_generic) for each in ("claim and settle", "look", "search")}

    for each, plans in read.items():
        told = "\n\n".join(f"{plan.statement}\n{plan.text}" for plan in plans)
        assert sum(plan.buffers for plan in plans) <= MISLED.get(each, WORK[each][1]), told
    scene.database.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
