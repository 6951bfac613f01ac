"""Of events with one key only the last runs (debounce), or only the first (unique): exactly, whoever comes at one time."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event as listener
from sqlalchemy import text

from holdfast.domain.event import NewEvent, NewGroup
from holdfast.domain.transitions import Completion, discard, replay, settle
from holdfast.domain.window import Kind, Window
from holdfast.local.fixtures import Eventually
from holdfast.runtime.ids import uuid7
from holdfast.runtime.telemetry import Metrics
from holdfast.storage import claims, lifecycle, settling, windows
from holdfast.storage.database import Database
from holdfast.storage.events import Recorded
from holdfast.storage.groups import groups_of, record_group

THREADS = 8


def debounce(key: str = "k", *, seconds: int = 3600, most: int | None = None) -> Window:
    return Window(Kind.DEBOUNCE, key, seconds, seconds * 10 if most is None else most)


def unique(key: str = "k", *, seconds: int = 3600) -> Window:
    return Window(Kind.UNIQUE, key, seconds)


def event(window: Window | None, **attributes: Any) -> NewEvent:
    defaults: dict[str, Any] = {
        "id": uuid7(),
        "tenant": "t",
        "source": "/s",
        "ce_id": uuid4().hex,
        "type": "order.placed",
    }
    return NewEvent(window=window, **(defaults | attributes))


class Rows:
    """Records events as ingest does, and looks at what became of them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, *new: NewEvent) -> list[Recorded]:
        return self.told(*new)[0]

    def told(self, *new: NewEvent) -> tuple[list[Recorded], list[Recorded]]:
        with self.database.transaction() as session:
            kept = windows.record(session, new, grace_seconds=60)
            return kept.recorded, windows.supersede(session, kept.superseding)

    def all(self, sql: str, **parameters: Any) -> Sequence[Any]:
        with self.database.transaction() as session:
            return session.execute(text(sql), parameters).all()

    def run(self, sql: str, **parameters: Any) -> None:
        with self.database.transaction() as session:
            session.execute(text(sql), parameters)

    def state(self, event_id: UUID) -> str:
        return str(self.all("SELECT state FROM processing_state WHERE event_id = :id", id=event_id)[0].state)

    def states(self) -> Counter[str]:
        return Counter(row.state for row in self.all("SELECT state FROM processing_state"))

    def due_in(self, event_id: UUID) -> float:
        """Seconds from when it was recorded."""
        [row] = self.all(
            "SELECT extract(epoch FROM s.available_at - e.received_at) AS wait FROM processing_state s"
            " JOIN event e ON e.id = s.event_id WHERE e.id = :id",
            id=event_id,
        )
        return float(row.wait)

    def pass_seconds(self, seconds: float) -> None:
        """Everything was that much earlier."""
        moved = timedelta(seconds=seconds)
        self.run(
            "UPDATE processing_state SET available_at = available_at - :by, next_dispatch_at = next_dispatch_at - :by",
            by=moved,
        )
        self.run("UPDATE event_window SET since = since - :by, until = until - :by", by=moved)

    def claim(self, *event_ids: UUID) -> list[UUID]:
        asked = [(event_id, 1) for event_id in event_ids]
        found = self.database.call(claims.claim_events, asked, owner="w", lease_seconds=30)
        return [lease.event.id for lease, _ in found]


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    database = Database(database_url, application_name="test", pool_size=THREADS + 4)
    yield Rows(database)
    database.close()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_a_later_event_replaces_the_one_that_waits(rows: Rows) -> None:
    first, second = event(debounce(seconds=30)), event(debounce(seconds=60))
    rows.record(first)

    recorded, told = rows.told(second)

    assert recorded[0].is_new
    assert not recorded[0].is_due
    assert (rows.state(first.id), rows.state(second.id)) == ("discarded", "queued")
    assert rows.due_in(second.id) == pytest.approx(60, abs=1)
    assert [(each.update.event_id, each.update.state, each.is_due) for each in told] == [(first.id, "discarded", False)]
    [last] = rows.all("SELECT version, detail FROM event_update WHERE event_id = :id AND version > 1", id=first.id)
    assert last.detail == told[0].update.detail == {"reason": "superseded", "superseded_by": str(second.id)}
    assert last.version == 3, "a version is skipped, as by every discard"


