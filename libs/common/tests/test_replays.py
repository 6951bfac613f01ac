"""Replaying one event, and sets of them: history, fences, the rate, and what two processes at once do."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.domain.transitions import AttemptError, Completion, bury, settle
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle, operate, replays
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.operate import Outcome
from holdfast.storage.replay_batches import Batch, due_replays, replay_batch
from holdfast.storage.replays import JobState, NotStarted, Replay

ACTOR = Actor("acme", "abcdefghijkl")
DEAD = EventFilter(state=State.DEAD)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=8)
    yield made
    made.close()


class Story:
    """Events with a past."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, count: int = 1, **attributes: Any) -> list[UUID]:
        kept: dict[str, Any] = {"tenant": "acme", "source": "/s", "type": "x", "data_json": '{"n":1}'} | attributes
        made = [NewEvent(id=uuid7(), ce_id=uuid4().hex, **kept) for _ in range(count)]
        with self.database.transaction() as session:
            events.record(session, made, grace_seconds=0)
        return [event.id for event in made]

    def run(self, *event_ids: UUID, error: AttemptError | None = None) -> None:
        """Claim events and settle them, or bury them with an error."""
        with self.database.transaction() as session:
            claimed = claims.claim_events(
                session, [(each, self.row(each).version) for each in event_ids], owner="w", lease_seconds=30
            )
            ends = [
                bury(lease.event.id, lease.token, error) if error
                else settle(lease.event.id, lease.token, Completion("h", None, 1))
                for lease, _ in claimed
            ]  # fmt: skip
            assert len(lifecycle.apply(session, ends, worker="w")) == len(event_ids)

    def dead(self, count: int = 1, **attributes: Any) -> list[UUID]:
        made = self.record(count, **attributes)
        self.run(*made, error=AttemptError("KeyError", "no", handler="h", traceback="Traceback …", fingerprint="f1"))
        return made

    def processed(self, count: int = 1, **attributes: Any) -> list[UUID]:
        made = self.record(count, **attributes)
        self.run(*made)
        return made

    def row(self, event_id: UUID) -> Row[Any]:
        return self.rows("SELECT * FROM processing_state WHERE event_id = :id", id=event_id)[0]

    def states(self, event_id: UUID) -> list[str]:
        found = self.rows("SELECT state FROM event_update WHERE event_id = :id ORDER BY version", id=event_id)
        return [row.state for row in found]

    def rows(self, statement: str, **parameters: Any) -> list[Row[Any]]:
        with self.database.transaction() as session:
            result: Any = session.execute(text(statement), parameters)
            return list(result) if result.returns_rows else []


@pytest.fixture
def story(database: Database) -> Story:
    return Story(database)


def start(database: Database, wanted: EventFilter = DEAD, *, rate: float = 1000, request: str = "r1") -> Replay:
    with database.transaction() as session:
        begun = replays.start_replay(session, ACTOR, wanted, rate_per_s=rate, idempotency_key=request)
    assert isinstance(begun, Replay), begun
    return begun


def batch(database: Database, replay: Replay, *, limit: int = 500, burst_seconds: float = 2) -> Batch:
    with database.transaction() as session:
        return replay_batch(session, replay.id, limit=limit, burst_seconds=burst_seconds, grace_seconds=5)


def find(database: Database, replay: Replay) -> Replay:
    with database.transaction() as session:
        found = replays.find_replay(session, replay.id, tenant="acme")
    assert found is not None
    return found


def let_time_pass(story: Story, replay: Replay, seconds: float) -> None:
    story.rows(
        "UPDATE replay_job SET next_at = next_at - make_interval(secs => :s) WHERE id = :id", s=seconds, id=replay.id
    )


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    barrier = threading.Barrier(times)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(run, range(times)))


def test_a_tenant_lists_its_own_replays_only(database: Database) -> None:
    begun = [start(database, request=f"r{number}") for number in range(3)]

    with database.transaction() as session:
        own = replays.list_replays(session, tenant="acme", limit=2)
        rest = replays.list_replays(session, tenant="acme", limit=2, before_id=own.next_id)
        others = replays.list_replays(session, tenant="other", limit=2)

    assert ([each.id for each in own.items], own.next_id) == ([begun[2].id, begun[1].id], begun[1].id)
    assert ([each.id for each in rest.items], rest.next_id) == ([begun[0].id], None)
    assert (others.items, others.next_id) == ([], None)


