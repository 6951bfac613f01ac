"""Where the command line writes: data to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any

from rich.console import Console

from holdfast.client.errors import ApiProblem, ClientError, LiveClosed, Unreachable
from holdfast.client.render import one_line

__all__ = [
    "Output",
    "asks_for_json",
    "err",
    "error_fields",
    "explain",
    "out",
    "print_error",
    "print_json",
    "say",
    "terminal_width",
]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

REMEDY = "start a local stack with 'make up', or check --url (HOLDFAST_URL)"


class Output(StrEnum):
    """For people, or for programs."""

    table = "table"
    json = "json"


def print_json(value: Any) -> None:
    """One JSON line on stdout, at once: a program may be waiting for it."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def say(line: str, style: str | None = None) -> None:
    """One message on stderr, word for word: brackets in a server's text are not markup."""
    err.print(line, style=style, markup=False)


def explain(error: ClientError) -> str:
    """The error and its remedy, one line per fault."""
    if isinstance(error, Unreachable):
        return f"{one_line(str(error))}\n{REMEDY}"
    lines = [one_line(str(error))]
    if isinstance(error, ApiProblem):
        for fault in error.errors:
            where = fault.get("pointer") or fault.get("header") or fault.get("parameter") or "the request"
            lines.append(one_line(f"  {where}: {fault.get('detail')}"))
    return "\n".join(lines)


def error_fields(error: ClientError) -> dict[str, Any]:
    """The error for programs: ``code`` and ``detail``; of an answer also ``status``, ``errors`` and ``request_id``."""
    match error:
        case ApiProblem():
            known = {"status": error.status, "code": error.code, "detail": error.detail}
            return known | {"errors": list(error.errors), "request_id": error.request_id}
        case Unreachable():
            return {"code": "unreachable", "detail": f"{error}; {REMEDY}"}
        case LiveClosed():
            return {"code": "live_closed", "detail": error.reason, "close_code": error.code}
        case _:
            return {"code": "failed", "detail": str(error)}


def print_error(fields: dict[str, Any]) -> None:
    """One error as a JSON line on stderr."""
    sys.stderr.write(json.dumps(fields, ensure_ascii=False) + "\n")


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether ``-o json`` is among the arguments, which may be wrong otherwise: their fault is to be told in JSON then."""
    spelled = {"-ojson", "--output=json"}
    pairs = pairwise(arguments)
    return any(each in spelled for each in arguments) or any(
        option in ("-o", "--output") and value == "json" for option, value in pairs
    )


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; ``None`` for a file or a pipe, which gets all there is."""
    return out.width if sys.stdout.isatty() else None
