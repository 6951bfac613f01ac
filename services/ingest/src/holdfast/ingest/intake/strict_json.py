"""JSON as strict as it has to be to mean the same to every reader, and to fit PostgreSQL's ``jsonb``. Pure.

Python's parser takes NaN, names that occur twice and halves of surrogate pairs. PostgreSQL takes none of them, nor the
character NUL, and what it refuses at the insert would be an error of ours rather than of the sender's.
"""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from holdfast.domain.event import canonical_json
from holdfast.ingest.intake.faults import fail

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "parse", "storable"]

MAX_DEPTH = 100
"""Nesting of data. Deeper JSON is an attack on parsers more often than it is data."""

MAX_DIGITS = 1000
"""Digits of an integer. Reading one takes quadratic time, which is why Python itself ends at 4300."""


class _Refused(Exception):
    """``args`` are a fault's code and detail."""


def parse(body: bytes, *, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        InvalidEvent: at ``where``, without quoting the text.
    """
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


def storable(value: Any, *, where: str) -> str:
    """Canonical JSON text that ``jsonb`` takes.

    Raises:
        InvalidEvent: at ``where``.
    """
    if _is_deeper_than(MAX_DEPTH, value):
        fail(where, "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")
    try:
        text = canonical_json(value)
        text.encode()
    except UnicodeEncodeError:
        fail(where, "invalid_text", "data has half a surrogate pair, which is no character")
    except ValueError:
        fail(where, "number_out_of_range", "data has a number beyond the range of a double; send it as a string")
    if "\\u0000" in text and any("\x00" in each for each in _strings(value)):
        fail(where, "invalid_text", r"data has a \u0000, which PostgreSQL cannot store; send it as data_base64")
    return text


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


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)