@pytest.mark.parametrize(
    "other", [{"tenant": "u"}, {"type": "order.sent"}, {"window": debounce("other")}, {"window": None}]
)
def test_events_of_other_keys_types_and_tenants_are_none_of_its_business(rows: Rows, other: dict[str, Any]) -> None:
    first, second = event(debounce()), event(**({"window": debounce()} | other))

    rows.record(first)
    rows.record(second)

    assert rows.states() == {"queued": 2}


def test_the_last_of_a_batch_runs(rows: Rows) -> None:
    before = event(debounce())
    batch = [event(debounce()), event(None), event(debounce("other")), event(debounce()), event(debounce())]
    rows.record(before)

    recorded, told = rows.told(*batch)

    assert [each.is_new for each in recorded] == [True] * 5
    assert [rows.state(each.id) for each in batch] == ["discarded", "queued", "queued", "discarded", "queued"]
    assert {each.update.event_id for each in told} == {before.id, batch[0].id, batch[3].id}
    assert {each.update.detail["superseded_by"] for each in told} == {str(batch[4].id)}


def test_it_waits_no_longer_than_its_maximum(rows: Rows) -> None:
    made = [event(debounce(seconds=30, most=50)) for _ in range(4)]
    rows.record(made[0])
    rows.pass_seconds(25)
    rows.record(made[1])
    assert rows.due_in(made[1].id) == pytest.approx(25, abs=1), "50 s after the first one came"
    rows.pass_seconds(24)
    rows.record(made[2])
    assert rows.due_in(made[2].id) == pytest.approx(1, abs=0.9)
    rows.pass_seconds(2)

    rows.record(made[3])

    assert [rows.state(each.id) for each in made] == ["discarded", "discarded", "queued", "queued"]
    assert rows.due_in(made[3].id) == pytest.approx(30, abs=1), "a new wait has begun"
    assert rows.claim(made[2].id, made[3].id) == [made[2].id]


def test_what_is_due_is_not_replaced(rows: Rows) -> None:
    first, second = event(debounce(seconds=30)), event(debounce(seconds=30))
    rows.record(first)
    rows.pass_seconds(31)

    rows.record(second)

    assert (rows.state(first.id), rows.state(second.id)) == ("queued", "queued")


def test_an_event_that_is_sent_again_replaces_nothing_and_moves_nothing(rows: Rows) -> None:
    first, second = event(debounce()), event(debounce(), ce_id="again")
    rows.record(first)
    rows.record(second)
    [before] = rows.all("SELECT * FROM event_window")

    [again] = rows.record(event(debounce(), ce_id="again"))
    [late] = rows.record(event(debounce(), ce_id=first.ce_id))

    assert (again.is_duplicate, again.update.event_id) == (True, second.id)
    assert (late.is_duplicate, late.update.event_id, late.update.state) == (True, first.id, "discarded")
    assert rows.state(second.id) == "queued"
    assert rows.all("SELECT * FROM event_window") == [before]


def test_a_batch_with_one_identity_twice_has_one_event(rows: Rows) -> None:
    window = debounce()
    first = event(window, ce_id="1")

    recorded = rows.record(
        first, event(window, ce_id="1"), event(unique(), ce_id="2"), event(unique(), ce_id="2", type="x")
    )

    assert [(each.is_new, each.is_duplicate, each.is_conflict) for each in recorded] == [
        (True, False, False), (False, True, False), (True, False, False), (False, False, True),
    ]  # fmt: skip
    assert rows.state(first.id) == "queued"


