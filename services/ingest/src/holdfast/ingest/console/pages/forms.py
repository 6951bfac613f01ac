"""Filters in the query string and in forms, as the API has them; what is wrong with one is said beside the form."""

from collections.abc import Mapping
from urllib.parse import urlencode
from uuid import UUID, uuid4

from flask import request
from pydantic import ValidationError

from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.lists import ListRequest
from holdfast.ingest.http.routes.operate import idempotency_key_of

__all__ = ["FIELDS", "EventsQuery", "faults_of", "given", "key_of", "new_key", "path_id", "read_query", "search_query"]

FIELDS = ("type", "source", "subject", "audience", "id", "error_type", "handler", "fingerprint",
          "request_id", "trace_id", "parent_id")  # fmt: skip
"""Filters with a text of their own, in the order in which the form has them."""

SEARCHED = ("state", *FIELDS, "received_after", "received_before")

MAX_FAULTS = 10


class EventsQuery(ListRequest):
    """Query string of the page of events: that of ``GET /v1/events``, and what the console adds."""

    notice: str | None = None


def given(values: Mapping[str, str]) -> dict[str, str]:
    """What was filled in: an empty field of a form is no filter."""
    return {name: value for name, value in values.items() if value.strip()}


def search_query(values: Mapping[str, str]) -> str:
    """The filters among these as a query string: the same for the same filters, in whatever order they were given."""
    chosen = given(values)
    return urlencode([(name, chosen[name]) for name in SEARCHED if name in chosen])


def read_query(model: type[EventsQuery]) -> EventsQuery | list[str]:
    """The query string; or what is wrong with it, a sentence for each fault."""
    try:
        return model.model_validate(given(request.args))
    except ValidationError as exc:
        return faults_of(exc)


def faults_of(exc: ValidationError) -> list[str]:
    """``received_after: takes …``."""
    errors = exc.errors(include_url=False, include_input=False)[:MAX_FAULTS]
    return [
        f"{'.'.join(map(str, error['loc']))[:80]}: {error['msg'].removeprefix('Value error, ')}" for error in errors
    ]


def new_key() -> str:
    """An idempotency key for a form: sent twice, it does its work once."""
    return uuid4().hex


def key_of(form: Mapping[str, str]) -> str:
    """The idempotency key of a form.

    Raises:
        Problem: 400.
    """
    return idempotency_key_of(form.get("request", ""))


def path_id(text: str, what: str) -> UUID:
    """An id in an address.

    Raises:
        Problem: 404.
    """
    try:
        return UUID(text)
    except ValueError:
        raise Problem(404, "not_found", f"there is no such {what}") from None
