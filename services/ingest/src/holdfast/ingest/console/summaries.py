"""What the pages of handlers and of the tenant show, each read in one transaction."""

from dataclasses import dataclass

from holdfast.domain.pauses import Paused
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.handler_views import Standing, standings
from holdfast.ingest.http.parts import parts
from holdfast.storage import statistics
from holdfast.storage.statistics import Flow, HandlerRow, Overview, Unserved, Window
from holdfast.storage.tenants import TenantSettings, find_tenant

__all__ = ["HandlerStatistics", "TenantSummary", "handler_statistics", "tenant_summary"]


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """How handlers did, the busiest first, the types for which nobody is there, and how processors declare handlers.

    ``pauses``: all that concern the tenant, the newest first.
    """

    rows: list[HandlerRow]
    unserved: list[Unserved]
    standings: list[Standing]
    pauses: list[Paused]


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """How a tenant stands, and what happened to its events in each span of time."""

    overview: Overview
    happened: dict[Window, Flow]
    settings: TenantSettings


def handler_statistics(tenant: str, window: Window) -> HandlerStatistics:
    """How handlers did in a window."""

    def read() -> HandlerStatistics:
        with parts().database.transaction() as session:
            since = window.since(statistics.present(session))
            rows = statistics.handlers(session, tenant, since=since)
            return HandlerStatistics(rows, statistics.unserved(session, tenant), *standings(session, tenant))

    return reconnecting(read)


def tenant_summary(tenant: str) -> TenantSummary:
    """How the tenant stands. Costs the same however many events it has."""

    def read() -> TenantSummary:
        with parts().database.transaction() as session:
            now = statistics.present(session)
            found = statistics.overview(session, tenant)
            happened = {Window.HOUR: found.last_hour}
            for window in (Window.DAY, Window.QUARTER):
                points = statistics.flow(
                    session, tenant, since=window.since(now), step_seconds=window.step_seconds
                )  # fmt: skip
                happened[window] = sum((point.flow for point in points), Flow())
            return TenantSummary(found, happened, find_tenant(session, tenant))

    return reconnecting(read)
