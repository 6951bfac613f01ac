"""``/v1/replays``: send a set of events round again, at a bounded rate."""

from typing import Any, Literal
from uuid import UUID

from flask import Blueprint, Response, json, url_for
from pydantic import BaseModel, ConfigDict, Field

from holdfast.domain.state import State
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import FilterFields, event_filter, read_body
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.views import identifier, missing, rfc3339
from holdfast.storage import replays
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.keys import KeyHolder
from holdfast.storage.replays import MAX_ITEMS, MAX_RATE_PER_S, MIN_RATE_PER_S, JobState, NotStarted, Replay

__all__ = ["blueprint", "ReplayFilter", "ReplayRequest"]

blueprint = Blueprint("replays", __name__)

EXAMPLE = '{"filter": {"state": "dead", "error_type": "KeyError"}, "rate_per_s": 10, "dry_run": true}'

NAME = "replay; the id is the one from the 202 answer to POST /v1/replays"

DEFAULT_RATE = 10.0


_NAMES = {"ce_id": "id"}
"""What a filter's field is called in the API where storage has another name for it."""

_REFUSALS = {
    NotStarted.TOO_MANY_EVENTS: ("too_many_events", f"a replay has at most {MAX_ITEMS} events; narrow the filter"),
    NotStarted.KEY_REUSED: (
        "id_conflict",
        "this Idempotency-Key belongs to a replay with another filter or rate; use a new one for another request",
    ),
}


class ReplayFilter(FilterFields):
    """Which events; dead letters unless told otherwise."""

    state: Literal[State.DEAD, State.DISCARDED, State.PROCESSED] = State.DEAD


class ReplayRequest(BaseModel):
    """Body of ``POST /v1/replays``. The filter has to be there: an empty one is every dead letter."""

    model_config = ConfigDict(extra="forbid")

    filter: ReplayFilter
    rate_per_s: float = Field(
        default=DEFAULT_RATE, ge=MIN_RATE_PER_S, le=MAX_RATE_PER_S, allow_inf_nan=False,
        description=f"a number from {MIN_RATE_PER_S:g} to {MAX_RATE_PER_S:g}",
    )  # fmt: skip
    dry_run: bool = False


@blueprint.post("/v1/replays")
def start() -> Response:
    """Freeze the set and begin; or, as a dry run, count it."""
    holder = require("operate")
    wanted = read_body(ReplayRequest, EXAMPLE)
    chosen, actor, key = event_filter(wanted.filter, wanted.filter.state), _actor(holder), idempotency_key()
    if wanted.dry_run:
        return _json({"count": reconnecting(lambda: _count(chosen, actor))}, 200)
    begun = reconnecting(lambda: _start(actor, chosen, wanted.rate_per_s, key))
    return _json(_view(begun), 202, {"Location": _address(begun)})


@blueprint.get("/v1/replays/<replay_id>")
def show(replay_id: str) -> Response:
    """How far a replay is."""
    actor, wanted = _actor(require("operate")), identifier(replay_id, NAME)
    return _json(_view(_present(reconnecting(lambda: _find(actor, wanted)))), 200)


@blueprint.delete("/v1/replays/<replay_id>")
def cancel(replay_id: str) -> Response:
    """Stop a replay. What it has replayed stays so; stopping one that was stopped changes nothing."""
    actor, wanted = _actor(require("operate")), identifier(replay_id, NAME)
    stopped = _present(reconnecting(lambda: _cancel(actor, wanted)))
    if stopped.state is JobState.DONE:
        raise Problem(409, "replay_done", "this replay is done already; nothing is left to cancel")
    return _json(_view(stopped), 200)


def _count(chosen: EventFilter, actor: Actor) -> int:
    with _database().transaction() as session:
        return replays.count_matching(session, chosen, tenant=actor.tenant)


def _start(actor: Actor, chosen: EventFilter, rate_per_s: float, key: str) -> Replay:
    with _database().transaction() as session:
        begun = replays.start_replay(session, actor, chosen, rate_per_s=rate_per_s, idempotency_key=key)
        if isinstance(begun, NotStarted):  # raised within the transaction, so that nothing of it stays
            raise Problem(422, *_REFUSALS[begun])
    return begun


def _find(actor: Actor, replay_id: UUID) -> Replay | None:
    with _database().transaction() as session:
        return replays.find_replay(session, replay_id, tenant=actor.tenant)


def _cancel(actor: Actor, replay_id: UUID) -> Replay | None:
    with _database().transaction() as session:
        return replays.cancel(session, actor, replay_id)


def _present(found: Replay | None) -> Replay:
    if found is None:
        raise missing(NAME)
    return found


def _actor(holder: KeyHolder) -> Actor:
    return Actor(holder.tenant, holder.key_id)


def _database() -> Database:
    database: Database = parts().database
    return database


def _address(begun: Replay) -> str:
    return url_for("replays.show", replay_id=begun.id)


def _view(replay: Replay) -> dict[str, Any]:
    return {
        "replay_id": str(replay.id),
        "state": replay.state,
        "filter": {_NAMES.get(name, name): value for name, value in replay.filter.items()},
        "rate_per_s": replay.rate_per_s,
        "total": replay.total,
        "replayed": replay.replayed,
        "skipped": replay.skipped,
        "remaining": replay.total - replay.replayed - replay.skipped,
        "failures": replay.failures,
        "last_error": replay.last_error,
        "created_by": replay.created_by,
        "created_at": rfc3339(replay.created_at),
        "finished_at": rfc3339(replay.finished_at),
        "links": {"self": _address(replay)},
    }


def _json(body: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
