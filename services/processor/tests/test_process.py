"""Workers as production runs them."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey
from holdfast.storage.database import Database
from holdfast.storage.dispatch import redispatch_due

Start = Callable[..., Any]

SETTLED = ("processed", "dead")

LOCK = 4242
"""That of ``sample_handlers``."""


def settle(stored: Any, event_id: UUID, eventually: Eventually, seconds: float = 40) -> Any:
    """Wait until an event is settled; its row."""
    eventually(lambda: stored.row(event_id).state in SETTLED, timeout_seconds=seconds, message="the event is settled")
    return stored.row(event_id)


@contextmanager
def held_lock(database: Database) -> Iterator[None]:
    """Keep ``test.blocked`` waiting."""
    with database.transaction() as session:
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        yield


def is_waiting(stored: Any, count: int = 1) -> bool:
    waiting = stored.rows(
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    return bool(waiting[0][0] == count)


def has_failed(stored: Any, event_id: UUID, times: int) -> bool:
    return len(stored.errors(event_id)) == times


def stale_doorbells(worker: Any) -> int:
    [line] = [
        line for line in worker.get("/metrics")[1].splitlines() if line.startswith("holdfast_stale_doorbells_total")
    ]
    return int(float(line.split()[1]))


def redispatch(stored: Any, live: Any) -> None:
    """What maintenance does for an event that is due and that nobody was told of."""
    stored.make_due()
    with stored.database.transaction() as session:
        doorbells = redispatch_due(session, limit=10)
    live.ring(*doorbells)


def test_an_event_is_processed_once_and_told_live(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    start()
    event_id = stored.record("test.order", {"order_id": "1", "amount": 42})

    live.ring((event_id, 1))

    row = settle(stored, event_id, eventually)
    assert (row.state, row.version, row.attempt, stored.effects(event_id)) == ("processed", 3, 1, 1)
    assert [(entry.handler, entry.result) for entry in stored.log(event_id)] == [("order", {"amount": 42})]
    eventually(lambda: live.told(event_id) == [("processing", 2, 0), ("processing", 2, 1), ("processed", 3, 0)])
    assert live.missing((event_id, 1), (event_id, 2), (event_id, 3)) == [1], "the relay has ingest's alone to tell"


def test_events_that_handlers_make_are_processed_as_any_other(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start()
    event_id = stored.record("test.chain", 3)

    live.ring((event_id, 1))

    eventually(lambda: stored.count("processed", "test.chain") == 4, message="each made the next one")
    chain = "SELECT count(DISTINCT coalesce(parent_id, id)) FROM event WHERE type = 'test.chain'"
    assert stored.scalar(chain) == 3, "the first stands for itself and is the parent of the second"


def test_a_failing_handler_is_tried_again_with_backoff_and_then_dead(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start()
    event_id = stored.record("test.failing")
    for attempt in (1, 2, 3):
        stored.make_due()
        live.ring((event_id, stored.row(event_id).version))
        eventually(partial(has_failed, stored, event_id, attempt))
        if attempt < 3:
            assert stored.row(event_id).state == "failed"
            assert stored.row(event_id).due_in <= 0.2

    row = settle(stored, event_id, eventually)
    assert (row.state, row.attempt, stored.effects(event_id)) == ("dead", 3, 0)
    assert row.last_error["message"] == "the other side is away"


def test_an_event_without_a_handler_is_dead_and_logged_without_a_traceback(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(NO_HANDLER_SECONDS="0")
    event_id = stored.record("test.of.nobody")
    live.ring((event_id, 1))

    row = settle(stored, event_id, eventually)

    assert (row.state, row.last_error["type"]) == ("dead", "no_handler")
    [told] = eventually(lambda: [line for line in worker.lines() if line.get("reason") == "no_handler"])
    assert "Traceback" not in json.dumps(told)


def test_retry_after_waits_as_long_as_it_says(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    start()
    event_id = stored.record("test.later")
    live.ring((event_id, 1))
    eventually(lambda: stored.row(event_id).state == "failed")
    early = stored.row(event_id)
    live.ring((event_id, 3))

    eventually(lambda: stored.row(event_id).due_in < 0, message="the second has passed")
    live.ring((event_id, 3))

    row = settle(stored, event_id, eventually)
    assert 0.5 < early.due_in <= 1
    assert (row.state, row.attempt, stored.effects(event_id)) == ("processed", 2, 1)


def test_what_can_not_succeed_is_dead_at_once_and_says_why(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start(NO_HANDLER_SECONDS="0")
    reasons = {
        stored.record("test.rejected"): "no_such_account",
        stored.record("test.unheard-of"): "no_handler",
        stored.record("test.order", {"order_id": "1"}): "invalid_data",
    }

    live.ring(*((event_id, 1) for event_id in reasons))

    for event_id, reason in reasons.items():
        row = settle(stored, event_id, eventually)
        assert (row.state, row.attempt, row.last_error["type"]) == ("dead", 1, reason)
        assert stored.effects(event_id) == 0


def test_a_thousand_copies_of_a_doorbell_on_two_replicas_have_one_effect(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    workers = [start(), start()]
    event_id = stored.record("test.order", {"order_id": "1", "amount": 1})

    live.ring(*[(event_id, 1)] * 1000)

    # One of them finds it, or a poll has been faster.
    eventually(lambda: sum(stale_doorbells(worker) for worker in workers) >= 999, timeout_seconds=60)
    assert (stored.state(event_id), stored.effects(event_id)) == ("processed", 1)


def test_two_replicas_share_the_work_and_apply_each_effect_once(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    for _ in range(2):
        start(PROCESSOR_THREADS="2")
    with held_lock(database):  # four at work at once, so two on each
        blocked = [stored.record("test.blocked") for _ in range(4)]
        live.ring(*((event_id, 1) for event_id in blocked))
        eventually(lambda: is_waiting(stored, 4), message="both replicas are at work")
        orders = [stored.record("test.order", {"order_id": str(number), "amount": number}) for number in range(50)]
        live.ring(*((event_id, 1) for event_id in orders * 2))

    for event_id in blocked + orders:
        assert settle(stored, event_id, eventually).state == "processed"
        assert stored.effects(event_id) == 1
    owners = stored.rows("SELECT count(DISTINCT lease_token) FROM processed_event_log")
    assert owners[0][0] == len(blocked + orders)


def test_a_worker_killed_within_a_handler_leaves_its_lease_and_no_effect(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    worker = start()
    with held_lock(database):
        event_id = stored.record("test.blocked")
        live.ring((event_id, 1))
        eventually(lambda: is_waiting(stored), message="the handler is at work")

        os.kill(worker.pid_of_worker(), signal.SIGKILL)
        eventually(lambda: is_waiting(stored, 0), message="the server has noticed")

    eventually(lambda: worker.has_logged("worker process ended; starting it again"))
    assert (stored.row(event_id).state, stored.effects(event_id)) == ("processing", 0)
    assert stored.row(event_id).lease_token is not None

    stored.recover()
    live.ring((event_id, 3))
    row = settle(stored, event_id, eventually)
    assert (row.state, row.attempt, row.crashes, stored.effects(event_id)) == ("processed", 2, 1, 1)


def test_a_worker_that_comes_back_too_late_is_refused(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    zombie = start()
    with held_lock(database):
        event_id = stored.record("test.blocked")
        live.ring((event_id, 1))
        eventually(lambda: is_waiting(stored), message="the handler is at work")
        os.kill(zombie.pid_of_worker(), signal.SIGSTOP)
        # PostgreSQL ends the frozen worker's transaction, as it does by itself once that was idle for long enough.
        stored.rows("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        eventually(lambda: is_waiting(stored, 0))
        eventually(lambda: stored.recover(), message="the row is free")
    start()
    redispatch(stored, live)
    settle(stored, event_id, eventually)

    os.kill(zombie.pid_of_worker(), signal.SIGCONT)

    eventually(lambda: "holdfast_lost_leases_total 1.0" in zombie.get("/metrics")[1], message="the zombie is refused")
    row = stored.row(event_id)
    assert (row.state, row.attempt, stored.effects(event_id), len(stored.log(event_id))) == ("processed", 2, 1, 1)
    assert stored.errors(event_id) == []


def test_sigterm_lets_the_handler_at_work_finish(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    worker = start()
    with held_lock(database):
        event_id = stored.record("test.blocked")
        live.ring((event_id, 1))
        eventually(lambda: is_waiting(stored), message="the handler is at work")
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.is_stopping())

    assert worker.process.wait(30) == 0
    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes, stored.effects(event_id)) == ("processed", 1, 0, 1)
    messages = [line["message"] for line in worker.lines() if line.get("worker") != "suspects"]
    assert messages.index("stopping") < messages.index("event processed") < messages.index("stopped")


def test_a_handler_that_outlives_the_grace_is_interrupted_and_its_event_given_back(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(SHUTDOWN_SECONDS="2")
    event_id = stored.record("test.endless")
    live.ring((event_id, 1))
    eventually(lambda: worker.has_logged("at work"))
    began = time.monotonic()

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(30) == 0
    assert 1 < time.monotonic() - began < 20, "half of the grace is the handler's"
    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes, stored.effects(event_id)) == ("queued", 0, 0, 0)
    assert live.told(event_id)[-1] == ("queued", 3, 0)


def test_doorbells_fetched_and_not_begun_at_sigterm_are_left_for_others(
    start: Start, stored: Any, live: Any, database: Database, eventually: Eventually
) -> None:
    worker = start(PROCESSOR_THREADS="1")
    with held_lock(database):
        blocked = stored.record("test.blocked")
        live.ring((blocked, 1))
        eventually(lambda: is_waiting(stored), message="the only thread is at work")
        waiting = [stored.record("test.order", {"order_id": "1", "amount": 1}) for _ in range(3)]
        live.ring(*((event_id, 1) for event_id in waiting))
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.is_stopping())
    assert worker.process.wait(30) == 0
    assert {stored.row(event_id).version for event_id in waiting} == {1}

    start()

    for event_id in waiting:
        assert settle(stored, event_id, eventually).state == "processed"


def test_events_are_processed_while_the_live_window_is_down(
    start: Start, stored: Any, live: Any, closed_url: str, eventually: Eventually
) -> None:
    worker = start(REDIS_URL=closed_url)
    event_id = stored.record("test.order", {"order_id": "1", "amount": 1})

    live.ring((event_id, 1))

    assert settle(stored, event_id, eventually).state == "processed"
    assert stored.in_outbox(event_id) == [1, 2, 3], "left to the relay"
    assert json.loads(worker.get("/readyz")[1])["status"] == "degraded"


def test_a_worker_goes_on_when_its_redis_comes_back(
    start: Start, stored: Any, own_valkey: Valkey, make_live: Callable[[str], Any], eventually: Eventually
) -> None:
    start(BROKER_URL=own_valkey.url(), REDIS_URL=own_valkey.url())
    own_valkey.stop()
    event_id = stored.record("test.order", {"order_id": "1", "amount": 1})
    own_valkey.start()

    make_live(own_valkey.url()).ring((event_id, 1))

    assert settle(stored, event_id, eventually).state == "processed"


def test_a_worker_says_how_it_is(start: Start) -> None:
    worker = start()

    assert worker.get("/livez") == (200, '{"status": "ok"}')
    status, body = worker.get("/readyz")
    assert (status, json.loads(body)["checks"]) == (200, {"database": "ok", "live": "ok", "broker": "ok"})


def test_logs_name_the_event_and_hold_nothing_of_its_data(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start()
    good = stored.record("test.order", {"order_id": "s3cret", "amount": 1})
    bad = stored.record("test.order", {"order_id": "s3cret", "amount": "s3cret"})

    live.ring((good, 1), (bad, 1))

    for event_id in (good, bad):
        settle(stored, event_id, eventually)
    eventually(lambda: worker.has_logged("event processed") and worker.has_logged("event is dead"))
    assert "s3cret" not in worker.log.read_text()
    [line] = [line for line in worker.lines() if line["message"] == "event processed"]
    told = {name: line[name] for name in ("event_id", "event_type", "handler", "attempt", "tenant", "service.name")}
    assert told == {
        "event_id": str(good), "event_type": "test.order", "handler": "order", "attempt": 1, "tenant": "acme",
        "service.name": "processor",
    }  # fmt: skip
