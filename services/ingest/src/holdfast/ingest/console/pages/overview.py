"""The first page: what is open, what died, what failed; and how to send a first event."""

from collections.abc import Sequence
from datetime import UTC, datetime

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.state import State
from holdfast.ingest.console import reading
from holdfast.ingest.console.attention import points
from holdfast.ingest.console.charts import Chart, Series, lines
from holdfast.ingest.console.pages.handlers import WINDOWS, chosen_window
from holdfast.ingest.console.preferences import COLUMNS, STANDARD_COLUMNS
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.parts import parts
from holdfast.ingest.operate.pauser import list_pauses
from holdfast.storage.filters import EventFilter
from holdfast.storage.nodes import NodeView
from holdfast.storage.statistics import Point, Window

__all__ = ["add", "first_run", "service_address"]

SHOWN = 5
"""Events in each of the short lists, and groups of dead letters."""


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("", "home", lambda: redirect("/console/", 308))
    room.add_url_rule("/", "overview", _overview)


def _overview() -> AnyResponse:
    """What a tenant has going on."""
    visitor = require_role(Role.VIEWER)
    tenant = visitor.tenant
    window = chosen_window()
    newest = reading.list_events(EventFilter(), tenant=tenant, limit=SHOWN).items
    if not newest:
        return first_run()
    counts = reading.open_counts(tenant)
    nodes = reading.list_nodes() if visitor.is_operator else None
    return page(
        "overview.html",
        attention=points(
            oldest_due_at=counts.oldest_due_at,
            unserved=reading.unserved(tenant),
            nodes=nodes,
            now=datetime.now(UTC),
            pauses=list_pauses(parts().database, tenant),
        ),
        counts=counts,
        threads=None if nodes is None else _threads(nodes),
        newest=newest,
        standard_columns=STANDARD_COLUMNS,
        titles=COLUMNS,
        groups=reading.groups_of_dead(tenant, SHOWN),
        failed=reading.list_events(EventFilter(state=State.FAILED), tenant=tenant, limit=SHOWN).items,
        open_states=(State.QUEUED, State.PROCESSING, State.FAILED),
        charts=_charts(reading.flow(tenant, window), window),
        window=window,
        windows=WINDOWS,
    )


def _threads(nodes: Sequence[NodeView]) -> tuple[int, int]:
    """How many events processors run now, and how many they can run at once."""
    processors = [node for node in nodes if node.service == "processor"]
    return sum(node.busy for node in processors), sum(node.slots for node in processors)


def _charts(points: Sequence[Point], window: Window) -> list[Chart]:
    """What went through, and what went wrong."""

    def series(name: str, tone: str) -> Series:
        return Series(name.capitalize(), [(point.at, getattr(point.flow, name)) for point in points], tone)

    clock = "%d %b" if window is Window.QUARTER else "%H:%M"
    return [
        lines(
            "Accepted and processed",
            [series("accepted", "quiet"), series("processed", "good")],
            unit="events",
            clock=clock,
        ),
        lines("Failed and dead", [series("failed", "warn"), series("dead", "bad")], unit="attempts", clock=clock),
    ]


def first_run() -> Response:
    """For a tenant without any event: a command that sends one."""
    return page("first_run.html", address=service_address())


def service_address() -> str:
    """Where this service is reached, as the browser reached it."""
    forwarded = request.headers.get("X-Forwarded-Proto", "").lower()
    scheme = forwarded if forwarded in ("http", "https") else request.scheme
    return f"{scheme}://{request.headers.get('X-Forwarded-Host') or request.host}"
