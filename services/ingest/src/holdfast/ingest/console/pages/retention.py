"""Retention: how long events are kept, and changing that; erasures, and how far they are."""

from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.retention import MAX_DAYS, RULED, RetentionRule
from holdfast.domain.state import State
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.operate.keeper import Keeper

__all__ = ["add"]

SHOWN = 20
"""Of erasures, the newest."""


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/retention", "retention", _show)
    room.add_url_rule("/retention/<state>", "set_retention", _set, methods=["POST"])


def _show() -> AnyResponse:
    """What is in force, by state."""
    current = require_role(Role.OPERATOR)
    keeper = Keeper(parts().database)
    return page(
        "retention.html", retention=keeper.retention(tenant=current.tenant), most_days=MAX_DAYS, most_erasures=SHOWN,
        erasures=keeper.erasures(tenant=current.tenant, limit=SHOWN, before_id=None).items,
    )  # fmt: skip


def _set(state: str) -> AnyResponse:
    """Make a rule, or go by the default again."""
    current = require_role(Role.ADMIN)
    if state not in RULED:
        raise Problem(404, "not_found", "there is no rule for events in this state; open ones never go")
    keeper, choice = Keeper(parts().database), request.form.get("keep", "")
    if choice == "default":
        keeper.remove_rule(current.actor, State(state))
    else:
        keeper.put_rule(current.actor, RetentionRule(State(state), None if choice == "forever" else _days()))
    return redirect("/console/retention?notice=retention_changed", 303)


def _days() -> int:
    text = request.form.get("days", "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DAYS)) and 1 <= int(text) <= MAX_DAYS):
        raise Problem(400, "invalid_days", f"days are a number from 1 to {MAX_DAYS}; received {text[:20]!r}")
    return int(text)
