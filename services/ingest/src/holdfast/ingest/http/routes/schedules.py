"""``/v1/schedules``: events that come by the clock."""

from typing import Any

from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict, Field

from holdfast.domain.errors import InvalidSchedule
from holdfast.domain.schedule import (
    MAX_SCHEDULES,
    NAME_RULE,
    Missed,
    Overlap,
    ScheduleSpec,
    faults_of,
    is_schedule_name,
)
from holdfast.domain.window import WINDOW_ATTRIBUTES, window_faults
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import (
    MAX_RECEIVED_CHARACTERS,
    Page,
    read_arguments,
    read_body_and_data,
    refuse_body,
)
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.operate import idempotency_key
from holdfast.ingest.http.schedule_views import address_of_schedule, schedule_text, schedule_view
from holdfast.ingest.http.views import address_of, links, missing, unique_until
from holdfast.ingest.operate.scheduler import Scheduler
from holdfast.runtime.cron import CRON_RULE, read_cron
from holdfast.storage.schedules import Change, NotPut, Schedule

__all__ = ["blueprint", "ScheduleList", "ScheduleRequest"]

blueprint = Blueprint("schedules", __name__)

NAME = "schedule of your tenant; GET /v1/schedules lists them"

EXAMPLE = '{"cron": "0 7 * * mon-fri", "timezone": "Europe/Istanbul", "type": "com.acme.report.due"}'


class ScheduleList(Page):
    """Query string of ``GET /v1/schedules``."""

    cursor: str | None = None


class ScheduleRequest(BaseModel):
    """Body of ``PUT /v1/schedules/{name}``. What is left out is as for a new one."""

    model_config = ConfigDict(extra="forbid")

    cron: str = Field(description=CRON_RULE)
    timezone: str = "UTC"
    type: str
    source: str | None = None
    subject: str | None = None
    audience: str | None = None
    data: Any = None
    missed: Missed = Field(default=Missed.LATEST, description="latest, all or skip")
    overlap: Overlap = Field(default=Overlap.ALLOW, description="allow or skip")
    debounceseconds: Any = None
    debouncekey: Any = None
    debouncemaxseconds: Any = None
    uniqueseconds: Any = None
    uniquekey: Any = None


@blueprint.get("/v1/schedules")
def list_() -> Response:
    """Schedules of the key's tenant, by name."""
    holder, wanted = require("operate"), read_arguments(ScheduleList)
    page = _scheduler().list(tenant=holder.tenant, limit=wanted.limit, after_name=wanted.cursor)
    items = [schedule_view(each) for each in page.items]
    return _json(json.dumps({"items": items, "next_cursor": page.next_name}))


@blueprint.get("/v1/schedules/<name>")
def show(name: str) -> Response:
    """One schedule, with its next ticks."""
    return _shown(_scheduler().find(name, tenant=require("operate").tenant))


@blueprint.put("/v1/schedules/<name>")
def put(name: str) -> Response:
    """Make a schedule, or replace what the one of this name is to do."""
    actor = acting("operate")
    done = _scheduler().put(actor, _spec(name))
    if done is NotPut.DECLARED:
        detail = (
            "handlers declare this schedule, and would change it back: change it where they do, or take another name"
        )
        raise Problem(409, "schedule_declared", detail)
    if done is NotPut.TOO_MANY:
        raise Problem(
            422, "too_many_schedules", f"a tenant has at most {MAX_SCHEDULES} schedules; delete one of yours first"
        )
    status = 201 if done.change is Change.CREATED else 200
    return _json(schedule_text(done.schedule), status, {"Location": address_of_schedule(name)})


@blueprint.delete("/v1/schedules/<name>")
def delete(name: str) -> Response:
    """Forget a schedule; its events stay. Answers with what it was."""
    actor = acting("operate")
    refuse_body()
    return _shown(_scheduler().delete(actor, name))


@blueprint.post("/v1/schedules/<name>/pause")
def pause(name: str) -> Response:
    """Let it rest. Again it changes nothing."""
    return _set_paused(name, is_paused=True)


@blueprint.post("/v1/schedules/<name>/resume")
def resume(name: str) -> Response:
    """Let it go on with its next tick from now. Again it changes nothing."""
    return _set_paused(name, is_paused=False)


@blueprint.post("/v1/schedules/<name>/run")
def run(name: str) -> Response:
    """Record its event now, beside its ticks."""
    actor = acting("operate")
    refuse_body()
    ran = _scheduler().run(actor, name, idempotency_key=idempotency_key())
    if ran is None:
        raise missing(NAME)
    if ran.recorded.is_conflict:
        detail = "this Idempotency-Key ran the schedule when it had another type or other data; use a new one"
        raise Problem(422, "id_conflict", detail)
    update = ran.recorded.update
    body = {
        "event_id": str(update.event_id), "state": update.state, "version": update.version,
        "duplicate": ran.recorded.is_duplicate, "enqueued": ran.is_enqueued, **update.detail, **unique_until(ran.recorded),
        "links": links(update.event_id),
    }  # fmt: skip
    return _json(json.dumps(body), 202, {"Location": address_of(update.event_id)})


def _set_paused(name: str, *, is_paused: bool) -> Response:
    actor = acting("operate")
    refuse_body()
    try:
        return _shown(_scheduler().set_paused(actor, name, is_paused=is_paused))
    except InvalidSchedule as exc:
        detail = f"the schedule cannot go on: its {exc.field} {exc}; put it anew"
        raise Problem(409, "schedule_invalid", detail) from exc


def _spec(name: str) -> ScheduleSpec:
    """What is asked for, checked.

    Raises:
        Problem: 400 with every fault, 413.
    """
    wanted, data = read_body_and_data(ScheduleRequest, EXAMPLE)
    if not is_schedule_name(name):
        raise Problem(
            400, "invalid_name", f"a schedule's name is {NAME_RULE}; received {name[:MAX_RECEIVED_CHARACTERS]!r}"
        )
    given = wanted.model_dump(exclude={"data", "cron"})
    window = {field: value for field in WINDOW_ATTRIBUTES if (value := given.pop(field)) is not None}
    spec = ScheduleSpec(name=name, cron=" ".join(wanted.cron.split()), data=data, extensions=window, **given)
    faults = [(field, f"takes {takes}") for field, takes in faults_of(spec)]
    faults += [(field, detail) for field, _, detail in window_faults(window)]
    try:
        read_cron(spec.cron, spec.timezone)
    except InvalidSchedule as exc:
        faults.append((exc.field, str(exc)))
    if faults:
        errors = [_error(spec, field, detail) for field, detail in faults]
        raise Problem(400, "invalid_request", f"send {EXAMPLE}", errors=errors)
    return spec


def _error(spec: ScheduleSpec, field: str, detail: str) -> dict[str, str]:
    value = spec.extensions.get(field) if field in WINDOW_ATTRIBUTES else getattr(spec, field)
    received = repr(value)[:MAX_RECEIVED_CHARACTERS]
    return {"pointer": f"/{field}", "code": "invalid_value", "detail": detail, "received": received}


def _shown(schedule: Schedule | None) -> Response:
    if schedule is None:
        raise missing(NAME)
    return _json(schedule_text(schedule))


def _scheduler() -> Scheduler:
    scheduler: Scheduler = parts().scheduler
    return scheduler


def _json(body: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, content_type="application/json")
