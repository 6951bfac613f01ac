"""From a template and values to a page: what every template knows, and how it says moments and numbers."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup, escape

from holdfast.domain.state import State
from holdfast.ingest.console import words
from holdfast.ingest.console.assets import ASSETS
from holdfast.ingest.console.visit import Role, visit

__all__ = ["THEMES", "THEME_COOKIE", "install", "notice", "page"]

THEME_COOKIE = "holdfast_console_theme"
THEMES = ("auto", "light", "dark")

NOTICES = {
    "replayed": ("good", "The event is queued again, with all of its attempts."),
    "copied": ("good", "A new event was recorded like the processed one. This is it."),
    "discarded": ("good", "The event is discarded. It can still be replayed."),
    "cancel_asked": ("info", "The event is being cancelled. A handler that ends at this moment by itself is faster."),
    "repeated": ("info", "That was done before; nothing was done now."),
    "not_allowed": ("bad", "The event's state has changed, and does not allow that any more."),
    "changing": ("bad", "The event keeps changing. Look at it, and try again."),
    "started": ("good", "The replay has started. Its set of events is fixed now."),
    "cancelled": ("good", "The replay was stopped. What it has replayed stays so."),
    "over": ("info", "The replay was over already; there was nothing left to stop."),
    "discard_started": ("good", "The discard has started. Its set of events is fixed now."),
    "discard_cancelled": ("good", "The discard was stopped. What it has discarded stays so, and can be replayed."),
    "discard_over": ("info", "The discard was over already; there was nothing left to stop."),
    "draining": ("good", "The node finishes what it has and takes nothing new. It hears of it within two seconds."),
    "undrained": ("good", "The node takes events again. It hears of it within two seconds."),
    "paused": ("good", "Nothing more of it is begun, from a second or two on. What runs finishes."),
    "paused_before": ("info", "It was paused before, and stays as it was; nothing was done now."),
    "resumed": ("good", "It goes on within a second or two."),
    "schedule_paused": ("good", "The schedule rests until it is resumed. Its ticks until then are not made up for."),
    "schedule_resumed": ("good", "The schedule goes on with its next tick."),
    "schedule_ran": ("good", "The schedule's event was recorded. This is it."),
    "retention_changed": ("good", "The rule is changed, and counts from now on."),
    "schedule_deleted": ("good", "The schedule is deleted. Its events stay."),
    "key_revoked": ("good", "The key is revoked. It opens nothing any more, within the time that keys are remembered."),
    "key_own_revoked": ("info", "The key that you were signed in with is revoked, and you are signed out."),
    "key_made_before": ("info", "That form made this key before. Its secret is not kept: without it, rotate the key."),
    "key_replaced": ("info", "The key was rotated before. This is the one that took its place; rotate this one."),
    "key_ended": ("bad", "A key that is revoked or has expired is not rotated. Make another one."),
    "signed_out": ("info", "You are signed out."),
    "ended": ("info", "Your session has ended. Sign in again to go on."),
}
"""What a page may be asked to say by ``?notice=…``. A fixed list: an address must not put words into the console's mouth."""


def install(room: Blueprint) -> None:
    """Teach the templates of the application the console's words."""

    @room.record_once
    def teach(state: Any) -> None:
        filters = {
            "moment": _moment, "span": words.span, "count": words.count_text, "bytes": words.bytes_text,
            "detail": words.as_text, "brief": words.brief,
        }  # fmt: skip
        state.app.jinja_env.filters.update({f"console_{name}": each for name, each in filters.items()})
        state.app.jinja_env.trim_blocks = state.app.jinja_env.lstrip_blocks = True


def page(template: str, **values: Any) -> Response:
    """A page of the console."""
    current = visit()
    common = {
        "asset": ASSETS.address,
        "csrf": current.session.csrf,
        "holder": current.holder,
        "role": current.role,
        "may_administer": current.may(Role.ADMIN),
        "may_operate": current.may(Role.OPERATOR),
        "notice": notice(),
        "path": _here(),
        "query": _query,
        "states": words.STATES,
        "State": State,
        "theme": _theme(),
        "themes": THEMES,
    }
    return Response(render_template(f"console/{template}", **common | values), content_type="text/html; charset=utf-8")


def notice() -> tuple[str, str] | None:
    """``(tone, text)`` that the address asks for; ``None`` for none, or an unknown one."""
    return NOTICES.get(request.args.get("notice", ""))


def _theme() -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "auto"


def _here() -> str:
    """The present address, without what it says once."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name != "notice"]
    return f"{request.path}?{urlencode(kept)}" if kept else request.path


def _query(**changes: Any) -> str:
    """The present query string with these changes; ``None`` leaves a name out, and so does what belongs to another page."""
    kept = {name: value for name, value in request.args.items() if value and name not in ("cursor", "notice")}
    changed = {name: value for name, value in (kept | changes).items() if value is not None}
    return f"?{urlencode(changed)}" if changed else "?"


def _moment(moment: datetime | None, *, is_long: bool = False) -> Markup:
    """A moment as ``<time>``: how long ago, which the script keeps true, with the moment itself beside it or as its title."""
    if moment is None:
        return Markup("—")
    exact, ago = words.stamp(moment), words.since(moment, datetime.now(UTC))
    machine = moment.astimezone(UTC).isoformat()
    if is_long:
        return Markup('<time datetime="{}">{}</time> <span class="quiet">({})</span>').format(machine, exact, ago)
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(machine, exact, escape(ago))
