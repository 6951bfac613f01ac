"""Schedules: when each one ticks, and pausing, running and deleting one."""

from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.errors import InvalidSchedule
from holdfast.ingest.console.pages.forms import key_of, new_key
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.schedule_views import next_ticks, words_of
from holdfast.ingest.operate.scheduler import Scheduler

__all__ = ["add"]

SHOWN = 50

MAX_CHARACTERS = 100
"""Of a name in an address."""


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/schedules", "schedules", _list)
    room.add_url_rule("/schedules/<name>/pause", "pause_schedule", _pause, methods=["POST"])
    room.add_url_rule("/schedules/<name>/resume", "resume_schedule", _resume, methods=["POST"])
    room.add_url_rule("/schedules/<name>/run", "run_schedule", _run, methods=["POST"])
    room.add_url_rule("/schedules/<name>/delete", "delete_schedule", _delete, methods=["POST"])


def _list() -> AnyResponse:
    """All of the tenant's, by name."""
    current = require_role(Role.OPERATOR)
    after = request.args.get("cursor", "")[:MAX_CHARACTERS] or None
    found = _scheduler().list(tenant=current.tenant, limit=SHOWN, after_name=after)
    return page(
        "schedules.html", schedules=found.items, next_name=found.next_name, is_head=after is None, words=words_of,
        next_ticks=next_ticks, new_key=new_key,
    )  # fmt: skip


def _pause(name: str) -> AnyResponse:
    """Let it rest."""
    return _set_paused(name, is_paused=True)


def _resume(name: str) -> AnyResponse:
    """Let it go on with its next tick."""
    return _set_paused(name, is_paused=False)


def _set_paused(name: str, *, is_paused: bool) -> AnyResponse:
    current = require_role(Role.OPERATOR)
    try:
        found = _scheduler().set_paused(current.actor, name, is_paused=is_paused)
    except InvalidSchedule as exc:
        detail = f"the schedule cannot go on: its {exc.field} {exc}; make it anew"
        raise Problem(409, "schedule_invalid", detail) from exc
    if found is None:
        raise _missing()
    return redirect(f"/console/schedules?notice=schedule_{'paused' if is_paused else 'resumed'}#s-{name}", 303)


def _run(name: str) -> AnyResponse:
    """Record its event now, and show that."""
    current = require_role(Role.OPERATOR)
    ran = _scheduler().run(current.actor, name, idempotency_key=key_of(request.form))
    if ran is None:
        raise _missing()
    if ran.recorded.is_conflict:
        raise Problem(422, "id_conflict", "that form ran the schedule when it had other data; go back and run it again")
    notice = "repeated" if ran.recorded.is_duplicate else "schedule_ran"
    return redirect(f"/console/events/{ran.recorded.update.event_id}?notice={notice}", 303)


def _delete(name: str) -> AnyResponse:
    """Forget it; its events stay."""
    current = require_role(Role.OPERATOR)
    if _scheduler().delete(current.actor, name) is None:
        raise _missing()
    return redirect("/console/schedules?notice=schedule_deleted", 303)


def _scheduler() -> Scheduler:
    scheduler: Scheduler = parts().scheduler
    return scheduler


def _missing() -> Problem:
    return Problem(404, "not_found", "there is no such schedule; it may have been deleted")
