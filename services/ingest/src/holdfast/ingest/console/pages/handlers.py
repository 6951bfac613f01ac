"""Handlers: how often each runs, fails, and how long it takes; how they are declared; what is paused; and types for which
nobody is there.
"""

from flask import Blueprint, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.pauses import MAX_NOTE_LENGTH, SHARED, PauseKind
from holdfast.ingest.console import summaries
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.storage.statistics import Window

__all__ = ["WINDOWS", "add", "chosen_window"]

WINDOWS = {Window.HOUR: "Last hour", Window.DAY: "Last day", Window.QUARTER: "Last 90 days"}
"""Titles of the spans that statistics are shown for."""


def add(room: Blueprint) -> None:
    """Add the address."""
    room.add_url_rule("/handlers", "handlers", _handlers)


def chosen_window() -> Window:
    """The span that the address names; the last hour for any other text."""
    name = request.args.get("window", "").upper()
    return Window[name] if name in Window.__members__ else Window.HOUR


def _handlers() -> AnyResponse:
    """The busiest first."""
    current = require_role(Role.VIEWER)
    window = chosen_window()
    found = summaries.handler_statistics(current.tenant, window)
    return page(
        "handlers.html", rows=found.rows, unserved=found.unserved, windows=WINDOWS, window=window,
        slowest=max((row.run.p95_ms or 0 for row in found.rows), default=0),
        standings=found.standings if current.is_operator else [], pauses=found.pauses, shared=SHARED,
        kinds=PauseKind, longest_note=MAX_NOTE_LENGTH,
    )  # fmt: skip
