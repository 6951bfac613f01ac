"""The worker and the scheduler as production runs them."""

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey

Start = Callable[..., Any]

RARELY = {"SWEEP_SECONDS": "60"}
"""After their first turn the timers rest for longer than a test takes: what happens then comes from elsewhere."""


def test_a_process_exports_the_metrics_of_maintenance_and_no_others(start: Any) -> None:
    _, body = start().get("/metrics")

    assert "# TYPE holdfast_events_pending gauge" in body
    assert "holdfast_replay_items" in body
    for stranger in (
        "holdfast_events_received",
        "holdfast_live_connections",
        "holdfast_retries",
        "holdfast_end_to_end",
    ):
        assert stranger not in body


def test_a_lost_event_is_rung_for_within_five_seconds_of_its_lease(
    start: Start, events: Any, in_redis: Any, eventually: Eventually
) -> None:
    start()
    [event_id] = events.record(due_seconds=300)
    events.claim(event_id, lease_seconds=1)
    claimed = time.monotonic()

    eventually(lambda: (event_id, 3) in in_redis.doorbells(), message="a doorbell for the recovered event")

    assert time.monotonic() - claimed < 1 + 5 + 4, "4 of them for a busy machine"


def has_crashed(events: Any, event_id: UUID, times: int) -> bool:
    return bool(events.row(event_id).crashes == times)


def test_an_event_that_kills_every_worker_ends_as_a_dead_letter(
    start: Start, events: Any, eventually: Eventually
) -> None:
    start(SWEEP_SECONDS="0.2")
    [event_id] = events.record()
    for crash in range(1, 4):
        events.make_due(event_id)
        events.claim(event_id)
        events.expire(event_id)
        eventually(partial(has_crashed, events, event_id, crash))

    assert events.row(event_id).state == "dead"


def test_a_schedule_ticks_within_a_few_seconds(
    start: Start, events: Any, in_redis: Any, eventually: Eventually
) -> None:
    worker = start()
    schedule_id = events.schedule()

    eventually(lambda: len(in_redis.doorbells()) == 1, message="a doorbell for the event of its tick")

    [row] = events.execute("SELECT last_event_id FROM schedule WHERE id = :id", schedule_id)
    assert in_redis.doorbells() == [(row.last_event_id, 1)]
    assert 'holdfast_schedule_ticks_total{outcome="recorded"} 1.0' in worker.get("/metrics")[1]


def test_a_lost_doorbell_is_rung_again(start: Start, events: Any, in_redis: Any, eventually: Eventually) -> None:
    start()
    [event_id] = events.record()

    eventually(lambda: in_redis.doorbells() == [(event_id, 1)])


def test_redis_back_from_an_outage_gets_the_doorbells_and_updates_it_missed(
    start: Start, events: Any, own_valkey: Valkey, eventually: Eventually
) -> None:
    start(BROKER_URL=own_valkey.url(), REDIS_URL=own_valkey.url(), RELAY_AFTER_SECONDS="0.5")
    own_valkey.stop()
    [waiting, lost] = events.record(2)
    events.claim(lost)
    events.expire(lost)
    eventually(lambda: events.row(lost).state == "queued", message="recovery goes on without Redis")
    eventually(lambda: events.row(lost).dispatch_in < 0, message="the recovered event is due")

    own_valkey.start()

    def is_caught_up() -> bool:
        rung, suspects = (
            [json.loads(body)["args"] for body in own_valkey.execute("HVALS", f"dramatiq:{queue}.msgs")]
            for queue in ("events", "suspect")
        )
        return rung == [[str(waiting), 1]] and suspects == [[str(lost), 3]] and not events.in_outbox(lost)

    eventually(is_caught_up, timeout_seconds=10, message="doorbells and updates after the outage")


