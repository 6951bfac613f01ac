"""Reading what is asked for, from bodies and query strings, into pydantic models. Every fault is told at once."""

from datetime import datetime
from typing import Annotated, Any, NoReturn, TypeVar

from flask import request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from holdfast.domain.moment import RANGE, read_moment
from holdfast.domain.state import State
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.intake.faults import InvalidEvent, pointer
from holdfast.ingest.intake.strict_json import check_data, parse
from holdfast.ingest.intake.verbatim import data_text
from holdfast.storage.filters import EventFilter

__all__ = [
    "FilterFields",
    "MAX_RECEIVED_CHARACTERS",
    "Moment",
    "Page",
    "Text",
    "body_bytes",
    "edited_data",
    "event_filter",
    "read_arguments",
    "read_body",
    "read_body_and_data",
    "refuse_body",
    "replacement",
]

Model = TypeVar("Model", bound=BaseModel)

MAX_FAULTS = 20
"""Told of one request: a list of a thousand wrong topics has a thousand faults."""

MAX_RECEIVED_CHARACTERS = 80
"""Of a refused value that are sent back: it may be as long as the body."""


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("has a NUL character, which no event has")
    return text


def _moment(value: Any) -> datetime:
    moment = read_moment(value) if isinstance(value, str) else None
    if moment is None:
        raise ValueError(f"takes {RANGE}")
    return moment


Text = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_no_nul)]
TraceId = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{32}$")]
EventId = Annotated[
    str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$")
]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class FilterFields(BaseModel):
    """What lists and replays choose events by. Unknown names are refused: a mistyped filter is not "everything"."""

    model_config = ConfigDict(extra="forbid")

    source: Text | None = None
    id: Text | None = None
    type: Text | None = None
    subject: Text | None = None
    audience: Text | None = None
    request_id: Text | None = None
    trace_id: TraceId | None = Field(default=None, description="32 hexadecimal digits, not a whole traceparent")
    parent_id: EventId | None = Field(default=None, description="the event_id of the event whose handler emitted it")
    error_type: Text | None = None
    handler: Text | None = None
    fingerprint: Text | None = None
    received_after: Moment | None = None
    received_before: Moment | None = None


class Page(BaseModel):
    """How much of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200, description="a whole number from 1 to 200")] = 50


def event_filter(given: FilterFields, state: State | None) -> EventFilter:
    """What storage is asked for."""
    fields = given.model_dump(include=set(FilterFields.model_fields) - {"id"})
    return EventFilter(**fields, ce_id=given.id, state=state)


def read_body(model: type[Model], example: str, *, is_optional: bool = False) -> Model:
    """The request's body as a model; ``example`` is shown to a client that sent something else.

    ``is_optional``: no body is ``{}``.

    Raises:
        Problem: 400 with every fault, 413.
    """
    body = body_bytes()
    return _modelled(b"{}" if is_optional and not body else body, model, example)


def read_body_and_data(model: type[Model], example: str) -> tuple[Model, bytes | None]:
    """:func:`read_body`, and the text of its member ``data``, ``None`` without it, if that is what an event may have.

    Raises:
        Problem: 400, 413.
    """
    body = body_bytes()
    wanted = _modelled(body, model, example)
    try:
        parsed = parse(body, where="")
        if "data" not in parsed.value:
            return wanted, None
        text = data_text(body) or b""
        check_data(parsed, parsed.value["data"], text, where="/data")
    except InvalidEvent as exc:
        errors = [fault.as_dict() for fault in exc.faults]
        raise Problem(400, errors[0]["code"], str(exc), errors=errors) from exc
    return wanted, text


def _modelled(body: bytes, model: type[Model], example: str) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        _refuse(exc, model, f"send {example}", "pointer")


def read_arguments(model: type[Model]) -> Model:
    """The query string as a model. Empty values count as missing, names given twice are refused.

    Raises:
        Problem: 400 with every fault.
    """
    given = {name: values for name, values in request.args.to_dict(flat=False).items() if any(values)}
    try:
        return model.model_validate({name: values[0] if len(values) == 1 else values for name, values in given.items()})
    except ValidationError as exc:
        known = ", ".join(model.model_fields)
        _refuse(exc, model, f"the query string takes {known}, each once", "parameter")


def edited_data() -> str | None:
    """The text of the ``data`` in a body ``{"data": …}``; ``None`` without a body or without data.

    Raises:
        Problem: 400, 413.
    """
    body = body_bytes()
    if not body:
        return None
    try:
        edit = parse(body, where="")
        if not isinstance(edit.value, dict) or edit.value.keys() - {"data"}:
            raise Problem(400, "invalid_request", 'send nothing, or {"data": …} to replay with other data')
        if "data" not in edit.value:
            return None
        text = data_text(body) or b""
        check_data(edit, edit.value["data"], text, where="/data")
        return text.decode()
    except InvalidEvent as exc:
        errors = [fault.as_dict() for fault in exc.faults]
        raise Problem(400, errors[0]["code"], str(exc), errors=errors) from exc


def replacement(text: str) -> str:
    """Data that somebody has typed in place of an event's, if it is JSON that an event may have.

    Raises:
        InvalidEvent: it is not; each fault says where.
    """
    content = text.encode()
    typed = parse(content, where="")
    check_data(typed, typed.value, content, where="")
    return text


def refuse_body() -> None:
    """Make sure that nothing, or ``{}``, was sent where a body has no meaning: it would be taken for an effect.

    Raises:
        Problem: 400, 413.
    """
    if body_bytes().strip() not in (b"", b"{}"):
        raise Problem(400, "invalid_request", "this request takes no body; send none, or {}")


def body_bytes(*, is_batch: bool = False) -> bytes:
    """The body.

    Raises:
        Problem: 413.
    """
    settings = parts().settings
    limit: int = settings.max_batch_bytes if is_batch else settings.max_event_bytes
    body: bytes = request.environ["wsgi.input"].read()  # the edge has read it whole, or one byte more than may be
    if len(body) > limit:
        remedy = "send several batches" if is_batch else "send a reference to large data"
        raise Problem(413, "too_large", f"{'a batch' if is_batch else 'an event'} has at most {limit} bytes; {remedy}")
    return body


def _refuse(exc: ValidationError, model: type[BaseModel], detail: str, kind: str) -> NoReturn:
    errors: list[dict[str, Any]] = [
        {kind: _where(error["loc"], kind), "code": error["type"], "detail": _detail(error, model)}
        | _received(error["input"])
        for error in exc.errors(include_url=False)[:MAX_FAULTS]
    ]
    raise Problem(400, "invalid_request", detail, errors=errors) from exc


def _detail(error: Any, model: type[BaseModel]) -> str:
    """What is wrong, and the whole of what the field takes where it says so: a NaN is not told of any range otherwise."""
    field = model.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    return f"{error['msg']}: {field.description}" if field and field.description else error["msg"]


def _received(value: Any) -> dict[str, str]:
    """The refused value as text, cut off. Objects and lists are left out: their faulty parts have entries of their own."""
    if isinstance(value, dict | list | bytes):
        return {}
    return {"received": repr(value)[:MAX_RECEIVED_CHARACTERS]}


def _where(place: tuple[int | str, ...], kind: str) -> str:
    # A name is the sender's text: pointer() cuts it.
    whole = "".join(pointer(str(part)) for part in place)
    return whole if kind == "pointer" else whole.removeprefix("/")
