"""What runs where: nodes, their workers, what handlers have now; and draining a node."""

import re

from flask import Blueprint, redirect
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console import changes, reading
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.problems import Problem
from holdfast.storage.nodes import NodeState, NotDrainable

__all__ = ["add"]

_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/workers", "workers", _workers)
    room.add_url_rule("/workers/<node_id>/drain", "drain_node", _drain, methods=["POST"])
    room.add_url_rule("/workers/<node_id>/undrain", "undrain_node", _undrain, methods=["POST"])


def _workers() -> AnyResponse:
    """The nodes, processors first."""
    current = require_role(Role.OPERATOR)
    found = reading.list_nodes()
    processors = [node for node in found if node.service == "processor"]
    return page(
        "workers.html",
        nodes=[*processors, *(node for node in found if node.service != "processor")],
        processors=[node for node in processors if node.state is not NodeState.STALE],
        slots=sum(node.slots for node in processors),
        busy=sum(node.busy for node in processors),
        drains=[node for node in processors if node.state in (NodeState.DRAINING, NodeState.DRAINED)],
        stale=[node for node in found if node.state is NodeState.STALE],
        tenant=current.tenant,
    )


def _drain(node_id: str) -> AnyResponse:
    """Let a processor finish what it has and take nothing new."""
    return _mark(node_id, is_draining=True)


def _undrain(node_id: str) -> AnyResponse:
    """Let it take events again."""
    return _mark(node_id, is_draining=False)


def _mark(node_id: str, *, is_draining: bool) -> AnyResponse:
    # Not the role operator: a node works for all tenants.
    current = require_role(Role.ADMIN)
    if _ID.fullmatch(node_id) is None:
        raise _missing()
    try:
        node = changes.set_draining(current.actor, node_id, is_draining=is_draining)
    except NotDrainable as exc:
        raise Problem(
            409, "not_drainable", f"this node is {exc}, which takes no events; only processors can be drained"
        ) from exc
    if node is None:
        raise _missing()
    return redirect(f"/console/workers?notice={'draining' if is_draining else 'undrained'}#n-{node.id}", 303)


def _missing() -> Problem:
    return Problem(404, "not_found", "there is no such node; a service that was restarted is another one")
