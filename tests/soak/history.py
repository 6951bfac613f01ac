"""The history of a run: everything that was answered, done, stored and received, as JSON lines in a folder.

Times are seconds since 1970, of this machine's clock, which PostgreSQL shares.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor

__all__ = ["DATABASE", "History", "Record", "Recorder", "dump_database", "load_history"]

Record = dict[str, Any]

DATABASE = {
    "states": """
        SELECT s.event_id::text AS event, e.tenant, e.audience, e.type, e.source, e.subject, e.ce_id, s.state, s.version,
               e.parent_id::text AS parent, e.extensions->>'holdfasthandler' AS made_for, s.held_limit,
               CASE WHEN e.is_json THEN CAST(convert_from(e.data_bytes, 'UTF8') AS jsonb) END AS data,
               extract(epoch FROM e.time)::float8 AS time,
               s.attempt, s.crashes, s.last_error->>'type' AS error, extract(epoch FROM e.received_at)::float8 AS received_at,
               extract(epoch FROM s.lease_expires_at)::float8 AS lease_expires_at
        FROM processing_state s JOIN event e ON e.id = s.event_id""",
    "updates": """
        SELECT event_id::text AS event, version, state, attempt, extract(epoch FROM at)::float8 AS at,
               detail->>'reason' AS reason, detail->>'superseded_by' AS superseded_by,
               detail ? 'error' AS is_running, coalesce(pg_visible_in_snapshot(
                   CAST(CAST(transaction_id AS text) AS xid8), CAST(c.confirmed AS pg_snapshot)), true) AS is_published
        FROM event_update, outbox_cursor c ORDER BY event_id, version""",
    "log": """
        SELECT event_id::text AS event, handler, attempt, result, extract(epoch FROM processed_at)::float8 AS at
        FROM processed_event_log""",
    "effects": "SELECT event_id::text AS event, attempt, extract(epoch FROM at)::float8 AS at FROM effect ORDER BY at",
    "calls": "SELECT event_id::text AS event, key FROM call",
    "runs": """
        SELECT event_id::text AS event, attempt, pid, extract(epoch FROM began)::float8 AS began,
               extract(epoch FROM ended)::float8 AS ended
        FROM run ORDER BY began""",
    "step_calls": """
        SELECT event_id::text AS event, name, attempt, extract(epoch FROM began)::float8 AS began FROM step_call""",
    "steps": """
        SELECT event_id::text AS event, name, attempt, extract(epoch FROM stored_at)::float8 AS stored_at FROM event_step""",
    "members": """
        SELECT m.event_id::text AS event, m.group_id::text AS group, g.parent_id::text AS parent
        FROM event_group_member m JOIN event_group g ON g.id = m.group_id""",
}
"""What is read from the database at the end: file → query."""


@dataclass
class History:
    """One run.

    Attributes:
        run: seed, times and settings: ``lease_seconds``, ``began``, ``faults_ended``, ``calm_since`` (every service was
            ready again), ``ticks_until`` (the first tick that the schedule was kept from), ``ended``.
        accepted: one for each 202: tenant, source, ce_id, event, is_duplicate, at.
        asked: requests of operators: tenant, action, event, key, at.
        answered: their definite answers: besides, status, answered (the event that the answer is about), is_duplicate.
        left_out: one for each 202 to an event that is not recorded, since another one of its key was within its window: the
            identity, that other event, asked_at, at.
        refused: answers that no valid event may get: tenant, source, ce_id, status, at; status 0: no answer in time.
        faults: strikes as they happened: kind, target, at, ended, hit (process id, events that were put
            back, or counts of connections).
        spared: faults that found their target still starting.
        frames: what live clients received, in order, per client: see ``live.py``.
        clients: client → tenant, topics.
        states, updates, log, effects, calls, runs, step_calls, steps, members: see :data:`DATABASE`.
    """

    run: Record = field(default_factory=dict)
    accepted: list[Record] = field(default_factory=list)
    asked: list[Record] = field(default_factory=list)
    answered: list[Record] = field(default_factory=list)
    left_out: list[Record] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)
    faults: list[Record] = field(default_factory=list)
    spared: list[Record] = field(default_factory=list)
    frames: list[Record] = field(default_factory=list)
    clients: list[Record] = field(default_factory=list)
    states: list[Record] = field(default_factory=list)
    updates: list[Record] = field(default_factory=list)
    log: list[Record] = field(default_factory=list)
    effects: list[Record] = field(default_factory=list)
    calls: list[Record] = field(default_factory=list)
    runs: list[Record] = field(default_factory=list)
    step_calls: list[Record] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    members: list[Record] = field(default_factory=list)


FILES = ("accepted", "asked", "answered", "left_out", "refused", "faults", "spared", "frames", "clients", *DATABASE)


class Recorder:
    """Appends records to the files of a history, from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._files = {name: (folder / f"{name}.jsonl").open("w", buffering=1) for name in FILES}

    def add(self, name: str, record: Record) -> None:
        """Append one record."""
        line = json.dumps(record, separators=(",", ":"), default=str) + "\n"
        with self._lock:
            self._files[name].write(line)

    def close(self, run: Record) -> None:
        """Write what concerns the whole run, and close the files."""
        (self.folder / "run.json").write_text(json.dumps(run, indent=1) + "\n")
        for file in self._files.values():
            file.close()


def dump_database(recorder: Recorder, url: str) -> None:
    """Add the database's part of the history, as of one moment."""
    with psycopg2.connect(url) as connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for name, query in DATABASE.items():
            cursor.execute(query)
            for row in cursor:
                recorder.add(name, dict(row))
    connection.close()


def load_history(folder: Path) -> History:
    """Read a history back."""
    lists = {name: list(_lines(folder / f"{name}.jsonl")) for name in FILES}
    return History(run=json.loads((folder / "run.json").read_text()), **lists)


def _lines(file: Path) -> Iterator[Record]:
    with file.open() as lines:
        for line in lines:
            yield json.loads(line)


def by_event(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their event, in their order."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[record["event"]].append(record)
    return grouped
