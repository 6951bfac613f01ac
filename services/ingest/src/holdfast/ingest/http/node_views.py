"""What answers say of nodes, as JSON values."""

from typing import Any

from holdfast.ingest.http.views import rfc3339
from holdfast.storage.keys import KeyHolder
from holdfast.storage.nodes import NodeView, WorkerView

__all__ = ["node_view"]


def node_view(node: NodeView, holder: KeyHolder) -> dict[str, Any]:
    """A node. What it runs for other tenants is only counted, and who drained it is for administrators."""
    return {
        "node_id": node.id,
        "service": node.service,
        "host": node.host,
        "pid": node.pid,
        "version": node.version,
        "state": node.state,
        "started_at": rfc3339(node.started_at),
        "last_beat_at": rfc3339(node.beat_at),
        "last_poll_at": rfc3339(node.polled_at),
        "drain_since": rfc3339(node.drain_since),
        "drained_by": node.drained_by if "admin" in holder.scopes else None,
        "types": list(node.types),
        "slots": node.slots,
        "busy": node.busy,
        "workers": [_worker_view(worker, holder.tenant) for worker in node.workers],
    }


def _worker_view(worker: WorkerView, tenant: str) -> dict[str, Any]:
    ours = worker.running_for(tenant)
    return {
        "name": worker.name,
        "pid": worker.pid,
        "started_at": rfc3339(worker.started_at),
        "last_beat_at": rfc3339(worker.beat_at),
        "last_poll_at": rfc3339(worker.polled_at),
        "is_stale": worker.is_stale,
        "is_for_suspects": worker.is_suspect,
        "is_draining": worker.is_draining,
        "is_broker_away": worker.is_broker_away,
        "slots": worker.slots,
        "busy": min(worker.busy, worker.slots),
        "running": [
            {
                "event_id": each.event_id,
                "handler": each.handler,
                "attempt": each.attempt,
                "since": rfc3339(each.since_at),
            }
            for each in ours
        ],
        "running_for_others": len(worker.running) - len(ours),
    }
