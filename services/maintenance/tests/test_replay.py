"""Replay: sets of events, sent round again by any number of processes that may die."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from holdfast.domain.state import State
from holdfast.local.fixtures import Eventually
from holdfast.maintenance.replay import replay
from holdfast.messaging.announce import Announcer
from holdfast.storage import replays
from holdfast.storage.database import Database
from holdfast.storage.replays import Replay

Start = Callable[..., Any]


def find(database: Database, begun: Replay) -> Replay:
    with database.transaction() as session:
        found = replays.find_replay(session, begun.id, tenant="acme")
    assert found is not None
    return found


def has_replayed(database: Database, begun: Replay, count: int) -> bool:
    return find(database, begun).replayed >= count


def work(database: Database, announcer: Announcer, *, limit: int = 500) -> int:
    return replay(database, announcer, limit=limit, burst_seconds=2, grace_seconds=5)


def be_late(database: Database) -> None:
    """As if maintenance had been away for a minute: more than one event is due."""
    with database.transaction() as session:
        session.execute(text("UPDATE replay_job SET next_at = now() - interval '1 min'"))


def clock(database: Database) -> datetime:
    with database.transaction() as session:
        now: datetime = session.scalars(text("SELECT clock_timestamp()")).one()
    return now


def next_at(database: Database, begun: Replay) -> datetime:
    with database.transaction() as session:
        statement = text("SELECT next_at FROM replay_job WHERE id = :id")
        moment: datetime = session.scalars(statement, {"id": begun.id}).one()
    return moment


def rounds(database: Database) -> Counter[int]:
    """How often events were queued again → how many events."""
    with database.transaction() as session:
        counted = session.scalars(
            text("SELECT count(*) FILTER (WHERE detail->>'reason' = 'replayed') FROM event_update GROUP BY event_id")
        )
        return Counter(counted)


def test_replayed_events_are_told_and_rung_for(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    event_ids = events.finished(3)
    begun = events.begin_replay()
    be_late(database)

    assert work(database, announcer) == 3

    assert sorted(in_redis.doorbells()) == sorted((event_id, 4) for event_id in event_ids)
    [told] = in_redis.published(event_ids[0])
    assert (told["version"], told["detail"]) == (4, {"reason": "replayed"})
    assert find(database, begun).state == "done"


def test_copies_of_processed_events_are_told_and_rung_for(
    database: Database, announcer: Announcer, events: Any, in_redis: Any
) -> None:
    originals = events.finished(2, is_dead=False)
    events.begin_replay(State.PROCESSED)
    be_late(database)

    assert work(database, announcer) == 2

    rung = in_redis.doorbells()
    assert len(rung) == 2
    assert not {event_id for event_id, _ in rung} & set(originals)
    assert [update["state"] for update in in_redis.published(rung[0][0])] == ["queued"]


def test_without_redis_the_replay_goes_on_and_the_rest_is_left_to_the_sweeps(
    database: Database, make_announcer: Callable[[str], Announcer], closed_url: str, events: Any
) -> None:
    event_ids = events.finished(3)
    events.begin_replay()
    be_late(database)

    assert work(database, make_announcer(closed_url)) == 3

    assert [events.row(each).state for each in event_ids] == ["queued"] * 3
    assert events.row(event_ids[0]).dispatch_in <= 0
    assert 4 in events.in_outbox(event_ids[0])


def test_every_replay_that_is_due_has_its_turn(database: Database, announcer: Announcer, events: Any) -> None:
    events.finished()
    events.finished(is_dead=False)
    events.begin_replay()
    events.begin_replay(State.PROCESSED)

    done = [work(database, announcer) for _ in range(2)]

    assert done == [2, 0]


def test_a_replay_survives_the_death_of_its_workers(
    start: Start, database: Database, events: Any, in_redis: Any, eventually: Eventually
) -> None:
    event_ids = events.finished(250)
    begun = events.begin_replay(rate=100)
    for after in (1, 60):
        worker = start(SWEEP_SECONDS="0.2", SWEEP_LIMIT="5")
        eventually(partial(has_replayed, database, begun, after), message=f"{after} replayed")
        os.killpg(worker.process.pid, signal.SIGKILL)
    died_at = find(database, begun)

    start(SWEEP_SECONDS="0.2", SWEEP_LIMIT="20")
    eventually(lambda: find(database, begun).state == "done", timeout_seconds=60)

    assert died_at.state == "running", "it was killed before the end"
    over = find(database, begun)
    assert (over.replayed, over.skipped) == (250, 0)
    assert rounds(database) == {1: 250}, "none is replayed twice, none is left out"
    eventually(lambda: {each for each, _ in in_redis.doorbells()} == set(event_ids), message="all are rung for")


POISON = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'poison of %', NEW.event_id; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON processing_state FOR EACH ROW
WHEN (NEW.state = 'queued' AND NEW.event_id = '{event_id}') EXECUTE FUNCTION refuse();
"""


