"""Several processes that share the port: what becomes of events, metrics and health when one of them is gone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey, free_port

PROCESSES = 3

ENDED = "worker process ended; starting it again"

SENDERS = 8

FAILS_TO_START = """
import os, signal, sys
from holdfast.ingest.processes import supervisor
from holdfast.runtime.listening import open_listener
from holdfast.runtime.settings import IngestSettings

def work(settings, listener, member):
    if member.place.number == 0:
        {fault}
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, supervisor.SIGNALS)
    member.place.note_well(0)
    while True:
        signal.pause()

supervisor.work = work
settings = IngestSettings(
    database_url="postgresql://nowhere/x", live_token_secret="x" * 32, ingest_processes=2
)
print(os.getpid(), flush=True)
sys.exit(supervisor.Supervisor(settings, open_listener("127.0.0.1", 0)).run())
"""


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody waits for stays listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Load:
    """Connections that send one event after the other, and come back when they are cut off."""

    def __init__(self, ingest: Any) -> None:
        self.accepted: list[str] = []
        """``id`` of each event that was answered with 202."""
        self.refused: list[int] = []
        """Every other status."""
        self._url = ingest.url
        self._key = ingest.key()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)

    def _send(self) -> None:
        while not self._is_over.is_set():
            try:
                with httpx.Client(base_url=self._url, timeout=10) as client:
                    while not self._is_over.is_set():
                        self._send_one(client)
            except httpx.TransportError:
                self._is_over.wait(0.01)

    def _send_one(self, client: httpx.Client) -> None:
        event_id = uuid4().hex
        body = {"specversion": "1.0", "id": event_id, "source": "/load", "type": "test.done", "data": {}}
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/cloudevents+json"}
        answer = client.post("/v1/events", content=json.dumps(body), headers=headers)
        if answer.status_code == 202:
            self.accepted.append(event_id)
        else:
            self.refused.append(answer.status_code)


@pytest.fixture
def service(postgres: Postgres, valkey: Valkey, start_ingest: Any, eventually: Eventually) -> Iterator[Any]:
    name = clone_template(postgres)
    made = start_ingest(postgres, valkey, database=name, HOLDFAST_INGEST_PROCESSES=str(PROCESSES))
    eventually(lambda: ready(made), timeout_seconds=60, message=f"it is not ready: {made.log}")
    yield made
    made.stop()
    made.database.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def load(service: Any) -> Iterator[Load]:
    made = Load(service)
    yield made
    made.stop()


def ready(service: Any) -> bool:
    """By the port for health."""
    try:
        return httpx.get(f"{service.metrics_url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stored(service: Any) -> set[str]:
    with service.database.transaction() as session:
        return set(session.scalars(text("SELECT ce_id FROM event")))


def counted(service: Any) -> float:
    body = httpx.get(f"{service.metrics_url}/metrics", timeout=10).text
    return sum(
        float(value)
        for value in re.findall(r'^holdfast_events_received_total{outcome="accepted"} (\S+)', body, re.MULTILINE)
    )


def gauge(service: Any, name: str) -> float:
    body = httpx.get(f"{service.metrics_url}/metrics", timeout=10).text
    return float(re.findall(rf"^{name} (\S+)", body, re.MULTILINE)[0])


def test_a_worker_killed_under_load_loses_no_accepted_event_and_is_replaced(
    service: Any, load: Load, eventually: Eventually
) -> None:
    before = service.workers()
    eventually(lambda: len(load.accepted) > 50)

    for victim in before:
        kill_and_see_replaced(service, load, victim, eventually)

    eventually(lambda: ready(service), timeout_seconds=30)
    load.stop()
    assert not set(before) & set(service.workers())
    assert service.process.poll() is None
    assert load.refused == []
    assert set(load.accepted) <= stored(service)
    ended = [line for line in service.lines() if line["message"] == ENDED]
    assert [line["status"] for line in ended] == [-signal.SIGKILL] * PROCESSES
    assert max(line["restart_in_seconds"] for line in ended) <= 1


def kill_and_see_replaced(service: Any, load: Load, victim: int, eventually: Eventually) -> None:
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(service.workers()) == PROCESSES and not is_running(victim), message="it is replaced")
    seen = len(load.accepted)
    eventually(lambda: len(load.accepted) > seen + 20, message="the service answers on")


def test_a_stop_under_load_answers_what_has_begun_and_keeps_it(
    service: Any, load: Load, eventually: Eventually
) -> None:
    eventually(lambda: len(load.accepted) > 50)
    workers = service.workers()

    service.process.send_signal(signal.SIGTERM)

    assert service.process.wait(30) == 0
    load.stop()
    assert not any(map(is_running, workers))
    assert load.refused == []
    assert set(load.accepted) == stored(service), "nothing was recorded whose answer was cut off"
    assert ENDED not in {line["message"] for line in service.lines()}


def test_a_stop_that_reaches_every_process_drops_no_request(service: Any, load: Load, eventually: Eventually) -> None:
    """As systemd sends it. It must not pass for the second signal, which is the one that does not wait."""
    eventually(lambda: len(load.accepted) > 50)

    for pid in [*service.workers(), service.process.pid]:
        os.kill(pid, signal.SIGTERM)

    assert service.process.wait(30) == 0
    load.stop()
    assert set(load.accepted) == stored(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(service: Any, number: int) -> None:
    service.process.send_signal(number)

    assert service.process.wait(15) == 0


@pytest.mark.usefixtures("load")
def test_a_second_signal_does_not_wait_for_requests_under_way(service: Any, eventually: Eventually) -> None:
    with service.database.engine.connect() as connection:
        connection.execute(text("LOCK TABLE event IN SHARE MODE"))
        eventually(lambda: gauge(service, "holdfast_ingest_in_flight") == SENDERS)

        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: not is_open(service), message="it has begun to stop")
        service.process.send_signal(signal.SIGTERM)

        # Each of them would wait for 10 s, and then once more alone; the grace is 25.
        assert service.process.wait(15) == 0


def is_open(service: Any) -> bool:
    """Whether the port takes connections."""
    try:
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=1).close()
    except OSError:
        return False
    return True


def test_workers_end_with_the_first_process_and_leave_the_port(
    service: Any, load: Load, eventually: Eventually
) -> None:
    eventually(lambda: len(load.accepted) > 20)
    workers = service.workers()

    service.process.kill()

    eventually(lambda: not any(map(is_running, workers)), timeout_seconds=10, message="the workers have ended")
    load.stop()
    assert not is_open(service)
    assert set(load.accepted) <= stored(service)


def test_metrics_are_those_of_all_workers_and_outlive_each_of_them(
    service: Any, load: Load, eventually: Eventually
) -> None:
    eventually(lambda: len(load.accepted) > 50)
    os.kill(service.workers()[-1], signal.SIGKILL)
    eventually(lambda: len(service.workers()) == PROCESSES)
    load.stop()
    eventually(lambda: ready(service))

    # The answer to some that were counted was cut off.
    assert len(load.accepted) <= counted(service) <= len(load.accepted) + SENDERS
    message = "what the one that was killed had in hand is gone with it"
    eventually(lambda: gauge(service, "holdfast_ingest_in_flight") == 0, message=message)
    body = httpx.get(f"{service.metrics_url}/metrics", timeout=10).text
    assert "pid=" not in body, "one series, not one for each process"


def test_a_worker_that_hangs_makes_the_service_not_ready_and_the_others_answer(
    service: Any, post_to: Callable[..., httpx.Response], eventually: Eventually
) -> None:
    key = service.key()
    hung = service.workers()[-1]

    os.kill(hung, signal.SIGSTOP)
    try:
        eventually(lambda: not ready(service), message="health says that one is missing")
        answer = httpx.get(f"{service.metrics_url}/readyz", timeout=5)
        accepted = [post_to(service, key).status_code for _ in range(20)]
        alive = httpx.get(f"{service.metrics_url}/livez", timeout=5).status_code
    finally:
        os.kill(hung, signal.SIGCONT)

    assert (answer.status_code, answer.json()["checks"]["workers"]) == (503, "WorkersMissing")
    assert accepted == [202] * 20
    assert alive == 200
    eventually(lambda: ready(service), message="it is back")


def test_a_worker_that_hangs_for_good_is_killed_and_replaced(service: Any, eventually: Eventually) -> None:
    hung = service.workers()[-1]

    os.kill(hung, signal.SIGSTOP)

    eventually(lambda: not is_running(hung), timeout_seconds=60, message="it is killed")
    eventually(lambda: len(service.workers()) == PROCESSES and ready(service), timeout_seconds=30)


def test_connections_are_spread_over_the_workers(service: Any, eventually: Eventually) -> None:
    address = ("127.0.0.1", int(service.url.rpartition(":")[2]))

    def shares() -> list[int]:
        return [connections(pid, address[1]) for pid in service.workers()]

    def difference() -> int:
        clients = [socket.create_connection(address) for _ in range(10 * PROCESSES)]
        eventually(lambda: sum(shares()) == len(clients), message="all are accepted")
        found = shares()
        for client in clients:
            client.close()
        eventually(lambda: sum(shares()) == 0, message="all have left")
        return max(found) - min(found)

    # Where the machine is busy a neighbour gets no turn within the moment that is left to it.
    found = sorted(difference() for _ in range(5))
    assert found[0] <= 4, f"chance alone gives one of them most: {found}"


def connections(pid: int, port: int) -> int:
    """How many of its sockets are connections to the port."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[9] in inodes and line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


