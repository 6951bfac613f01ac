"""What becomes of the worker processes when one of them, a thread in one, or the first process is gone."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.processor.attempt.interruption import Interrupted, Interruptions

Start = Callable[..., Any]

ORDER = {"order_id": "1", "amount": 1}

ENDED = "worker process ended; starting it again"


WITHOUT_MEMORY = """
import os, signal, sys, time
from holdfast.processor.worker import child, supervisor
from holdfast.processor.worker.roles import Role
from holdfast.runtime.settings import ProcessorSettings

fork, forks, first = os.fork, [], os.getpid()

def fork_twice():
    forks.append(1)
    if len(forks) > 2:
        raise BlockingIOError("no memory")
    return fork()

def serve(settings, role, *_, **__):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, supervisor.SIGNALS)
    while role.name == "lasting" and os.getppid() == first:
        time.sleep(0.05)
    os._exit(9)

os.fork, child.serve = fork_twice, serve
roles = [Role(name, "events", 1, False, 0) for name in ("lasting", "brief")]
settings = ProcessorSettings(database_url="postgresql://nowhere/x", shutdown_seconds=5)
sys.exit(supervisor.Supervisor(settings, roles).run())
"""


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody waits for stays listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def record_suspect(stored: Any) -> UUID:
    """An event that was with a lost worker, and whose data its handler does not take."""
    event_id: UUID = stored.record("test.order", {"order_id": "1"})
    stored.run("UPDATE processing_state SET crashes = 1, available_at = now() - interval '1 h'")
    return event_id


def test_orphans_stop_by_themselves_and_give_back_what_they_run(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(SHUTDOWN_SECONDS="600")
    event_id = stored.record("test.endless")
    live.ring((event_id, 1))
    eventually(lambda: worker.has_logged("at work"))
    orphans = worker.children()

    worker.process.kill()

    assert len(orphans) == 2
    eventually(lambda: not any(map(is_running, orphans)), message="the orphans have stopped")
    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes) == ("queued", 0, 0)


def test_a_service_is_asked_for_its_health_though_orphans_had_its_port(
    start: Start, launch: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(SHUTDOWN_SECONDS="600")
    event_id = stored.record("test.endless")
    live.ring((event_id, 1))
    eventually(lambda: worker.has_logged("at work"))
    orphans = worker.children()
    worker.process.kill()

    successor = launch(METRICS_PORT=worker.url.rpartition(":")[2])

    eventually(lambda: not any(map(is_running, orphans)), message="the orphans have stopped")
    eventually(successor.is_ready, message="the port is the successor's")


@pytest.mark.parametrize("is_polled", [False, True])
def test_a_thread_of_the_crew_that_has_ended_fails_liveness(
    start: Start, stored: Any, live: Any, closed_url: str, eventually: Eventually, is_polled: bool
) -> None:
    away = {"BROKER_URL": closed_url, "REDIS_URL": closed_url} if is_polled else {}
    worker = start(PROCESSOR_THREADS="2", **away)
    assert worker.get("/livez")[0] == 200

    def is_dead() -> bool:
        # Again and again: a thread that waits for an event ends with the next one, and one that runs a handler at that moment
        # takes it for the handler's failure.
        event_id = stored.record("test.deadly")
        if not is_polled:
            live.ring((event_id, 1))
        return bool(worker.get("/livez")[0] == 503)

    eventually(is_dead)


def test_the_process_for_suspects_is_started_again_and_the_others_do_not_notice(
    start: Start, stored: Any, eventually: Eventually
) -> None:
    worker = start()
    suspects, others = worker.children()

    os.kill(suspects, signal.SIGKILL)

    eventually(lambda: worker.has_logged(ENDED))
    eventually(lambda: len(worker.children()) == 2)
    assert worker.process.poll() is None
    [new] = set(worker.children()) - {others}
    suspect = record_suspect(stored)
    eventually(lambda: stored.state(suspect) == "dead")
    assert stored.scalar("SELECT worker FROM attempt_error").endswith(f":{new}")


def test_what_is_counted_by_handler_begins_at_zero(start: Start, eventually: Eventually) -> None:
    """Of a series that begins with its first events Prometheus sees no increase."""
    worker = start()

    samples = {
        'holdfast_end_to_end_seconds_count{handler="order"} 0.0',
        'holdfast_queue_wait_seconds_count{handler="order"} 0.0',
        'holdfast_handler_duration_seconds_count{handler="order",outcome="failed"} 0.0',
        'holdfast_retries_total{handler="order"} 0.0',
    }

    eventually(lambda: samples <= set(worker.get("/metrics")[1].splitlines()), message="all begin at zero")


def test_metrics_are_those_of_all_processes_and_outlive_each_of_them(
    start: Start, stored: Any, eventually: Eventually
) -> None:
    worker = start(PROCESSOR_PROCESSES="2")
    suspect = record_suspect(stored)
    eventually(lambda: stored.state(suspect) == "dead")
    sample = 'holdfast_dead_letters_total{handler="order",reason="invalid_data"} 1.0'
    eventually(lambda: sample in worker.get("/metrics")[1], message="what the process for suspects counted is told")
    _, server, _ = worker.children()

    os.kill(server, signal.SIGKILL)

    eventually(lambda: worker.has_logged(ENDED))
    eventually(worker.is_ready, timeout_seconds=60)
    assert server not in worker.children()
    assert sample in worker.get("/metrics")[1]
    assert "pid=" not in worker.get("/metrics")[1], "one series, not one for each process"


def test_what_a_killed_worker_had_in_hand_is_off_the_live_gauges(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start()
    event_id = stored.record("test.endless")
    live.ring((event_id, 1))
    eventually(lambda: "test_at_work 1.0" in worker.get("/metrics")[1])

    os.kill(worker.pid_of_worker(), signal.SIGKILL)

    eventually(lambda: worker.has_logged(ENDED))
    eventually(worker.is_ready, timeout_seconds=60)
    assert "test_at_work 0.0" in worker.get("/metrics")[1]


def test_a_worker_works_though_the_folder_of_the_metrics_is_gone(
    start: Start, stored: Any, closed_url: str, tmp_path: Path, eventually: Eventually
) -> None:
    worker = start(BROKER_URL=closed_url, REDIS_URL=closed_url, PROCESSOR_THREADS="2")
    [folder] = tmp_path.glob("holdfast-metrics-*")
    shutil.rmtree(folder)
    os.kill(worker.pid_of_worker(), signal.SIGKILL)
    eventually(lambda: worker.has_logged(ENDED))
    eventually(worker.is_ready, timeout_seconds=60)

    for _ in range(4):
        stored.record("test.order", ORDER)

    eventually(lambda: stored.count("processed") == 4)
    assert stored.scalar("SELECT sum(attempt) FROM processing_state") == 4, "none was claimed and then forgotten"
    assert worker.get("/metrics")[0] == 503


def test_a_service_that_can_not_fork_ends_its_workers_and_itself() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, check=False, timeout=20
    )

    assert ran.returncode == 1
    assert "a worker process cannot be forked, so the service ends" in ran.stdout
    assert "killed" not in ran.stdout, "the other worker was asked to stop, and did"


def test_an_event_that_kills_its_worker_is_dead_and_its_neighbours_are_processed(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(LEASE_SECONDS="1")
    good = [stored.record("test.order", ORDER) for _ in range(200)]
    fatal = stored.record("test.fatal")
    live.ring(*((event_id, 1) for event_id in [*good[:100], fatal, *good[100:]]))

    eventually(lambda: stored.state(fatal) == "dead", timeout_seconds=90)

    eventually(lambda: stored.count("processed") == 200, timeout_seconds=60)
    assert stored.scalar("SELECT count(*) FROM effect") == 200
    assert stored.row(fatal).crashes == 3
    ended = [line["worker"] for line in worker.lines() if line["message"] == ENDED]
    assert sorted(ended) == ["suspects", "suspects", "worker-0"], "once among others, then alone"


def test_sigterm_under_load_lets_polled_and_rung_events_finish(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    worker = start(PROCESSOR_THREADS="4")
    rung = [stored.record("test.slow") for _ in range(50)]
    stored.record_many("test.slow", 50)
    live.ring(*((event_id, 1) for event_id in rung))
    eventually(lambda: stored.count("processed") >= 4 and stored.count("processing") >= 2)

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(60) == 0
    assert stored.count("processing") == 0
    assert stored.scalar("SELECT sum(crashes) FROM processing_state") == 0
    assert stored.scalar("SELECT sum(attempt) FROM processing_state") == stored.count("processed")
    assert stored.count("queued") > 0, "it was under load"


def test_a_polled_event_that_outlives_the_grace_is_given_back(
    start: Start, stored: Any, closed_url: str, eventually: Eventually
) -> None:
    worker = start(BROKER_URL=closed_url, REDIS_URL=closed_url, SHUTDOWN_SECONDS="5")
    event_id = stored.record("test.endless")
    eventually(lambda: worker.has_logged("at work"))

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(60) == 0
    row = stored.row(event_id)
    assert (row.state, row.attempt, row.crashes, stored.effects(event_id)) == ("queued", 0, 0, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(start: Start, number: int) -> None:
    worker = start()

    worker.process.send_signal(number)

    assert worker.process.wait(60) == 0


def test_a_service_stops_in_time_though_redis_is_down(start: Start, closed_url: str) -> None:
    worker = start(BROKER_URL=closed_url, REDIS_URL=closed_url)

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(60) == 0


def test_a_handler_that_begins_after_the_interruption_does_not_begin() -> None:
    interruptions = Interruptions()
    interruptions.interrupt()

    with pytest.raises(Interrupted), interruptions.allowed():
        pytest.fail("it began, and nobody would interrupt it")