def test_a_replay_that_fails_waits_ever_longer_and_the_others_go_on(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [poisoned] = events.finished()
    failing = events.begin_replay()
    events.finished(is_dead=False)
    healthy = events.begin_replay(State.PROCESSED)
    with database.transaction() as session:
        session.execute(text(POISON.replace("{event_id}", str(poisoned))))

    done, waits = [], []
    for _ in range(4):
        with database.transaction() as session:
            session.execute(text("UPDATE replay_job SET next_at = now() - interval '1 s' WHERE state = 'running'"))
        before = clock(database)
        done.append(work(database, announcer))
        waits.append((next_at(database, failing) - clock(database), next_at(database, failing) - before))

    assert done == [1, 0, 0, 0]
    assert find(database, healthy).state == "done"
    for (after_the_turn, before_the_turn), seconds in zip(waits, (1, 2, 4, 8), strict=True):
        assert after_the_turn <= timedelta(seconds=seconds) <= before_the_turn
    stuck = find(database, failing)
    assert (stuck.state, stuck.failures, stuck.replayed) == ("running", 4, 0)
    assert stuck.last_error is not None
    assert "poison" not in stuck.last_error, "the text may quote an event"


def test_a_replay_that_recovers_has_its_failures_forgotten(
    database: Database, announcer: Announcer, events: Any
) -> None:
    [poisoned] = events.finished()
    begun = events.begin_replay()
    with database.transaction() as session:
        session.execute(text(POISON.replace("{event_id}", str(poisoned))))
    work(database, announcer)
    with database.transaction() as session:
        session.execute(text("DROP TRIGGER refuse ON processing_state"))
    be_late(database)

    assert work(database, announcer) == 1

    over = find(database, begun)
    assert (over.state, over.failures, over.last_error) == ("done", 0, None)


@pytest.mark.parametrize("rate", ["1e-300", "1e308", "Infinity", "NaN"])
def test_a_rate_that_an_earlier_release_let_in_is_brought_within_the_bounds(
    database: Database, announcer: Announcer, events: Any, rate: str
) -> None:
    events.finished(2)
    begun = events.begin_replay()
    with database.transaction() as session:
        session.execute(text("UPDATE replay_job SET rate_per_s = CAST(:rate AS float8)"), {"rate": rate})

    be_late(database)
    work(database, announcer)
    be_late(database)
    work(database, announcer)

    assert find(database, begun).state == "done"


@pytest.mark.parametrize("limit", [1, 7])
def test_a_full_batch_is_followed_by_another(database: Database, announcer: Announcer, events: Any, limit: int) -> None:
    events.finished(10)
    events.begin_replay()
    be_late(database)

    done = [work(database, announcer, limit=limit) for _ in range(3)]

    assert done == ([1, 1, 1] if limit == 1 else [7, 3, 0])
