"""Data of events: when two of them are the same, and what its bytes are outside of an envelope. Pure.

JSON is compared by value, whatever the text: order of names, white space and escapes do not count, and numbers are exact
decimals (``1.10`` is ``1.1`` and ``1e2`` is ``100``, but ``19.990000000000000000001`` is not ``19.99``). Everything else is
compared byte by byte. It does not matter in which of the two modes of the HTTP binding an event came.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

__all__ = ["MAX_DATA_BYTES", "Data", "is_json_type", "is_same_data", "json_text", "media_type", "unwrapped"]

MAX_DATA_BYTES = 256 * 1024
"""Data of an event that is made from inside, as JSON; ingest takes as much unless it is set otherwise."""


class Data(NamedTuple):
    """``content`` is ``None`` without data; ``is_json``: it is JSON text; ``content_type``: the ``datacontenttype``."""

    content: bytes | None
    is_json: bool
    content_type: str | None


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def json_text(value: Any) -> str | None:
    """The data of an event from a Python value: what JSON can carry, or a model of pydantic's; ``None`` is no data.

    Raises:
        ValueError: JSON cannot carry it, or it has more than ``MAX_DATA_BYTES``.
    """
    if value is None:
        return None
    dump = getattr(value, "model_dump", None)
    try:
        plain = dump(mode="json", by_alias=True) if dump is not None else value
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"data of an event is what JSON can carry, or a pydantic model: {exc}") from exc
    if size > MAX_DATA_BYTES:
        raise ValueError(f"an event has at most {MAX_DATA_BYTES} bytes of data, not {size}; send a reference")
    return text


def is_json_type(kind: str) -> bool:
    """Whether a media type is JSON or ends in ``+json`` (RFC 6839)."""
    return kind == "application/json" or kind.endswith("+json")


def unwrapped(data: Data) -> Data:
    """The data as it is outside of an envelope.

    In an envelope, data of another media type than JSON is written as a JSON string (JSON event format 1.0.2, 3.1.1): its
    text is the data. Any other JSON value is left as it is.
    """
    if not data.is_json or data.content is None or is_json_type(media_type(data.content_type or "application/json")):
        return data
    value = json.loads(data.content) if data.content.lstrip()[:1] == b'"' else None
    return Data(value.encode(), False, data.content_type) if isinstance(value, str) else data


def is_same_data(one: Data, other: Data) -> bool:
    """Whether two events that agree in everything else are one event, sent twice."""
    one, other = _comparable(one), _comparable(other)
    if one.content is None or other.content is None or not (one.is_json and other.is_json):
        return one[:2] == other[:2]
    return one.content == other.content or _is_equal(_exact(one.content), _exact(other.content))


def _comparable(data: Data) -> Data:
    """JSON that came as bytes (``data_base64``) is JSON too."""
    data = unwrapped(data)
    if data.is_json or data.content is None or not is_json_type(media_type(data.content_type or "")):
        return data
    try:
        _exact(data.content)
    except (ValueError, RecursionError):
        return data
    return data._replace(is_json=True)


def _exact(content: bytes) -> Any:
    return json.loads(content, parse_float=_decimal)


def _decimal(digits: str) -> Decimal | tuple[str]:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent of nineteen digits: not worth a number, equal to its own text alone
        return (digits,)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other  # to Python, true is 1
    return bool(one == other)