def test_a_replayed_dead_event_starts_over_and_keeps_its_history(database: Database, story: Story) -> None:
    [event_id] = story.dead()

    with database.transaction() as session:
        acted = operate.replay_event(session, ACTOR, event_id, idempotency_key="r", grace_seconds=5)

    assert acted is not None
    assert acted.update is not None
    assert (acted.state, acted.update.event_id, acted.update.version) == ("queued", event_id, 4)
    row = story.row(event_id)
    assert (row.attempt, row.crashes, row.finished_at, row.last_error) == (0, 0, None, None)
    assert story.states(event_id) == ["queued", "processing", "dead", "queued"]
    [error] = story.rows("SELECT * FROM attempt_error WHERE event_id = :id", id=event_id)
    assert (error.error_type, error.traceback, error.fingerprint) == ("KeyError", "Traceback …", "f1")


def test_a_processed_event_stays_and_its_copy_is_linked(database: Database, story: Story) -> None:
    [event_id] = story.processed(subject="s", audience="a", extensions={"k": 1}, data_json="null")

    with database.transaction() as session:
        acted = operate.replay_event(session, ACTOR, event_id, idempotency_key="r", grace_seconds=5)

    assert acted is not None
    assert acted.update is not None
    copy_id = acted.update.event_id
    [original] = story.rows("SELECT * FROM event WHERE id = :id", id=event_id)
    [copy] = story.rows("SELECT * FROM event WHERE id = :id", id=copy_id)
    same = (
        "tenant",
        "source",
        "type",
        "subject",
        "audience",
        "extensions",
        "data_bytes",
        "is_json",
        "time",
        "traceparent",
    )
    assert [_plain(getattr(copy, name)) for name in same] == [_plain(getattr(original, name)) for name in same]
    assert (copy.replay_of, copy.ce_id) == (event_id, f"replay:{event_id}:r")
    assert story.rows("SELECT is_json AND data_bytes = 'null' AS is_null FROM event WHERE id = :id", id=copy_id)[
        0
    ].is_null
    assert story.states(event_id) == ["queued", "processing", "processed"]
    assert len(story.rows("SELECT 1 FROM processed_event_log")) == 1


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.mark.parametrize("kept", [{"data_json": None}, {"data_json": None, "data_bytes": b"\x00\xff"}])
def test_data_that_is_no_json_is_copied_as_it_is(database: Database, story: Story, kept: dict[str, Any]) -> None:
    [event_id] = story.processed(**kept)

    with database.transaction() as session:
        operate.replay_event(session, ACTOR, event_id, idempotency_key="r", grace_seconds=5)

    kinds = story.rows("SELECT is_json, encode(data_bytes, 'hex') AS content FROM event")
    assert (len(kinds), len({tuple(row) for row in kinds})) == (2, 1)


def test_one_request_makes_one_copy_however_often_it_arrives(database: Database, story: Story) -> None:
    [event_id] = story.processed()

    def ask(_: int) -> Any:
        with database.transaction() as session:
            return operate.replay_event(session, ACTOR, event_id, idempotency_key="r", grace_seconds=5)

    acted = at_once(ask, 8)

    assert sum(each.outcome is not Outcome.REPEATED for each in acted) == 1
    assert len({each.update.event_id for each in acted}) == 1
    assert len(story.rows("SELECT 1 FROM audit_log WHERE action = 'replay'")) == 1


@pytest.mark.parametrize("ask", [operate.replay_event, operate.discard_event])
def test_a_request_that_was_held_up_is_not_carried_out_after_its_own_repetition(
    database: Database, story: Story, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any]
) -> None:
    [event_id] = story.dead()
    options = {"grace_seconds": 5} if ask is operate.replay_event else {}
    look = operate._earlier

    def look_and_be_held_up(*arguments: Any) -> Any:
        monkeypatch.setattr(operate, "_earlier", look)
        earlier = look(*arguments)
        with database.transaction() as session:
            ask(session, ACTOR, event_id, idempotency_key="r", **options)
        if ask is operate.discard_event:
            with database.transaction() as session:
                operate.replay_event(session, ACTOR, event_id, idempotency_key="another", grace_seconds=5)
        story.run(event_id, error=AttemptError("KeyError", "again"))
        return earlier

    monkeypatch.setattr(operate, "_earlier", look_and_be_held_up)
    with database.transaction() as session:
        acted = ask(session, ACTOR, event_id, idempotency_key="r", **options)

    assert acted.outcome is Outcome.REPEATED
    assert story.row(event_id).state == "dead"


