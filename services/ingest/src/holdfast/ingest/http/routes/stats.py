"""``GET /v1/stats`` and ``GET /v1/handlers``: what happened lately and how it stands, from counters."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict, Field

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.auth import is_operator, require
from holdfast.ingest.http.bodies import read_arguments
from holdfast.ingest.http.handler_views import Standing, standing_view, standings
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.views import rfc3339
from holdfast.storage import statistics
from holdfast.storage.keys import KeyHolder
from holdfast.storage.statistics import Flow, HandlerRow, Overview, Point, Times, Unserved, Window

__all__ = ["blueprint", "WindowRequest"]

blueprint = Blueprint("stats", __name__)


class WindowRequest(BaseModel):
    """Query string of both."""

    model_config = ConfigDict(extra="forbid")

    window: Annotated[Literal["hour", "day", "quarter"], Field(description="hour, day or quarter")] = "hour"

    def chosen(self) -> Window:
        """As storage names it."""
        return Window[self.window.upper()]


@blueprint.get("/v1/stats")
def stats() -> Response:
    """How the tenant's events stand, and a series of what happened."""
    holder = require("events:read")
    request = read_arguments(WindowRequest)
    overview, series = reconnecting(lambda: _stats(holder.tenant, request))
    total = sum((point.flow for point in series), Flow())
    return _json({
        **_overview(overview),
        "window": {
            "name": request.window,
            "since": rfc3339(series[0].at),
            "step_seconds": request.chosen().step_seconds,
            "total": asdict(total),
            "series": [_point(point) for point in series],
        },
    })  # fmt: skip


@blueprint.get("/v1/handlers")
def handlers() -> Response:
    """Handlers by rate, with failures and times; the types for which events wait, since nobody serves them.

    For operators also how processors declare handlers, and which are paused.
    """
    holder = require("events:read")
    request = read_arguments(WindowRequest)
    rows, unserved, standing = reconnecting(lambda: _handlers(holder, request))
    return _json({
        "window": request.window, "items": [_handler(row) for row in rows],
        "unserved": [_unserved(each) for each in unserved],
        "declared": [standing_view(each) for each in standing],
    })  # fmt: skip


def _stats(tenant: str, request: WindowRequest) -> tuple[Overview, list[Point]]:
    with parts().database.transaction() as session:
        window = request.chosen()
        since = window.since(statistics.present(session))
        series = statistics.flow(session, tenant, since=since, step_seconds=window.step_seconds)
        return statistics.overview(session, tenant), series


def _handlers(holder: KeyHolder, request: WindowRequest) -> tuple[list[HandlerRow], list[Unserved], list[Standing]]:
    with parts().database.transaction() as session:
        since = request.chosen().since(statistics.present(session))
        rows = statistics.handlers(session, holder.tenant, since=since)
        # As nodes and what they serve: handlers work for all tenants.
        standing = standings(session, holder.tenant)[0] if is_operator(holder) else []
        return rows, statistics.unserved(session, holder.tenant), standing


def _overview(overview: Overview) -> dict[str, Any]:
    rates = overview.rates
    return {
        "counted_at": rfc3339(overview.counted_at),
        "lag_seconds": round(overview.lag_seconds, 3),
        "per_second": {
            "accepted": round(rates.accepted, 3), "processed": round(rates.processed, 3), "failed": round(rates.failed, 3),
        },
        "last_hour": asdict(overview.last_hour),
        "events": dict(overview.open_events),
        "oldest_due": {"seconds": round(overview.oldest_due_seconds, 3), "is_at_most": overview.is_at_most},
    }  # fmt: skip


def _point(point: Point) -> dict[str, Any]:
    return {"at": rfc3339(point.at), **asdict(point.flow)}


def _handler(row: HandlerRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "name": row.name or None,
        "processed": row.processed,
        "failed": row.failed,
        "dead": row.dead,
        "lost": row.lost,
        "per_second": round(row.rate_per_s, 4),
        "run": _times(row.run),
        "wait": _times(row.wait),
        "end_to_end": _times(row.end_to_end),
        "last_seen_at": rfc3339(row.last_seen_at),
    }


def _times(times: Times) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 1) for name, value in asdict(times).items()}


def _unserved(each: Unserved) -> dict[str, Any]:
    return {
        "type": each.type,
        "events": each.events,
        "is_at_least": each.is_at_least,
        "oldest_seconds": round(each.oldest_waiting_seconds, 3),
        "is_served": each.is_served,
    }


def _json(body: Any) -> Response:
    return Response(json.dumps(body), content_type="application/json")
