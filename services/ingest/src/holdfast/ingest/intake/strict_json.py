"""JSON as strict as it has to be to mean the same to every reader. Pure.

Common parsers take some of NaN, numbers beyond a double, names that occur twice and halves of surrogate pairs, and each
reads another thing in them.

Almost every text is read by a quick parser. It takes a name twice, which a count tells (the parsed value, written again,
then has fewer colons), and long integers, which a glance tells. Whatever it refuses or leaves in doubt is read again by the
standard library's parser with all checks, which has the last word and the better error texts.
"""

import json
import re
from typing import Any, NamedTuple, NoReturn

import msgspec

from holdfast.domain.event import canonical_json
from holdfast.ingest.intake.faults import fail

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "Parsed", "check_data", "parse"]

MAX_DEPTH = 100
"""Nesting of data. Deeper JSON is an attack on parsers more often than it is data."""

MAX_DIGITS = 1000
"""Digits of an integer. Reading one takes quadratic time, which is why Python itself ends at 4300."""

_STRIDE = MAX_DIGITS // 10
_TEN_DIGITS = re.compile(rb"[0-9]{10}")
"""Of an integer that is longer than :data:`MAX_DIGITS`, every hundredth byte of a text shows ten digits in a row."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Parsed(NamedTuple):
    """``is_sound``: it has neither halves of surrogate pairs nor numbers beyond a double; otherwise it may have."""

    value: Any
    is_sound: bool


class _Refused(Exception):
    """``args`` are a fault's code and detail."""


def parse(body: bytes, *, where: str) -> Parsed:
    """The value of a JSON text.

    Raises:
        InvalidEvent: at ``where``, without quoting the text.
    """
    try:
        value = _decode(body)
        # An escaped colon would be one more when it is written.
        is_unique = body.count(b":") == _encode(value).count(b":") and b"\\u003" not in body
        if is_unique and _TEN_DIGITS.search(body[::_STRIDE]) is None:
            return Parsed(value, True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    return Parsed(_parse_strictly(body, where), False)


def check_data(parsed: Parsed, value: Any, content: bytes | None, *, where: str) -> None:
    """Make sure that data can be read by everybody.

    Args:
        value: data in what was parsed; ``content`` is its text, if that is known.

    Raises:
        InvalidEvent: at ``where``.
    """
    may_be_deep = content is None or content.count(b"[") + content.count(b"{") > MAX_DEPTH
    if may_be_deep and _is_deeper_than(MAX_DEPTH, value):
        fail(where, "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")
    if parsed.is_sound:
        return
    try:
        canonical_json(value).encode()
    except UnicodeEncodeError:
        fail(where, "invalid_text", "data has half a surrogate pair, which is no character")
    except ValueError:
        fail(where, "number_out_of_range", "data has a number beyond the range of a double; send it as a string")


def _parse_strictly(body: bytes, where: str) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_not_json, parse_int=_integer)
    except UnicodeDecodeError:
        fail(where, "invalid_encoding", "JSON is UTF-8")
    except RecursionError:
        fail(where, "too_deep", f"JSON is nested at most {MAX_DEPTH} levels deep")
    except _Refused as exc:
        fail(where, *exc.args)
    except json.JSONDecodeError as exc:
        fail(where, "invalid_json", f"not JSON: {exc.msg} at line {exc.lineno} column {exc.colno}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Two parsers in a row may each take another one: better no event than two readings of it.
        raise _Refused("duplicate_name", "an object has a name twice")
    return members


def _not_json(name: str) -> NoReturn:
    raise _Refused("invalid_json", f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused("number_out_of_range", f"an integer has at most {MAX_DIGITS} digits; send it as a string")
    return int(digits)


def _is_deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [member for member in members if isinstance(member, dict | list)]
