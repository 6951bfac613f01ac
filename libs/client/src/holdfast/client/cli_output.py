"""Where the command line writes: data to stdout, everything else to stderr."""

import json
from enum import StrEnum
from typing import Any

from rich.console import Console

from holdfast.client.errors import ApiProblem, ClientError, Unreachable
from holdfast.client.render import one_line

__all__ = ["Output", "err", "explain", "out", "print_json", "say"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


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
        return f"{one_line(str(error))}\nstart a local stack with 'make up', or check --url (HOLDFAST_URL)"
    lines = [one_line(str(error))]
    if isinstance(error, ApiProblem):
        for fault in error.errors:
            where = fault.get("pointer") or fault.get("header") or fault.get("parameter") or "the request"
            lines.append(one_line(f"  {where}: {fault.get('detail')}"))
    return "\n".join(lines)
