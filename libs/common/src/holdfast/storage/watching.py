"""Statements of a session, told without their values while somebody watches: the trace of an attempt, say."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.orm import Session

__all__ = ["MAX_TEXT", "Statement", "Tell", "operation_of", "watching", "without_values"]

MAX_TEXT = 2000
"""Characters of a statement that are told."""

_TELL = "holdfast.tell"
_BEGAN = "holdfast.statement_began"

_listening_lock = threading.Lock()
_listening: "WeakSet[Engine]" = WeakSet()

_VALUES = re.compile(
    r"""
    (?P<kept>"(?:[^"]|"")*(?:"|\Z)                          # a name in quotes
           | %\(\w+\)s | [A-Za-z_\x80-\uffff][\w$]*(?!\w|&?')  # a parameter, a word
           | \$\d+)
  | (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
  | (?<![\w$])[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z)
  | (?:(?<![\w$])(?:[bBxXnN]|[uU]&))?'(?:[^']|'')*(?:'|\Z)
  | \$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z)
  | (?:\d[\w.]*|\.\d[\w.]*)
    """,
    re.VERBOSE | re.DOTALL,
)
"""https://www.postgresql.org/docs/current/sql-syntax-lexical.html; one that the bound has cut off ends there."""

_WORD = re.compile(r"[\s(;]*([A-Za-z]{1,20})\b")


class Statement(NamedTuple):
    """A statement that has run.

    Attributes:
        text: as it was written, at most ``MAX_TEXT`` characters of it.
        began_ns, ended_ns: in nanoseconds since 1970.
        sets: of parameters, that it ran with at once.
        error_type: the name of the driver's error, and ``error_code`` its SQLSTATE; ``None`` where it has not failed.
    """

    text: str
    began_ns: int
    ended_ns: int
    sets: int = 1
    error_type: str | None = None
    error_code: str | None = None


Tell = Callable[[Statement], object]


@contextmanager
def watching(session: Session, tell: Tell | None) -> Iterator[None]:
    """Within the block each statement that the session or its connection executes is told, when it is over.

    What goes past SQLAlchemy, by the driver's own methods, is not seen.
    """
    if tell is None:
        yield
        return
    connection = session.connection()
    _listen(connection.engine)
    info = connection.info
    info[_TELL] = tell
    try:
        yield
    finally:
        info.pop(_TELL, None)


@lru_cache(maxsize=512)
def without_values(text: str) -> str:
    """The statement with ``?`` for each literal and without comments: a handler may have written payloads into it."""
    return _VALUES.sub(_replaced, text).strip()


@lru_cache(maxsize=512)
def operation_of(text: str) -> str | None:
    """The first word of a statement without values, in capitals; ``None`` where it begins with something else."""
    found = _WORD.match(text)
    return None if found is None else found[1].upper()


def _replaced(found: re.Match[str]) -> str:
    if found["kept"] is not None:
        return found["kept"]
    return " " if found["comment"] is not None else "?"


def _listen(engine: Engine) -> None:
    # Not to the connection: to listen to a single one costs more than many statements.
    if engine in _listening:
        return
    with _listening_lock:
        if engine in _listening:
            return
        event.listen(engine, "before_cursor_execute", _begin)
        event.listen(engine, "after_cursor_execute", _end)
        event.listen(engine, "handle_error", _fail)
        _listening.add(engine)


def _begin(connection: Connection, *_: Any) -> None:
    if _TELL in connection.info:
        connection.info[_BEGAN] = time.time_ns()


def _end(connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
    tell = connection.info.get(_TELL)
    if tell is not None and (began_ns := connection.info.pop(_BEGAN, None)) is not None:
        tell(Statement(statement[:MAX_TEXT], began_ns, time.time_ns(), len(parameters) if many else 1))


def _fail(context: ExceptionContext) -> None:
    connection = context.connection
    # A connection that is gone has forgotten who watches it.
    if connection is None or connection.closed or connection.invalidated or context.is_disconnect:
        return
    tell, began_ns = connection.info.get(_TELL), connection.info.pop(_BEGAN, None)
    if tell is not None and began_ns is not None:
        error: Any = context.original_exception
        text, code = context.statement or "", getattr(error, "pgcode", None)
        tell(Statement(text[:MAX_TEXT], began_ns, time.time_ns(), 1, type(error).__name__, code))
