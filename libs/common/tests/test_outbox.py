"""The outbox's cursor: every update is looked at once, in whatever order transactions begin, write and end."""

from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from holdfast.domain.event import NewEvent
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Log
from holdfast.storage import claims, events, outbox
from holdfast.storage.database import Database
from holdfast.storage.outbox import Page
from holdfast.storage.snapshot import Snapshot, parse_snapshot
from holdfast.storage.updates import UpdateKey, find_updates

ROUNDS = 60
"""Pages after which a small outbox must be empty."""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test", pool_size=10)
    yield database
    database.close()


def write(session: Session, count: int = 1) -> list[UpdateKey]:
    """New events, each with its first update."""
    made = [NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x") for _ in range(count)]
    events.record(session, made, grace_seconds=0)
    return [(event.id, 1) for event in made]


def look(database: Database, *, limit: int = 100, after_seconds: float = 0) -> Page | None:
    return database.call(outbox.next_page, after_seconds=after_seconds, limit=limit)


def drain(database: Database, *, limit: int = 100) -> list[UpdateKey]:
    """Look and confirm until the outbox is empty; the updates in the order of the pages."""
    seen: list[UpdateKey] = []
    for _ in range(ROUNDS):
        page = look(database, limit=limit)
        if page is None:
            return seen
        seen += page.keys
        database.call(outbox.confirm, page)
    pytest.fail(f"not empty after {ROUNDS} pages")


def execute(database: Database, statement: str) -> Any:
    with database.transaction() as session:
        return session.execute(text(statement))


class Transactions:
    """Transactions side by side, and what they have committed. A slot that is used begins one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[int, tuple[Session, list[UpdateKey]]] = {}
        self.committed: list[UpdateKey] = []

    def hold(self, slot: int) -> None:
        """Be given an id, and write nothing yet: as a handler does before its first effect."""
        self._session(slot).execute(text("SELECT pg_current_xact_id()"))

    def write(self, slot: int) -> None:
        session = self._session(slot)
        self._open[slot][1].extend(write(session, 2))

    def write_in_savepoint(self, slot: int) -> None:
        session = self._session(slot)
        with session.begin_nested():
            self._open[slot][1].extend(write(session))

    def commit(self, slot: int) -> None:
        session, keys = self._open.pop(slot, (None, []))
        if session is not None:
            session.commit()
            session.close()
            self.committed += keys

    def roll_back(self, slot: int) -> None:
        session, _ = self._open.pop(slot, (None, []))
        if session is not None:
            session.close()

    def end(self) -> None:
        for slot in list(self._open):
            self.commit(slot)

    def _session(self, slot: int) -> Session:
        if slot not in self._open:
            self._open[slot] = Session(self._database.engine), []
        return self._open[slot][0]


class Relays:
    """Two relays on one outbox, which may die between looking and confirming."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: dict[int, Page] = {}
        self.looked_at: list[UpdateKey] = []

    def look(self, relay: int, limit: int) -> None:
        """A page that was there is forgotten: its process has died."""
        page = look(self._database, limit=limit)
        if page is not None:
            self._pages[relay] = page
            self.looked_at += page.keys

    def work(self, limit: int) -> None:
        """Look and confirm, as the first relay."""
        self.look(0, limit)
        self.confirm(0)

    def confirm(self, relay: int) -> None:
        if (page := self._pages.pop(relay, None)) is not None:
            self._database.call(outbox.confirm, page)


SLOTS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["hold", "write", "write", "write_in_savepoint", "commit", "commit", "roll_back"]), SLOTS
    ),
    st.tuples(st.just("look"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("confirm"), st.integers(0, 1)),
    st.tuples(st.just("work"), st.integers(1, 3)),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=10, max_size=50))
def test_no_update_is_passed_over_however_transactions_and_relays_take_turns(
    database: Database, steps: list[tuple[Any, ...]]
) -> None:
    transactions, relays = Transactions(database), Relays(database)
    for name, *arguments in steps:
        getattr(relays if name in ("look", "confirm", "work") else transactions, name)(*arguments)
        assert set(relays.looked_at) <= set(transactions.committed), "nothing is told before its commit"
    transactions.end()

    looked_at = relays.looked_at + drain(database, limit=2)

    assert set(looked_at) == set(transactions.committed)
    assert look(database) is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=10, max_size=50))
def test_a_relay_that_lives_looks_at_every_update_once(database: Database, steps: list[tuple[Any, ...]]) -> None:
    transactions, looked_at = Transactions(database), []
    for name, *arguments in steps:
        if name in ("look", "work"):
            page = look(database, limit=arguments[-1])
            looked_at += page.keys if page else []
            if page:
                database.call(outbox.confirm, page)
        elif name != "confirm":
            getattr(transactions, name)(*arguments)
    transactions.end()

    assert Counter(looked_at + drain(database, limit=2)) == Counter(transactions.committed)


def test_a_transaction_that_is_open_for_long_holds_no_other_up_and_is_not_missed(database: Database) -> None:
    with Session(database.engine) as handler:
        handler.execute(text("SELECT pg_current_xact_id()"))
        with database.transaction() as session:
            others = write(session, 20)
        before = drain(database, limit=3)
        assert look(database) is None, "nothing is read again while it runs"
        late = write(handler, 2)
        handler.commit()

    assert sorted(before) == sorted(others)
    assert sorted(drain(database)) == sorted(late)


def test_what_is_committed_while_a_window_is_open_is_in_the_next_one(database: Database) -> None:
    with Session(database.engine) as handler:
        late = write(handler, 2)
        with database.transaction() as session:
            others = write(session, 2)
        opened = look(database)
        assert opened is not None
        database.call(outbox.confirm, opened)
        handler.commit()

    windows = [look(database)]
    assert windows[0] is not None
    database.call(outbox.confirm, windows[0])

    assert sorted(windows[0].keys) == sorted(others)
    assert sorted(drain(database)) == sorted(late)