def test_an_event_that_an_operator_discarded_is_no_longer_in_the_way(rows: Rows) -> None:
    first, second = event(debounce()), event(debounce())
    rows.record(first)
    with rows.database.transaction() as session:
        lifecycle.apply(session, [discard(first.id)])

    recorded, told = rows.told(second)

    assert (recorded[0].is_new, told) == (True, [])
    assert rows.due_in(second.id) == pytest.approx(3600, abs=1)


def test_a_superseded_event_can_be_replayed(rows: Rows) -> None:
    first, second = event(debounce()), event(debounce())
    rows.record(first)
    rows.record(second)

    with rows.database.transaction() as session:
        [update] = lifecycle.apply(session, [replay(first.id)])
    assert update.state == "queued"
    assert rows.state(second.id) == "queued"


def test_further_events_of_a_unique_key_are_duplicates_of_the_first(rows: Rows) -> None:
    first = event(unique(seconds=60))
    rows.record(first)

    [again] = rows.record(event(unique(seconds=60), data_json='{"other": "data"}'))

    assert (again.is_duplicate, again.update.event_id, again.update.state) == (True, first.id, "queued")
    assert again.unique_until is not None
    assert rows.states() == {"queued": 1}


def test_a_unique_window_lasts_whatever_becomes_of_the_first_and_then_ends(rows: Rows) -> None:
    first, late = event(unique(seconds=60)), event(unique(seconds=60))
    rows.record(first)
    with rows.database.transaction() as session:
        lifecycle.apply(session, [discard(first.id)])

    rows.pass_seconds(58)
    [within] = rows.record(event(unique(seconds=60)))
    rows.pass_seconds(5)
    [after] = rows.record(late)
    [next_] = rows.record(event(unique(seconds=60)))

    assert (within.is_duplicate, within.update.state) == (True, "discarded")
    assert after.is_new
    assert (next_.is_duplicate, next_.update.event_id) == (True, late.id)


def test_an_event_that_is_sent_again_is_itself_whoever_is_first_now(rows: Rows) -> None:
    first, second = event(unique(seconds=60), ce_id="1"), event(unique(seconds=60))
    rows.record(first)
    rows.pass_seconds(61)
    rows.record(second)

    [again] = rows.record(event(unique(seconds=60), ce_id="1"))
    [conflict] = rows.record(event(unique(seconds=60), ce_id="1", data_json="7"))

    assert (again.is_duplicate, again.update.event_id, again.unique_until) == (True, first.id, None)
    assert conflict.is_conflict


def test_the_first_of_a_batch_is_the_one(rows: Rows) -> None:
    batch = [event(unique()), event(unique()), event(unique("b")), event(None), event(unique("b"))]

    recorded = rows.record(*batch)

    assert [each.is_duplicate for each in recorded] == [False, True, False, False, True]
    assert [each.update.event_id for each in recorded] == [batch[number].id for number in (0, 0, 2, 3, 2)]


def test_a_window_whose_first_event_is_gone_is_open(rows: Rows) -> None:
    first, second = event(unique()), event(unique())
    rows.record(first)
    rows.run("DELETE FROM event WHERE id = :id", id=first.id)

    assert rows.record(second)[0].is_new
    assert rows.record(event(unique()))[0].update.event_id == second.id


def test_of_many_at_once_one_waits(rows: Rows) -> None:
    sent = [[event(debounce()) for _ in range(12)] for _ in range(THREADS)]

    at_once(*(lambda each=each: [rows.record(one) for one in each] for each in sent))

    assert rows.states() == {"queued": 1, "discarded": THREADS * 12 - 1}
    [chained] = rows.all(
        "SELECT count(DISTINCT u.detail->>'superseded_by') AS by, count(*) AS all FROM event_update u WHERE version = 3"
    )
    assert chained.by == chained.all, "each was replaced by another one"


def test_of_many_at_once_one_is_unique(rows: Rows) -> None:
    answers = at_once(*(lambda: rows.record(event(unique()))[0] for _ in range(THREADS)))

    assert sum(each.is_new for each in answers) == 1
    assert len({each.update.event_id for each in answers}) == 1
    assert rows.states() == {"queued": 1}


