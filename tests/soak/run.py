"""One run: start a stack, load it, strike, let it settle, write the history, judge it."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from holdfast.local.services import SERVICES, Service, is_ready
from holdfast.local.stack import TENANT, Stack

from . import faults
from .figures import figures
from .history import Recorder, dump_database, load_history
from .live import LiveClients
from .load import Load, Tenant
from .operators import Operators
from .plan import Fault, save_plan
from .rules import check
from .violation import Violation

__all__ = ["SETTINGS", "Soak", "Verdict"]

HERE = str(Path(__file__).parent)

LEASE_SECONDS = 3.0
SETTLE_SECONDS = 60.0
"""After the faults, once every service is ready again, until everything must be settled and told."""

READY_SECONDS = 120.0
"""For starting again what was struck last; two cores take some seconds, a loaded machine more."""

SETTINGS = {
    "HOLDFAST_HANDLERS": "handlers:handlers",
    "HOLDFAST_LEASE_SECONDS": str(LEASE_SECONDS),
    "HOLDFAST_SHUTDOWN_SECONDS": "2",  # some handlers take longer and are interrupted
    "HOLDFAST_PROCESSOR_PROCESSES": "2",
    "HOLDFAST_PROCESSOR_THREADS": "4",
    "HOLDFAST_INGEST_THREADS": "8",
}

TABLES = """
CREATE TABLE effect (event_id uuid, attempt int, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE call (event_id uuid, key text);
CREATE TABLE run (event_id uuid, attempt int, pid int, began timestamptz, ended timestamptz);
CREATE TABLE step_call (event_id uuid, name text, attempt int, began timestamptz)
"""

LAST_TICK = """
UPDATE schedule SET is_paused = true WHERE name = 'tick' AND next_at > now() RETURNING extract(epoch FROM next_at)::float8
"""
"""Keeps the schedule from its next tick once it has had all before: one would be open at the end."""

OPEN = "SELECT count(*) FROM processing_state WHERE state IN ('queued', 'processing', 'failed')"
IN_OUTBOX = """
SELECT count(*) FROM event_update u, outbox_cursor c
WHERE NOT pg_visible_in_snapshot(CAST(CAST(u.transaction_id AS text) AS xid8), CAST(c.confirmed AS pg_snapshot))
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out of a run."""

    figures: dict[str, Any]
    violations: list[Violation]
    folder: Path


@dataclass
class Soak:
    """One run.

    Attributes:
        plan: what strikes; its faults are over after ``seconds``.
        folder: where the history goes.
        python_path: where services look for modules first; a negative control puts broken ones there.
        tenants: who sends events beside the stack's own tenant.
        settings: of the services.
        sabotage: SQL that breaks the database before the load, for the negative controls.
        say: told in a line what happens.
    """

    seed: int
    seconds: float
    plan: Sequence[Fault]
    folder: Path
    per_second: float = 15.0
    settle_seconds: float = SETTLE_SECONDS
    tenants: Sequence[str] = ("acme", "zenith")
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    python_path: str = ""
    sabotage: str = ""
    say: Callable[[str], None] = lambda _: None
    _run: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Verdict:
        """Run it; takes ``seconds``, at most ``settle_seconds``, and some for starting and stopping."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_plan(self.folder / "plan.json", self.plan)
        recorder = Recorder(self.folder)
        with tempfile.TemporaryDirectory(prefix="holdfast-soak-", ignore_cleanup_errors=True) as data:
            path = ":".join(filter(None, [self.python_path, HERE]))
            # Without fsync: processes die here and the machine does not, so what PostgreSQL wrote stays written. With it
            # each crash is followed by a sync of the whole data folder, for seconds that no fault asked for.
            stack = Stack(Path(data), settings=self.settings, python_path=path, is_durable=False)
            try:
                stack.start()
                self._under_load(stack, recorder)
            finally:
                stack.stop()
                recorder.close(self._run)
                _keep_logs(stack, self.folder / "logs")
        return self._judge()

    def _under_load(self, stack: Stack, recorder: Recorder) -> None:
        stack.postgres.execute(TABLES, database="holdfast")
        if self.sabotage:
            stack.postgres.execute(self.sabotage, database="holdfast")
        tenants = [
            Tenant(TENANT, stack.api_key),
            *(Tenant(name, stack.create_key(name)) for name in self.tenants),
        ]
        clients = LiveClients(
            tenants, recorder, seed=self.seed, live_url=stack.live_url, ingest_url=stack.ingest_url,
            database_url=stack.database_url,
        )  # fmt: skip
        load = Load(stack.ingest_url, tenants, recorder, seed=self.seed, per_second=self.per_second)
        operators = Operators(stack.ingest_url, tenants, recorder, seed=self.seed)
        with contextlib.ExitStack() as running:  # a run that is interrupted ends too
            clients.start()
            running.callback(clients.stop)
            _wait(clients.are_subscribed, 30)
            load.start()
            running.callback(load.finish, 0)
            operators.start()
            running.callback(operators.finish, 0)
            self._strike(stack, recorder)
            self._settle(stack, load, operators, clients)
        dump_database(recorder, stack.database_url)

    def _strike(self, stack: Stack, recorder: Recorder) -> None:
        self.say(f"seed {self.seed}: {len(self.plan)} faults in {self.seconds:.0f} s; history in {self.folder}")
        self._run |= {"seed": self.seed, "lease_seconds": LEASE_SECONDS, "began": time.time()}
        faults.strike(stack, self.plan, recorder, until_seconds=self.seconds, say=self.say)
        self._run["faults_ended"] = time.time()

    def _settle(self, stack: Stack, load: Load, operators: Operators, clients: LiveClients) -> None:
        """Wait until all is settled and told, or the time is up: what is then still open is stuck."""
        self.say("the faults are over; waiting for everything to settle")
        are_back = _wait(lambda: not _unready(stack), READY_SECONDS)
        self._run["unready"] = [] if are_back else _unready(stack)
        self._run["calm_since"] = time.time()
        deadline = time.monotonic() + self.settle_seconds
        _wait(lambda: self._is_last_tick(stack), deadline - time.monotonic())
        load.finish(deadline - time.monotonic())
        operators.finish(deadline - time.monotonic())
        _wait(lambda: _is_settled(stack), deadline - time.monotonic())
        _wait(lambda: clients.know(_States(stack.database_url)), deadline - time.monotonic())
        self._run["ended"] = time.time()

    def _is_last_tick(self, stack: Stack) -> bool:
        next_at = stack.postgres.execute(LAST_TICK, database="holdfast").split()
        self._run["ticks_until"] = float(next_at[0]) if next_at else None
        return bool(next_at)

    def _judge(self) -> Verdict:
        history = load_history(self.folder)
        violations = check(history)
        counted = figures(history, violations)
        lines = (json.dumps(asdict(violation)) + "\n" for violation in violations)
        (self.folder / "violations.jsonl").write_text("".join(lines))
        (self.folder / "figures.json").write_text(json.dumps(counted, indent=1) + "\n")
        return Verdict(counted, violations, self.folder)


def _keep_logs(stack: Stack, folder: Path) -> None:
    """Copy what the services and servers wrote: a violation is explained there."""
    shutil.copytree(stack.logs, folder, dirs_exist_ok=True)
    for server in (stack.postgres, stack.redis):
        shutil.copy(server.process.log, folder)


class _States:
    """What the database says of each event that topics show; read once."""

    def __init__(self, url: str) -> None:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT e.id::text, e.tenant, e.audience, s.version, s.state"
                " FROM event e JOIN processing_state s ON s.event_id = e.id"
            )
            self._rows = cursor.fetchall()
        connection.close()

    def __call__(self, tenant: str, topics: Sequence[str]) -> dict[str, tuple[int, str]]:
        return {
            event: (version, state)
            for event, owner, audience, version, state in self._rows
            if owner == tenant and (f"tenant:{tenant}" in topics or f"audience:{audience}" in topics)
        }


def _unready(stack: Stack) -> list[str]:
    """Services that say so, or do not answer, or do not run."""
    return [service.name for service in SERVICES if not _is_ready(stack, service)]


def _is_ready(stack: Stack, service: Service) -> bool:
    if service.has_metrics:
        return is_ready(stack.metrics_url(service.name))
    return stack.services[service.name].is_running


def _is_settled(stack: Stack) -> bool:
    return all(stack.postgres.execute(each, database="holdfast") == "0" for each in (OPEN, IN_OUTBOX))


def _wait(is_done: Callable[[], bool], seconds: float) -> bool:
    """Whether it was done in time."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