def test_a_tick_of_the_scheduler_does_the_duty_without_the_timers(
    start: Start, events: Any, in_redis: Any, eventually: Eventually
) -> None:
    worker = start(**RARELY)
    [lost] = events.lost()
    [waiting] = events.record()
    [dead] = events.finished()
    events.begin_replay()

    start("scheduler")

    # periodiq sends its first tick at once, in the last five seconds of a minute at the next one.
    eventually(lambda: events.row(lost).state == "queued", timeout_seconds=20, message="recovered by a tick")
    eventually(lambda: (waiting, 1) in in_redis.doorbells(), message="rung for by a tick")
    eventually(lambda: events.row(dead).state == "queued", message="replayed by a tick")
    assert any("Processing" in line["message"] and line["logger"] == "periodiq" for line in worker.lines())


def test_two_workers_and_two_schedulers_move_each_event_once(
    start: Start, events: Any, in_redis: Any, eventually: Eventually
) -> None:
    event_ids = events.lost(30)
    for _ in range(2):
        start(SWEEP_SECONDS="0.2", SWEEP_LIMIT="4")
        start("scheduler")

    eventually(lambda: len(in_redis.doorbells()) >= 30, message="all are rung for again")

    rows = [events.row(event_id) for event_id in event_ids]
    assert {(row.state, row.version, row.crashes, row.dispatches) for row in rows} == {("queued", 3, 1, 1)}
    assert sorted(in_redis.doorbells()) == sorted((event_id, 3) for event_id in event_ids)


def test_a_worker_says_how_it_is(start: Start, events: Any, eventually: Eventually) -> None:
    events.record(3, due_seconds=300)
    worker = start(SWEEP_SECONDS="0.2")

    assert worker.get("/livez") == (200, '{"status": "ok"}')
    status, body = worker.get("/readyz")
    assert (status, json.loads(body)["checks"]) == (200, {"database": "ok", "live": "ok", "broker": "ok"})
    eventually(lambda: 'holdfast_events_pending{state="queued"} 3.0' in worker.get("/metrics")[1])


def test_a_worker_without_redis_is_ready_and_says_degraded(
    start: Start, own_valkey: Valkey, eventually: Eventually
) -> None:
    worker = start(BROKER_URL=own_valkey.url(), REDIS_URL=own_valkey.url())
    own_valkey.stop()

    def is_degraded() -> bool:
        status, body = worker.get("/readyz")
        assert status == 200
        return bool(json.loads(body)["status"] == "degraded")

    eventually(is_degraded)


def test_sigterm_ends_the_worker_in_order(start: Start) -> None:
    worker = start()

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(15) == 0
    messages = [line["message"] for line in worker.lines()]
    assert messages.index("stopping") < messages.index("stopped")


def test_a_worker_whose_master_was_killed_stops_by_itself(start: Start, eventually: Eventually) -> None:
    worker = start()
    assert worker.get("/livez")[0] == 200

    worker.process.kill()

    eventually(lambda: worker.get("/livez")[0] == 0, message="nobody has the port any more")


def test_sigterm_ends_the_scheduler_in_order(start: Start, in_redis: Any, eventually: Eventually) -> None:
    scheduler = start("scheduler")
    eventually(lambda: in_redis.client.exists("dramatiq:maintenance.turns"), timeout_seconds=20, message="a tick")

    scheduler.process.send_signal(signal.SIGTERM)

    assert scheduler.process.wait(15) == 0
    assert {line["service.name"] for line in scheduler.lines()} == {"maintenance"}


def test_a_scheduler_without_redis_fails_so_that_its_supervisor_starts_it_again(start: Start, closed_url: str) -> None:
    scheduler = start("scheduler", BROKER_URL=closed_url)

    assert scheduler.process.wait(30) == 1


def test_a_wrong_setting_ends_the_start_with_its_name(start: Start) -> None:
    scheduler = start("scheduler", SWEEP_SECOND="3")

    assert scheduler.process.wait(15) == 78
    assert "HOLDFAST_SWEEP_SECOND is not a setting; did you mean HOLDFAST_SWEEP_SECONDS?" in scheduler.log.read_text()