def test_batches_with_the_same_keys_do_not_deadlock(rows: Rows) -> None:
    keys = [f"{number}" for number in range(6)]

    def send(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(15):
            drawn.shuffle(keys_ := keys.copy())
            rows.record(*(event(drawn.choice([debounce, unique])(key)) for key in keys_))

    at_once(*(lambda seed=seed: send(seed) for seed in range(THREADS)))

    waiting = rows.all(
        "SELECT w.id FROM event_window w JOIN processing_state s ON s.event_id = w.event_id"
        " WHERE w.kind = 'debounce' AND s.state = 'queued'"
    )
    assert len(waiting) == len(keys)
    assert rows.states()["queued"] == 2 * len(keys)


def test_an_event_is_claimed_or_replaced_and_never_both(rows: Rows) -> None:
    fates: Counter[tuple[str, bool]] = Counter()
    for _ in range(40):
        key = uuid4().hex
        first, second = event(debounce(key)), event(debounce(key))
        rows.record(first)
        # Due within the moment in which both come.
        rows.run(
            "UPDATE processing_state SET available_at = clock_timestamp() + interval '4 ms' WHERE event_id = :id",
            id=first.id,
        )

        claimed: list[UUID] = []

        def take(first: NewEvent = first, claimed: list[UUID] = claimed) -> None:
            while not claimed and rows.state(first.id) == "queued":
                claimed.extend(rows.claim(first.id))

        at_once(take, partial(rows.record, second))
        fates[rows.state(first.id), bool(claimed)] += 1
        assert rows.state(second.id) == "queued"

    assert set(fates) <= {("processing", True), ("discarded", False)}, fates


def test_an_event_whose_row_is_locked_is_replaced_once_it_is_free(rows: Rows, eventually: Eventually) -> None:
    first, second = event(debounce()), event(debounce())
    rows.record(first)

    with ThreadPoolExecutor(1) as pool:
        with rows.database.transaction() as session:
            session.execute(text("SELECT FROM processing_state WHERE event_id = :id FOR UPDATE"), {"id": first.id})
            sent = pool.submit(rows.record, second)
            eventually(
                lambda: rows.all(
                    "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
                )
            )
        sent.result(10)

    assert (rows.state(first.id), rows.state(second.id)) == ("discarded", "queued")


def test_a_transaction_that_is_lost_leaves_the_one_that_waited(rows: Rows) -> None:
    first = event(debounce())
    rows.record(first)

    with suppress(ZeroDivisionError), rows.database.transaction() as session:
        kept = windows.record(session, [event(debounce()), event(unique())], grace_seconds=60)
        windows.supersede(session, kept.superseding)
        raise ZeroDivisionError

    assert rows.states() == {"queued": 1}
    assert rows.record(event(unique()))[0].is_new
    assert rows.told(event(debounce()))[1][0].update.event_id == first.id


def _grouped(rows: Rows, *members: NewEvent) -> UUID:
    """A group with these members; the id of the event that made it."""
    parent = event(None)
    rows.record(parent)
    group = NewGroup(id=uuid7(), tenant="t", parent_id=parent.id, type="all.done")
    with rows.database.transaction() as session:
        made = [_member(each, group.id) for each in members]
        windows.record(session, made, grace_seconds=60)
        record_group(session, group, [each.id for each in made])
    return parent.id


def _member(each: NewEvent, group_id: UUID) -> NewEvent:
    return replace(each, group_id=group_id)


def test_a_superseded_member_of_a_group_counts_as_discarded(rows: Rows) -> None:
    parent_id = _grouped(rows, event(debounce()))

    _, told = rows.told(event(debounce()))

    [group] = rows.database.call(groups_of, parent_id)
    assert (group.open, group.discarded, group.completed_at is not None) == (0, 1, True)
    assert [(each.update.type, each.is_due) for each in told] == [("order.placed", False), ("all.done", True)]


def test_members_that_settle_and_members_that_are_replaced_do_not_deadlock(rows: Rows) -> None:
    """Two groups, and handlers of the members of each emit what replaces members of the other one."""
    for _ in range(12):
        keys = [uuid4().hex, uuid4().hex]
        running = [event(None, type="part"), event(None, type="part")]
        parents = [_grouped(rows, running[number], event(debounce(keys[number]))) for number in (0, 1)]
        leases = [
            lease
            for each in running
            for lease, _ in rows.database.call(claims.claim_events, [(each.id, 1)], owner="w", lease_seconds=60)
        ]

        def end(number: int, keys: list[str] = keys, leases: list[Any] = leases) -> None:
            emitted = event(debounce(keys[1 - number]), source="/h")
            lease = leases[number]
            with rows.database.transaction() as session:
                settling.move(
                    session, [settle(lease.event.id, lease.token, Completion("h", None, 1, emitted=(emitted,)))]
                )

        def send(keys: list[str] = keys) -> None:
            rows.record(*(event(debounce(key)) for key in keys))

        at_once(lambda: end(0), lambda: end(1), send)

        for parent_id in parents:
            [group] = rows.database.call(groups_of, parent_id)
            assert (group.open, group.processed, group.discarded) == (0, 1, 1)


def superseded() -> float:
    return float(Metrics.superseded._value.get())


def test_events_that_were_replaced_are_counted_by_the_commit(rows: Rows) -> None:
    before = superseded()

    rows.record(event(debounce()), event(debounce()), event(debounce("other")), event(None))
    assert superseded() == before + 1
    with rows.database.transaction() as session:
        kept = windows.record(session, [event(debounce()), event(debounce("other"))], grace_seconds=60)
        windows.supersede(session, kept.superseding)
        assert superseded() == before + 1, "nothing is committed yet"

    assert superseded() == before + 3


def test_what_a_handler_replaces_is_counted_too(rows: Rows) -> None:
    parent = event(None)
    rows.record(event(debounce()), parent)
    [(lease, _)] = rows.database.call(claims.claim_events, [(parent.id, 1)], owner="w", lease_seconds=60)
    before = superseded()

    emitted = event(debounce(), source="/h")
    rows.database.call(
        settling.move, [settle(lease.event.id, lease.token, Completion("h", None, 1, emitted=(emitted,)))]
    )

    assert superseded() == before + 1


def test_what_is_rolled_back_was_not_replaced(rows: Rows) -> None:
    first = event(debounce())
    rows.record(first)
    before = superseded()

    with suppress(ZeroDivisionError), rows.database.transaction() as session:
        kept = windows.record(session, [event(debounce())], grace_seconds=60)
        windows.supersede(session, kept.superseding)
        raise ZeroDivisionError
    with rows.database.transaction() as session:
        savepoint = session.begin_nested()
        kept = windows.record(session, [event(debounce())], grace_seconds=60)
        windows.supersede(session, kept.superseding)
        savepoint.rollback()

    assert (superseded(), rows.state(first.id)) == (before, "queued")


def test_ended_windows_are_forgotten_in_small_steps(rows: Rows) -> None:
    rows.record(*(event(debounce(str(number))) for number in range(5)), event(unique(seconds=7200)))
    rows.pass_seconds(3601)

    with rows.database.transaction() as session:
        session.execute(text("SELECT FROM event_window ORDER BY until LIMIT 1 FOR UPDATE"))
        assert rows.database.call(windows.delete_ended, limit=3) == 3, "a key that somebody uses is skipped"
    assert rows.database.call(windows.delete_ended, limit=3) == 2
    assert rows.database.call(windows.delete_ended, limit=3) == 0
    assert [row.kind for row in rows.all("SELECT kind FROM event_window")] == ["unique"]


def test_an_event_without_a_window_costs_no_further_statement(rows: Rows) -> None:
    seen: list[str] = []
    listener.listen(rows.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))

    rows.record(event(None))

    assert not [each for each in seen if "event_window" in each]
    assert len([each for each in seen if "holdfast_record" in each or "INSERT INTO event" in each]) == 1
