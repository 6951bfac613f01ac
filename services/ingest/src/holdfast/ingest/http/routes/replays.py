"""``/v1/replays``: send a set of events round again, at a bounded rate."""

from typing import Any, Literal
from uuid import UUID

from flask import Blueprint, Response, json, url_for
from pydantic import BaseModel, ConfigDict, Field

from holdfast.domain.state import State
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.bodies import FilterFields, Page, event_filter, read_arguments, read_body
from holdfast.ingest.http.jobs import Jobs, job_view
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.views import identifier
from holdfast.storage import replays
from holdfast.storage.audit import Actor
from holdfast.storage.replays import (
    MAX_ITEMS,
    MAX_RATE_PER_S,
    MIN_RATE_PER_S,
    Action,
    JobState,
    NotStarted,
    Replay,
    ReplayPage,
)

__all__ = ["DEFAULT_RATE", "JOBS", "blueprint", "ReplayFilter", "ReplayList", "ReplayRequest"]

blueprint = Blueprint("replays", __name__)

EXAMPLE = '{"filter": {"state": "dead", "error_type": "KeyError"}, "rate_per_s": 10, "dry_run": true}'

NAME = "replay; the id is the one from the 202 answer to POST /v1/replays"

DEFAULT_RATE = 10.0

_REFUSALS = {
    NotStarted.TOO_MANY_EVENTS: ("too_many_events", f"a replay has at most {MAX_ITEMS} events; narrow the filter"),
    NotStarted.KEY_REUSED: (
        "id_conflict",
        "this Idempotency-Key belongs to a discard, or to a replay with another filter or rate; use a new one",
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


class ReplayList(Page):
    """Query string of ``GET /v1/replays``."""

    state: JobState | None = None
    cursor: UUID | None = None


JOBS = Jobs(Action.REPLAY, NAME, _REFUSALS, ("replay_done", "this replay is done already; nothing is left to cancel"))


@blueprint.post("/v1/replays")
def start() -> Response:
    """Freeze the set and begin; or, as a dry run, count it."""
    actor = acting("operate")
    wanted = read_body(ReplayRequest, EXAMPLE)
    chosen, key = event_filter(wanted.filter, wanted.filter.state), idempotency_key()
    if wanted.dry_run:
        return _json({"count": JOBS.count(actor, chosen)}, 200)
    begun = JOBS.start(actor, chosen, rate_per_s=wanted.rate_per_s, key=key)
    return _json(_view(begun), 202, {"Location": _address(begun)})


@blueprint.get("/v1/replays")
def list_() -> Response:
    """Replays of the key's tenant, newest first."""
    actor, wanted = acting("operate"), read_arguments(ReplayList)
    page = reconnecting(lambda: _list(actor, wanted))
    next_cursor = str(page.next_id) if page.next_id else None
    return _json({"items": [_view(each) for each in page.items], "next_cursor": next_cursor}, 200)


@blueprint.get("/v1/replays/<replay_id>")
def show(replay_id: str) -> Response:
    """How far a replay is."""
    return _json(_view(JOBS.find(acting("operate"), identifier(replay_id, NAME))), 200)


@blueprint.delete("/v1/replays/<replay_id>")
def cancel(replay_id: str) -> Response:
    """Stop a replay. What it has replayed stays so; stopping one that was stopped changes nothing."""
    return _json(_view(JOBS.cancel(acting("operate"), identifier(replay_id, NAME))), 200)


def _list(actor: Actor, wanted: ReplayList) -> ReplayPage:
    return parts().database.call(
        replays.list_replays, tenant=actor.tenant, state=wanted.state, limit=wanted.limit, before_id=wanted.cursor
    )


def _address(begun: Replay) -> str:
    return url_for("replays.show", replay_id=begun.id)


def _view(replay: Replay) -> dict[str, Any]:
    return {
        "replay_id": str(replay.id),
        **job_view(replay),
        "rate_per_s": replay.rate_per_s,
        "replayed": replay.replayed,
        "links": {"self": _address(replay)},
    }


def _json(body: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
