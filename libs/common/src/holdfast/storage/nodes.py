"""Nodes: what runs where, as each worker process said last, and which nodes are to take nothing new.

A beat is one statement past SQLAlchemy. Whether a node is drained is asked with what is asked every two seconds anyway
(``sweeps.look_after``): the row says so until somebody takes it back, so no message can be lost.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.declared import DeclaredHandler
from holdfast.storage.audit import Actor, note
from holdfast.storage.connection import Dialect
from holdfast.storage.database import Database

__all__ = [
    "MOST_HANDLERS", "MOST_RUNNING", "MOST_TYPES", "STALE_SECONDS", "Beat", "Identity", "NodeState", "NodeView",
    "NotDrainable", "Running", "WorkerView", "beat", "enter", "find", "forget_gone", "leave", "list_nodes", "set_draining",
]  # fmt: skip

STALE_SECONDS = 30.0
"""A worker that has said nothing for so long, three beats, is taken to be gone or frozen."""

GONE_SECONDS = 600.0
"""A node of which no worker has said anything for so long is forgotten. One that was only frozen comes back by itself."""

MOST_TYPES = 500
"""That are written down; a node with more is taken to serve every type."""

MOST_HANDLERS = 500
"""That are written down, by name."""

MOST_RUNNING = 64
MOST_NODES = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Which worker process of which node. ``types``: what it serves, see :class:`~holdfast.storage.tables.Node`."""

    node_id: str
    service: str
    host: str
    node_pid: int
    version: str
    worker: str
    pid: int
    slots: int = 0
    is_suspect: bool = False
    types: tuple[str, ...] = ()
    handlers: tuple[DeclaredHandler, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """An event that a handler has, and since when it is claimed."""

    event_id: str
    tenant: str
    handler: str
    attempt: int
    since: str
    """RFC 3339, on PostgreSQL's clock."""

    @property
    def since_at(self) -> datetime:
        """As a moment."""
        return datetime.fromisoformat(self.since)


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says of itself, but for the time."""

    busy: int = 0
    is_draining: bool = False
    is_broker_away: bool = False
    running: tuple[Running, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker process as it said last."""

    name: str
    pid: int
    started_at: datetime
    beat_at: datetime
    polled_at: datetime | None
    slots: int
    busy: int
    is_suspect: bool
    is_draining: bool
    is_broker_away: bool
    is_stale: bool
    running: Sequence[Running]

    def running_for(self, tenant: str) -> list[Running]:
        """What it runs of this tenant's; of other tenants' events nobody is told more than how many."""
        return [each for each in self.running if each.tenant == tenant]


class NodeState(StrEnum):
    """Where a node stands."""

    ACTIVE = "active"
    DRAINING = "draining"
    """It takes nothing new, and has something left."""
    DRAINED = "drained"
    STALE = "stale"
    """None of its workers has said anything lately."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with its workers, by name."""

    id: str
    service: str
    host: str
    pid: int
    version: str
    started_at: datetime
    types: Sequence[str]
    drain_since: datetime | None
    drained_by: str | None
    workers: Sequence[WorkerView]

    @property
    def is_stale(self) -> bool:
        """Whether none of its workers has said anything lately."""
        return all(worker.is_stale for worker in self.workers)

    @property
    def is_drained(self) -> bool:
        """Whether every worker that was heard of lately has heard of the drain, and has nothing left."""
        fresh = [worker for worker in self.workers if not worker.is_stale]
        return self.drain_since is not None and all(worker.is_draining and not worker.busy for worker in fresh)

    @property
    def state(self) -> NodeState:
        """Where it stands."""
        if self.is_stale:
            return NodeState.STALE
        if self.drain_since is None:
            return NodeState.ACTIVE
        return NodeState.DRAINED if self.is_drained else NodeState.DRAINING

    @property
    def slots(self) -> int:
        """How many events its workers that were heard of lately take at once."""
        return sum(worker.slots for worker in self.workers if not worker.is_stale)

    @property
    def busy(self) -> int:
        """How many of :attr:`slots` have an event."""
        return sum(min(worker.busy, worker.slots) for worker in self.workers if not worker.is_stale)

    @property
    def beat_at(self) -> datetime | None:
        """When one of its workers has said something last."""
        return max((worker.beat_at for worker in self.workers), default=None)

    @property
    def polled_at(self) -> datetime | None:
        """When one of its workers has looked for due events last."""
        return max((worker.polled_at for worker in self.workers if worker.polled_at), default=None)


class NotDrainable(Exception):
    """Only processors take events."""


def _look(sql: str) -> str:
    return str(text(sql).compile(dialect=Dialect()))  # type: ignore[no-untyped-call]


_BEAT = _look("""
-- Parameters: node_id, name, pid; polled_seconds, busy, is_draining, is_broker_away, running.
WITH told AS (
    UPDATE node_worker SET beat_at = now(), polled_seconds = CAST(:polled_seconds AS float8), busy = :busy,
           is_draining = :is_draining, is_broker_away = :is_broker_away, running = CAST(:running AS jsonb)
    WHERE node_id = :node_id AND name = :name AND pid = :pid
    RETURNING node_id
)
SELECT EXISTS (SELECT FROM told)
""")

_ENTER = text("""
-- Parameters: id, service, host, pid, version, types, handlers; is_drained, as the node's processes remember it. A row that
-- is there is
-- updated although nothing changes, so that it is locked: no other worker that leaves takes it away meanwhile.
INSERT INTO node (id, service, host, pid, version, types, handlers, drain_since)
VALUES (:id, :service, :host, :pid, :version, CAST(:types AS text[]), CAST(:handlers AS jsonb),
        CASE WHEN :is_drained THEN now() END)
ON CONFLICT (id) DO UPDATE SET types = excluded.types, handlers = excluded.handlers
""")

_ENTER_WORKER = text("""
-- Parameters: node_id, name, pid, slots, is_suspect, is_draining.
INSERT INTO node_worker (node_id, name, pid, slots, is_suspect, is_draining)
VALUES (:node_id, :name, :pid, :slots, :is_suspect, :is_draining)
ON CONFLICT (node_id, name) DO UPDATE SET pid = excluded.pid, started_at = now(), beat_at = now(), busy = 0,
    slots = excluded.slots, is_draining = excluded.is_draining, is_broker_away = false, running = '[]'
""")

_IS_DRAINED = text("SELECT drain_since IS NOT NULL FROM node WHERE id = :id")

_LOCK = text("SELECT FROM node WHERE id = :node_id FOR UPDATE")
"""Two workers that leave at once would each see the other, and neither forget the node."""

_LEAVE = text("""
-- Parameters: node_id, name, pid.
DELETE FROM node_worker WHERE node_id = :node_id AND name = :name AND pid = :pid
""")

_FORGET_EMPTY = text("""
-- Parameters: node_id.
DELETE FROM node n WHERE n.id = :node_id AND NOT EXISTS (SELECT FROM node_worker w WHERE w.node_id = n.id)
""")

_FORGET_GONE = text("""
-- Parameters: gone_seconds; limit.
DELETE FROM node WHERE id = ANY (ARRAY(
    SELECT n.id FROM node n
    WHERE n.started_at < now() - make_interval(secs => :gone_seconds) AND NOT EXISTS (
        SELECT FROM node_worker w WHERE w.node_id = n.id AND w.beat_at > now() - make_interval(secs => :gone_seconds))
    ORDER BY n.id LIMIT :limit FOR UPDATE SKIP LOCKED))
""")

_LIST = text("""
-- Parameters: id, of one node, or NULL; stale_seconds; limit.
SELECT n.id, n.service, n.host, n.pid, n.version, n.started_at, n.types, n.drain_since, n.drained_by,
       w.name, w.pid AS worker_pid, w.started_at AS worker_started_at, w.beat_at, w.slots, w.busy, w.is_suspect,
       w.is_draining, w.is_broker_away, w.running, w.beat_at - make_interval(secs => w.polled_seconds) AS polled_at,
       w.beat_at < now() - make_interval(secs => :stale_seconds) AS is_stale
FROM (SELECT * FROM node WHERE CAST(:id AS text) IS NULL OR id = :id ORDER BY service, host, started_at, id LIMIT :limit) n
LEFT JOIN node_worker w ON w.node_id = n.id
ORDER BY n.service, n.host, n.started_at, n.id, w.name
""")

_DRAIN = text("""
-- Parameters: id; actor.
UPDATE node SET drain_since = now(), drained_by = :actor WHERE id = :id AND drain_since IS NULL
""")

_UNDRAIN = text("UPDATE node SET drain_since = NULL, drained_by = NULL WHERE id = :id AND drain_since IS NOT NULL")


def enter(session: Session, who: Identity, *, is_drained: bool) -> bool:
    """Write the worker down, and its node if that is not there. Returns whether the node is drained.

    ``is_drained``: what the node's processes remember, for a node whose row was forgotten while it was frozen.
    """
    declared = [each.told() for each in sorted(who.handlers, key=lambda each: each.name)[:MOST_HANDLERS]]
    node = {
        "handlers": json.dumps(declared),
        "id": who.node_id, "service": who.service, "host": who.host, "pid": who.node_pid, "version": who.version,
        "types": sorted(who.types)[:MOST_TYPES], "is_drained": is_drained,
    }  # fmt: skip
    session.execute(_ENTER, node)
    is_drained = bool(session.scalar(_IS_DRAINED, {"id": who.node_id}))
    worker = {
        "node_id": who.node_id, "name": who.worker, "pid": who.pid, "slots": who.slots, "is_suspect": who.is_suspect,
        "is_draining": is_drained,
    }  # fmt: skip
    session.execute(_ENTER_WORKER, worker)
    return is_drained


def beat(database: Database, who: Identity, said: Beat, *, polled_seconds: float | None) -> bool:
    """Say what a worker does. ``False``: its row is not there (any more), see :func:`enter`.

    Raises:
        DatabaseUnavailable, StatementTooSlow: see :meth:`Database.look`.
    """
    running = [
        {"event_id": each.event_id, "tenant": each.tenant, "handler": each.handler, "attempt": each.attempt,
         "since": each.since}
        for each in said.running[:MOST_RUNNING]
    ]  # fmt: skip
    parameters = {
        "node_id": who.node_id, "name": who.worker, "pid": who.pid, "polled_seconds": polled_seconds, "busy": said.busy,
        "is_draining": said.is_draining, "is_broker_away": said.is_broker_away, "running": json.dumps(running),
    }  # fmt: skip
    return bool(database.look(_BEAT, **parameters)[0])


def leave(session: Session, who: Identity) -> None:
    """Forget a worker that ends in order, and its node with the last one."""
    session.execute(_LOCK, {"node_id": who.node_id})
    session.execute(_LEAVE, {"node_id": who.node_id, "name": who.worker, "pid": who.pid})
    session.execute(_FORGET_EMPTY, {"node_id": who.node_id})


def forget_gone(session: Session, *, limit: int, gone_seconds: float = GONE_SECONDS) -> int:
    """Forget up to ``limit`` nodes that were killed or cut off; returns how many."""
    gone: Any = session.execute(_FORGET_GONE, {"gone_seconds": gone_seconds, "limit": limit})
    return int(gone.rowcount)


def list_nodes(session: Session) -> list[NodeView]:
    """All nodes, by service and host; a thousand at most."""
    return _nodes(session, None)


def find(session: Session, node_id: str) -> NodeView | None:
    """One node, or ``None``."""
    found = _nodes(session, node_id)
    return found[0] if found else None


def set_draining(session: Session, actor: Actor, node_id: str, *, is_draining: bool) -> NodeView | None:
    """Let a processor take nothing new, or take events again; ``None``: there is no such node. A change is audited.

    Raises:
        NotDrainable: the node is no processor.
    """
    node = find(session, node_id)
    if node is None:
        return None
    if node.service != "processor":
        raise NotDrainable(node.service)
    done: Any = session.execute(_DRAIN if is_draining else _UNDRAIN, {"id": node_id, "actor": actor.key_id})
    if done.rowcount:
        action = "drain_node" if is_draining else "undrain_node"
        note(session, actor, action, detail={"node": node.id, "host": node.host})
    return find(session, node_id)


def _nodes(session: Session, node_id: str | None) -> list[NodeView]:
    parameters = {"id": node_id, "stale_seconds": STALE_SECONDS, "limit": MOST_NODES}
    nodes: dict[str, NodeView] = {}
    workers: dict[str, list[WorkerView]] = {}
    for row in session.execute(_LIST, parameters):
        listed = workers.setdefault(row.id, [])
        if row.name is not None:
            listed.append(_worker(row))
        if row.id not in nodes:
            nodes[row.id] = NodeView(
                row.id, row.service, row.host, row.pid, row.version, row.started_at, row.types, row.drain_since,
                row.drained_by, listed,
            )  # fmt: skip
    return list(nodes.values())


def _worker(row: Any) -> WorkerView:
    return WorkerView(
        name=row.name, pid=row.worker_pid, started_at=row.worker_started_at, beat_at=row.beat_at, polled_at=row.polled_at,
        slots=row.slots, busy=row.busy, is_suspect=row.is_suspect, is_draining=row.is_draining,
        is_broker_away=row.is_broker_away, is_stale=row.is_stale, running=[Running(**each) for each in row.running],
    )  # fmt: skip
