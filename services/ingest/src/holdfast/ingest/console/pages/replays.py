"""Replays and discards: the lists, one with its progress, and starting one after a look at what it is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console import changes, reading
from holdfast.ingest.console.pages.forms import faults_of, given, key_of, new_key, path_id
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.bodies import event_filter
from holdfast.ingest.http.jobs import Jobs, shown_filter
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes import discards, replays
from holdfast.storage.filters import EventFilter
from holdfast.storage.replays import MAX_ITEMS, MAX_RATE_PER_S, MIN_RATE_PER_S, Action, JobState, Replay

__all__ = ["add"]

SHOWN = 50


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells the pages of replays from those of discards."""

    action: Action
    path: str
    filter: type[replays.ReplayFilter] | type[discards.DiscardFilter]
    request: type[replays.ReplayRequest] | type[discards.DiscardRequest]
    jobs: Jobs
    prefix: str = ""
    """Of what a page says after something was done, see ``rendering.NOTICES``."""


_KINDS = {
    "replay": _Kind(Action.REPLAY, "replays", replays.ReplayFilter, replays.ReplayRequest, replays.JOBS),
    "discard": _Kind(
        Action.DISCARD, "discards", discards.DiscardFilter, discards.DiscardRequest, discards.JOBS, "discard_"
    ),
}


def add(room: Blueprint) -> None:
    """Add the addresses, those of discards like those of replays."""
    for name, kind in _KINDS.items():
        path = f"/{kind.path}"
        room.add_url_rule(path, f"{name}s", partial(_list, kind))
        room.add_url_rule(path, f"start_{name}", partial(_start, kind), methods=["POST"])
        room.add_url_rule(f"{path}/new", f"new_{name}", partial(_new, kind))
        room.add_url_rule(f"{path}/<job_id>", name, partial(_show, kind))
        room.add_url_rule(f"{path}/<job_id>/cancel", f"cancel_{name}", partial(_cancel, kind), methods=["POST"])


def _list(kind: _Kind) -> AnyResponse:
    """The newest first."""
    current = require_role(Role.OPERATOR)
    cursor = request.args.get("cursor")
    before = path_id(cursor, "page") if cursor else None
    found = reading.list_replays(current.tenant, kind.action, limit=SHOWN, before_id=before)
    return page(
        "replays.html", kind=kind, replays=found.items, next_id=found.next_id, is_head=before is None,
        shown=shown_filter,
    )  # fmt: skip


def _new(kind: _Kind) -> AnyResponse:
    """What it would be about, counted, and the form that starts it."""
    current = require_role(Role.OPERATOR)
    values = _filter_of(kind, request.args)
    count = reading.count_matching(_read_filter(kind, values), current.tenant)
    return page(
        f"new_{kind.action}.html", values=values, count=count, counted=reading.COUNTED,
        rate=replays.DEFAULT_RATE, slowest=MIN_RATE_PER_S, fastest=MAX_RATE_PER_S, most=MAX_ITEMS,
        request_key=new_key(), events_query=urlencode({"state": "dead"} | values),
    )  # fmt: skip


def _start(kind: _Kind) -> AnyResponse:
    """Freeze the set and begin."""
    current = require_role(Role.OPERATOR)
    values = _filter_of(kind, request.form)
    # A discard runs no handler that could be overrun, so it has no rate to choose.
    rate: dict[str, Any] = {} if kind.action is Action.DISCARD else {"rate_per_s": request.form.get("rate_per_s")}
    wanted = _validated(kind.request, {"filter": values} | rate)
    begun = kind.jobs.start(
        current.actor, event_filter(wanted.filter, wanted.filter.state),
        rate_per_s=getattr(wanted, "rate_per_s", MAX_RATE_PER_S), key=key_of(request.form),
    )  # fmt: skip
    return redirect(f"/console/{kind.path}/{begun.id}?notice={kind.prefix}started", 303)


def _show(kind: _Kind, job_id: str) -> AnyResponse:
    """How far it is."""
    current = require_role(Role.OPERATOR)
    found = reading.one_replay(path_id(job_id, kind.action), current.tenant, kind.action)
    if found is None:
        raise _missing(kind)
    return page(
        "replay.html", kind=kind, replay=found, remaining=_remaining(found), shown=shown_filter(found),
        events_query=urlencode(shown_filter(found)),
    )  # fmt: skip


def _cancel(kind: _Kind, job_id: str) -> AnyResponse:
    """Stop it."""
    current = require_role(Role.OPERATOR)
    wanted = path_id(job_id, kind.action)
    stopped = changes.cancel_replay(current.actor, wanted, kind.action)
    if stopped is None:
        raise _missing(kind)
    notice = "over" if stopped.state is JobState.DONE else "cancelled"
    return redirect(f"/console/{kind.path}/{wanted}?notice={kind.prefix}{notice}", 303)


def _filter_of(kind: _Kind, values: Mapping[str, str]) -> dict[str, str]:
    """The filter's part of an address or a form."""
    return {name: value for name, value in given(values).items() if name in kind.filter.model_fields}


def _read_filter(kind: _Kind, values: Mapping[str, str]) -> EventFilter:
    wanted = _validated(kind.filter, values)
    return event_filter(wanted, wanted.state)


def _validated(model: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise Problem(400, "invalid_request", "; ".join(faults_of(exc))) from exc


def _remaining(replay: Replay) -> int:
    return replay.total - replay.replayed - replay.skipped


def _missing(kind: _Kind) -> Problem:
    return Problem(404, "not_found", f"there is no such {kind.action}; it may be another tenant's")
