"""What a handler may return."""

import inspect
import json
import re
from typing import Any

from holdfast.domain.event import canonical_json
from holdfast.processor.handlers.outcomes import InvalidResult

__all__ = ["MAX_RESULT_BYTES", "checked_result"]

MAX_RESULT_BYTES = 32 * 1024
"""A result travels in an update, and an update frame has at most 64 KiB."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL; a backslash that is itself escaped begins no escape."""


def checked_result(result: Any, *, of: str = "a handler") -> Any:
    """The result as the processed-event log and the update will carry it. ``of`` says what returned it, in errors.

    Raises:
        InvalidResult: it is not JSON (NaN and infinities are not), too long, or has NUL in it.
    """
    if inspect.iscoroutine(result):
        result.close()
        raise InvalidResult(
            "the handler returned a coroutine that nobody awaits: declare the handler itself with async def"
        )
    try:
        text = canonical_json(result)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidResult(f"{of} returns what JSON can carry: {exc}") from exc
    if size > MAX_RESULT_BYTES:
        raise InvalidResult(
            f"{_result(of)} has at most {MAX_RESULT_BYTES} bytes as JSON, not {size}; return a reference"
        )
    if _NUL.search(text):
        raise InvalidResult(f"{_result(of)} has no NUL character in it: PostgreSQL cannot store one")
    return json.loads(text)


def _result(of: str) -> str:
    return "a result" if of == "a handler" else f"the result of {of}"