def test_every_action_is_in_the_audit_log_with_who_and_what(database: Database, story: Story) -> None:
    [replayed, discarded] = story.dead(2)

    with database.transaction() as session:
        operate.replay_event(session, ACTOR, replayed, idempotency_key="r", grace_seconds=5)
        operate.discard_event(session, ACTOR, discarded, idempotency_key=uuid4().hex)
        operate.discard_event(
            session, ACTOR, discarded, idempotency_key=uuid4().hex
        )  # nothing left to do, so nothing to note
    replay = start(database)
    with database.transaction() as session:
        replays.cancel(session, ACTOR, replay.id)

    noted = story.rows("SELECT * FROM audit_log ORDER BY id")
    assert [(row.actor, row.tenant, row.action, row.event_id, row.replay_id) for row in noted] == [
        ("abcdefghijkl", "acme", "replay", replayed, None),
        ("abcdefghijkl", "acme", "discard", discarded, None),
        ("abcdefghijkl", "acme", "start_replay", None, replay.id),
    ]


def test_the_set_is_frozen_when_it_is_asked_for(database: Database, story: Story) -> None:
    chosen = story.dead(3)
    replay = start(database)
    [later] = story.dead()

    done = batch(database, replay)

    assert replay.total == 3
    assert {update.event_id for update in done.updates} == set(chosen)
    assert story.row(later).state == "dead"
    assert (find(database, replay).state, find(database, replay).replayed) == (JobState.DONE, 3)


def test_an_event_that_has_moved_since_is_skipped_even_if_it_is_dead_again(database: Database, story: Story) -> None:
    [moved, discarded, kept] = story.dead(3)
    replay = start(database)
    with database.transaction() as session:
        operate.replay_event(session, ACTOR, moved, idempotency_key="r", grace_seconds=5)
        operate.discard_event(session, ACTOR, discarded, idempotency_key=uuid4().hex)
    story.run(moved, error=AttemptError("KeyError", "again"))

    done = batch(database, replay)

    assert [update.event_id for update in done.updates] == [kept]
    assert (story.row(moved).state, story.row(discarded).state) == ("dead", "discarded")
    over = find(database, replay)
    assert (over.replayed, over.skipped, over.state) == (1, 2, JobState.DONE)


def test_a_replay_of_processed_events_records_each_once_more(database: Database, story: Story) -> None:
    originals = story.processed(5)
    replay = start(database, EventFilter(state=State.PROCESSED))

    done = batch(database, replay)

    copies = {
        row.replay_of: row.id for row in story.rows("SELECT id, replay_of FROM event WHERE replay_of IS NOT NULL")
    }
    assert set(copies) == set(originals)
    assert {update.event_id for update in done.updates} == set(copies.values())
    items = story.rows("SELECT event_id, new_event_id FROM replay_item")
    assert {row.event_id: row.new_event_id for row in items} == copies


@pytest.mark.parametrize(
    ("rate", "late_seconds", "items"), [(10, 0, 1), (10, 0.95, 10), (10, 60, 21), (0.1, 1.5, 1), (100, 0.5, 30)]
)
def test_a_turn_takes_what_the_rate_allows_by_then(
    database: Database, story: Story, rate: float, late_seconds: float, items: int
) -> None:
    story.dead(30)
    replay = start(database, rate=rate)

    with database.transaction() as session:  # in which now() stands still
        late = {"late": late_seconds}
        session.execute(text("UPDATE replay_job SET next_at = now() - make_interval(secs => :late)"), late)
        taken = replay_batch(session, replay.id, limit=500, burst_seconds=2, grace_seconds=5).items
        wait = session.scalar(text("SELECT extract(epoch FROM next_at - now()) FROM replay_job"))

    assert taken == items, "one when the first is due, and of a standstill no more than two seconds' worth"
    assert float(wait) == pytest.approx(items / rate - min(late_seconds, 2))


