"""``/v1/discards``: give a set of events up. Frozen and worked off as replays are."""

from typing import Any, Literal

from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict

from holdfast.domain.state import State
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.bodies import FilterFields, event_filter, read_body
from holdfast.ingest.http.jobs import Jobs, job_view
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.views import identifier
from holdfast.storage.replays import MAX_ITEMS, MAX_RATE_PER_S, Action, NotStarted, Replay

__all__ = ["JOBS", "blueprint", "DiscardFilter", "DiscardRequest"]

blueprint = Blueprint("discards", __name__)

EXAMPLE = '{"filter": {"state": "dead", "error_type": "KeyError"}, "dry_run": true}'

NAME = "discard; the id is the one from the 202 answer to POST /v1/discards"

_REFUSALS = {
    NotStarted.TOO_MANY_EVENTS: ("too_many_events", f"a discard has at most {MAX_ITEMS} events; narrow the filter"),
    NotStarted.KEY_REUSED: (
        "id_conflict",
        "this Idempotency-Key belongs to a replay, or to a discard with another filter; use a new one for another request",
    ),
}


class DiscardFilter(FilterFields):
    """Which events; dead letters unless told otherwise. Those that run are cancelled."""

    state: Literal[State.DEAD, State.QUEUED, State.FAILED, State.PROCESSING] = State.DEAD


class DiscardRequest(BaseModel):
    """Body of ``POST /v1/discards``. The filter has to be there: an empty one is every dead letter."""

    model_config = ConfigDict(extra="forbid")

    filter: DiscardFilter
    dry_run: bool = False


JOBS = Jobs(
    Action.DISCARD, NAME, _REFUSALS, ("discard_done", "this discard is done already; nothing is left to cancel")
)


@blueprint.post("/v1/discards")
def start() -> Response:
    """Freeze the set and begin; or, as a dry run, count it."""
    actor = acting("operate")
    wanted = read_body(DiscardRequest, EXAMPLE)
    chosen, key = event_filter(wanted.filter, wanted.filter.state), idempotency_key()
    if wanted.dry_run:
        return _json({"count": JOBS.count(actor, chosen)}, 200)
    # As fast as may be: a discard runs no handler that could be overrun.
    begun = JOBS.start(actor, chosen, rate_per_s=MAX_RATE_PER_S, key=key)
    return _json(_view(begun), 202, {"Location": _address(begun)})


@blueprint.get("/v1/discards/<discard_id>")
def show(discard_id: str) -> Response:
    """How far a discard is."""
    return _json(_view(JOBS.find(acting("operate"), identifier(discard_id, NAME))), 200)


@blueprint.delete("/v1/discards/<discard_id>")
def cancel(discard_id: str) -> Response:
    """Stop a discard. What it has discarded stays so; stopping one that was stopped changes nothing."""
    return _json(_view(JOBS.cancel(acting("operate"), identifier(discard_id, NAME))), 200)


def _address(begun: Replay) -> str:
    return f"/v1/discards/{begun.id}"


def _view(discard: Replay) -> dict[str, Any]:
    return {
        "discard_id": str(discard.id),
        **job_view(discard),
        "discarded": discard.replayed,
        "links": {"self": _address(discard)},
    }


def _json(body: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
