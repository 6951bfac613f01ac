"""``/v1/workers``: what runs where, and letting a processor take nothing new."""

import re
from typing import Any

from flask import Blueprint, Response, json

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.acting import actor_of
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import refuse_body
from holdfast.ingest.http.node_views import node_view
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import missing
from holdfast.storage import nodes
from holdfast.storage.database import Database
from holdfast.storage.keys import KeyHolder
from holdfast.storage.nodes import NodeView, NotDrainable

__all__ = ["blueprint"]

blueprint = Blueprint("workers", __name__)

NAME = "node; GET /v1/workers lists them, and a restarted service is another node"

_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)


@blueprint.get("/v1/workers")
def list_() -> Response:
    """Every node that was heard of in the last ten minutes."""
    holder = require("operate")
    found = reconnecting(lambda: _database().call(nodes.list_nodes))
    return _json({"items": [node_view(node, holder) for node in found]}, 200)


@blueprint.get("/v1/workers/<node_id>")
def show(node_id: str) -> Response:
    """One node."""
    holder, known = require("operate"), _identifier(node_id)
    return _answer(reconnecting(lambda: _database().call(nodes.find, known)), holder, 200)


@blueprint.post("/v1/workers/<node_id>/drain")
def drain(node_id: str) -> Response:
    """Let a processor finish what it has and take nothing new. Again it changes nothing."""
    return _mark(node_id, is_draining=True)


@blueprint.post("/v1/workers/<node_id>/undrain")
def undrain(node_id: str) -> Response:
    """Let it take events again. Again it changes nothing."""
    return _mark(node_id, is_draining=False)


def _mark(node_id: str, *, is_draining: bool) -> Response:
    # Not "operate": that is for a tenant's own events, and a node works for all tenants.
    holder = require("admin")
    refuse_body()
    known, actor = _identifier(node_id), actor_of(holder)
    try:
        node = reconnecting(lambda: _database().call(nodes.set_draining, actor, known, is_draining=is_draining))
    except NotDrainable as exc:
        detail = f"this node is {exc}, which takes no events; only processors can be drained"
        raise Problem(409, "not_drainable", detail) from exc
    return _answer(node, holder, 202)


def _identifier(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise missing(NAME)
    return text


def _answer(node: NodeView | None, holder: KeyHolder, status: int) -> Response:
    if node is None:
        raise missing(NAME)
    return _json(node_view(node, holder), status)


def _database() -> Database:
    database: Database = parts().database
    return database


def _json(body: Any, status: int) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