def test_two_processes_at_once_replay_each_event_once(database: Database, story: Story) -> None:
    chosen = story.dead(60)
    replay = start(database)
    let_time_pass(story, replay, 3600)

    def work(_: int) -> int:
        done = 0
        while find(database, replay).state is JobState.RUNNING:  # a turn finds nothing while another thread has the job
            done += batch(database, replay, limit=5, burst_seconds=3600).items
        return done

    counted = at_once(work, 4)

    assert sum(counted) == 60
    assert {tuple(story.states(each)) for each in chosen} == {("queued", "processing", "dead", "queued")}


def test_a_batch_that_is_not_committed_is_done_again_whole(database: Database, story: Story) -> None:
    chosen = story.dead(10)
    replay = start(database)
    let_time_pass(story, replay, 60)
    with database.transaction() as session:
        undone = replay_batch(session, replay.id, limit=500, burst_seconds=2, grace_seconds=5)
        session.rollback()

    assert undone.items == 10
    assert batch(database, replay).items == 10

    assert {tuple(story.states(each)) for each in chosen} == {("queued", "processing", "dead", "queued")}


def test_a_cancelled_replay_replays_nothing_more(database: Database, story: Story) -> None:
    chosen = story.dead(10)
    replay = start(database)
    let_time_pass(story, replay, 60)
    batch(database, replay, limit=4)
    let_time_pass(story, replay, 60)

    with database.transaction() as session:
        cancelled = replays.cancel(session, ACTOR, replay.id)

    assert cancelled is not None
    assert (cancelled.state, cancelled.replayed) == (JobState.CANCELLED, 4)
    assert batch(database, replay).items == 0
    with database.transaction() as session:
        assert due_replays(session, limit=10) == []
    assert sorted(story.row(each).state for each in chosen) == ["dead"] * 6 + ["queued"] * 4


def test_the_same_request_again_is_the_same_replay(database: Database, story: Story) -> None:
    story.dead(3)

    begun = at_once(lambda _: start(database, request="again"), 4)

    assert len({each.id for each in begun}) == 1
    assert len(story.rows("SELECT 1 FROM replay_item")) == 3


def test_an_empty_set_is_done_at_once(database: Database, story: Story) -> None:
    story.dead(1, tenant="other")

    begun = start(database)

    assert (begun.total, begun.state) == (0, JobState.DONE)


@pytest.mark.parametrize(("most", "counted"), [(None, 3), (3, 3), (2, 3), (1, 2)])
def test_counting_stops_one_beyond_what_is_asked_for(
    database: Database, story: Story, most: int | None, counted: int
) -> None:
    story.dead(3)

    assert database.call(replays.count_matching, DEAD, tenant="acme", most=most) == counted


def test_another_tenants_events_and_replays_are_out_of_reach(database: Database, story: Story) -> None:
    [mine] = story.dead()
    stranger = Actor("stranger", "zzzzzzzzzzzz")
    replay = start(database)

    with database.transaction() as session:
        assert replays.count_matching(session, DEAD, tenant="stranger") == 0
        assert replays.find_replay(session, replay.id, tenant="stranger") is None
        assert replays.cancel(session, stranger, replay.id) is None
        assert operate.replay_event(session, stranger, mine, idempotency_key="r", grace_seconds=5) is None
        assert operate.discard_event(session, stranger, mine, idempotency_key=uuid4().hex) is None

    assert story.row(mine).state == "dead"
    assert find(database, replay).state is JobState.RUNNING


@pytest.mark.parametrize("state", [None, State.QUEUED, State.PROCESSING, State.FAILED])
def test_a_replay_of_what_is_not_over_can_not_be_asked_for(database: Database, state: State | None) -> None:
    with pytest.raises(ValueError, match="dead, discarded, processed"):
        start(database, EventFilter(state=state))


def test_a_set_beyond_the_limit_is_refused_whole(database: Database, story: Story) -> None:
    story.dead(4)

    with database.transaction() as session:
        begun = replays.start_replay(session, ACTOR, DEAD, rate_per_s=1, idempotency_key="r", max_items=3)
        session.rollback()

    assert begun is NotStarted.TOO_MANY_EVENTS
    assert start(database).total == 4