@pytest.mark.parametrize(("fault", "status"), [("sys.exit(78)", 78), ("raise ValueError", 1)])
def test_a_worker_that_can_not_start_ends_the_service_with_its_status(fault: str, status: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FAILS_TO_START.replace("{fault}", fault)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert ran.returncode == status
    assert ENDED not in ran.stdout


def test_a_worker_that_is_killed_at_its_start_again_and_again_is_started_ever_later(
    eventually: Eventually, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", FAILS_TO_START.replace("{fault}", "os.kill(os.getpid(), signal.SIGKILL)")],
            stdout=output,
        )
    eventually(lambda: log.read_text().count(ENDED) >= 4, timeout_seconds=30)
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    waits = [float(each) for each in re.findall(r"restart_in_seconds\D+([0-9.]+)", log.read_text())]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]


def test_a_port_that_is_taken_ends_the_service_before_any_worker(closed_port: int) -> None:
    settings = {
        "HOLDFAST_DATABASE_URL": "postgresql://127.0.0.1/x", "HOLDFAST_LIVE_TOKEN_SECRET": "x" * 32,
        "HOLDFAST_INGEST_PORT": str(closed_port), "HOLDFAST_INGEST_PROCESSES": "2",
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-m", "holdfast.ingest"], env={**os.environ, **settings}, capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip

    assert ran.returncode == 1
    assert "cannot listen on HOLDFAST_INGEST_HOST and HOLDFAST_INGEST_PORT" in ran.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that another process listens on."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        yield port