def test_a_large_outbox_is_read_in_pages_oldest_first(database: Database) -> None:
    keys: list[UpdateKey] = []
    for _ in range(7):
        with database.transaction() as session:
            keys += write(session, 3)
    first = look(database, limit=5)
    assert first is not None
    assert first.keys == [], "they are in the next window"
    database.call(outbox.confirm, first)

    pages = []
    while (page := look(database, limit=5)) is not None:
        pages.append(page.keys)
        database.call(outbox.confirm, page)

    assert [len(each) for each in pages] == [6, 6, 6, 3], "five or a little more: no transaction is cut in two"
    assert [set(each) for each in pages] == [set(keys[at : at + 6]) for at in (0, 6, 12, 18)]


def test_updates_younger_than_asked_for_are_left_to_their_process(database: Database) -> None:
    with database.transaction() as session:
        keys = write(session)
    drained = look(database)
    assert drained is not None
    database.call(outbox.confirm, drained)

    assert look(database, after_seconds=60) is None
    assert [page.keys for page in [look(database)] if page] == [keys]


def test_a_clock_that_was_set_back_stops_nothing(database: Database) -> None:
    with database.transaction() as session:
        keys = write(session)
    execute(database, "UPDATE outbox_cursor SET until_at = now() + interval '1 year'")

    page = look(database, after_seconds=60)
    assert page is not None
    database.call(outbox.confirm, page)

    assert sorted(drain(database)) == sorted(keys)


def test_an_idle_outbox_is_not_written_to(database: Database) -> None:
    with database.transaction() as session:
        write(session)
    drain(database)
    before = execute(database, "SELECT CAST(xmin AS text) FROM outbox_cursor").scalar()

    assert drain(database) == []

    assert execute(database, "SELECT CAST(xmin AS text) FROM outbox_cursor").scalar() == before


def test_the_slower_of_two_relays_moves_nothing(database: Database) -> None:
    with database.transaction() as session:
        write(session, 3)
    slow = look(database)
    assert slow is not None
    drain(database)
    with database.transaction() as session:
        keys = write(session, 3)
    opened = look(database)
    assert opened is not None
    database.call(outbox.confirm, opened)

    database.call(outbox.confirm, slow)

    assert sorted(drain(database)) == sorted(keys)


def test_a_database_restored_into_a_younger_server_goes_on_telling(database: Database) -> None:
    execute(database, "UPDATE outbox_cursor SET confirmed = '9000000:9000000:', until = '9000000:9000000:'")
    with capture_logs() as logged:
        assert look(database) is None
    with database.transaction() as session:
        keys = write(session, 2)
    execute(database, f"UPDATE event_update SET at = at - interval '2 days' WHERE event_id = '{keys[0][0]}'")  # noqa: S608

    assert [line["event"] for line in logged] == [Log.OUTBOX_STARTED_OVER]
    assert drain(database) == [keys[1]], "what is older than the restore is history, whatever its id"


def test_the_release_before_finds_nothing_of_this_one_s_to_relay(database: Database) -> None:
    with database.transaction() as session:
        keys = write(session)
    with database.transaction() as session:
        assert claims.claim_events(session, keys, owner="w", lease_seconds=30)

    marks = execute(database, "SELECT published_at = at FROM event_update ORDER BY version").scalars().all()
    assert marks == [True, True]


def test_an_update_of_the_release_before_is_in_the_outbox_of_this_one(database: Database) -> None:
    with database.transaction() as session:
        [(event_id, _)] = write(session)
    drain(database)
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO event_update (event_id, version, state, attempt, at, detail)"
                " VALUES (:id, 2, 'processing', 1, now(), '{}')"
            ),
            {"id": event_id},
        )
    execute(database, "UPDATE event_update SET published_at = now() WHERE version = 2")

    assert drain(database) == [(event_id, 2)]


def test_updates_are_read_back_oldest_first_without_those_that_are_gone(database: Database) -> None:
    with database.transaction() as session:
        keys = write(session, 3)
    execute(database, "UPDATE event_update SET at = at - random() * interval '1 s'")

    with database.transaction() as session:
        found = find_updates(session, [*keys, (uuid4(), 1)])

    assert [update.at for update in found] == sorted(update.at for update in found)
    assert {(update.event_id, update.version) for update in found} == set(keys)


@given(
    end=st.integers(1, 50),
    running=st.sets(st.integers(1, 49), max_size=8),
    upper=st.integers(1, 49),
    asked=st.integers(1, 60),
)
def test_a_snapshot_is_read_written_and_cut(end: int, running: set[int], upper: int, asked: int) -> None:
    snapshot = Snapshot(end, tuple(sorted(each for each in running if each < end)))
    cut = snapshot.up_to(min(upper, end - 1))

    assert parse_snapshot(str(snapshot)) == snapshot
    assert cut.sees(asked) == (asked <= upper and snapshot.sees(asked))


@pytest.mark.parametrize("snapshot", [Snapshot(7), Snapshot(9, (3, 5)), Snapshot(1000, (999,))])
def test_a_snapshot_means_to_postgresql_what_it_means_here(database: Database, snapshot: Snapshot) -> None:
    asked = "SELECT id, pg_visible_in_snapshot(CAST(CAST(id AS text) AS xid8), CAST(:snapshot AS pg_snapshot))"
    with database.transaction() as session:
        rows = session.execute(text(asked + " FROM generate_series(1, 1005) AS id"), {"snapshot": str(snapshot)}).all()

    assert all(snapshot.sees(transaction_id) == is_seen for transaction_id, is_seen in rows)
