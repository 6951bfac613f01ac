"""What a browser keeps for the person at it: theme, columns and searches with names. Nothing of it is on the server."""

from urllib.parse import parse_qsl

from flask import Blueprint, redirect, request
from pydantic import ValidationError
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console.cookies import YEAR_SECONDS, set_cookie
from holdfast.ingest.console.pages.forms import EventsQuery, faults_of, search_query
from holdfast.ingest.console.pages.signing import local_address
from holdfast.ingest.console.preferences import (
    COLUMNS_COOKIE,
    MAX_NAME_CHARACTERS,
    MAX_SEARCHES,
    SEARCHES_COOKIE,
    Search,
    columns_text,
    searches_in,
    searches_text,
    with_search,
)
from holdfast.ingest.console.rendering import THEME_COOKIE, THEMES
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.problems import Problem

__all__ = ["add"]


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/theme", "theme", _theme, methods=["POST"])
    room.add_url_rule("/columns", "columns", _columns, methods=["POST"])
    room.add_url_rule("/searches", "keep_search", _keep_search, methods=["POST"])
    room.add_url_rule("/searches/forget", "forget_search", _forget_search, methods=["POST"])


def _theme() -> AnyResponse:
    """Keep a theme. It needs no sign-in."""
    chosen = request.form.get("theme", "")
    if chosen not in THEMES:
        raise Problem(400, "invalid_theme", f"a theme is one of {', '.join(THEMES)}")
    return _kept(THEME_COOKIE, chosen, local_address(request.form.get("next")))


def _columns() -> AnyResponse:
    """Keep which columns the list of events has."""
    require_role(Role.VIEWER)
    return _kept(COLUMNS_COOKIE, columns_text(request.form.getlist("column")), local_address(request.form.get("next")))


def _keep_search() -> AnyResponse:
    """Keep the filters of the list of events under a name."""
    require_role(Role.VIEWER)
    name = " ".join(request.form.get("name", "").split())
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise Problem(400, "invalid_name", f"a search has a name of up to {MAX_NAME_CHARACTERS} characters")
    query = search_query(dict(parse_qsl(request.form.get("query", "").removeprefix("?"))))
    try:
        EventsQuery.model_validate(dict(parse_qsl(query)))
    except ValidationError as exc:
        raise Problem(400, "invalid_request", f"this cannot be searched for: {'; '.join(faults_of(exc))}") from exc
    kept = searches_text(with_search(_searches(), Search(name, query)))
    if kept is None:
        detail = f"a browser keeps up to {MAX_SEARCHES} searches, and long ones take more room; forget one first"
        raise Problem(409, "too_many_searches", detail)
    return _kept(SEARCHES_COOKIE, kept, f"/console/events?{query}")


def _forget_search() -> AnyResponse:
    """Forget the search with a name; again it changes nothing."""
    require_role(Role.VIEWER)
    left = [each for each in _searches() if each.name != request.form.get("name")]
    return _kept(SEARCHES_COOKIE, searches_text(left) or "", local_address(request.form.get("next")))


def _searches() -> list[Search]:
    return searches_in(request.cookies.get(SEARCHES_COOKIE))


def _kept(cookie: str, value: str, address: str) -> AnyResponse:
    response = redirect(address, 303)
    set_cookie(response, cookie, value, YEAR_SECONDS)
    return response
