"""Sessions that refuse to end their transaction.

A session's methods and the statements sent through it can be refused; what the driver's own connection does cannot, see
``storage.held``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session

__all__ = ["install", "kept_open"]

_LISTENING = "holdfast.listening"
"""Where a connection keeps that its engine asks for each statement whether it is refused."""

_KEPT_OPEN = "holdfast.kept_open"

COMMIT = "a handler does not commit: return, and Holdfast commits its effects together with 'processed'"

ROLLBACK = "a handler does not roll back: raise an exception, or use ctx.session.begin_nested()"

BEGIN = "a handler runs in a transaction already; for work that may fail in part use ctx.session.begin_nested()"

CLOSE = "a handler does not close its session: Holdfast does, after the commit"

_METHODS = {
    "commit": COMMIT,
    "rollback": ROLLBACK,
    "close": CLOSE,
    "reset": CLOSE,
    "invalidate": CLOSE,
    "prepare": COMMIT,
}

_STATEMENTS = {
    ("commit",): COMMIT, ("end",): COMMIT, ("prepare", "transaction"): COMMIT, ("rollback",): ROLLBACK,
    ("abort",): ROLLBACK, ("begin",): BEGIN, ("start", "transaction"): BEGIN,
}  # fmt: skip


def install(engine: Engine) -> None:
    """Let the engine ask for each statement: to listen to every single transaction costs more than many statements."""
    _listen(engine)
    event.listen(engine, "connect", lambda _, record: record.info.update({_LISTENING: True}))


def _listen(target: Engine | Connection) -> None:
    event.listen(target, "before_cursor_execute", _check_statement)
    event.listen(target, "commit", _refuse_commit)


@contextmanager
def kept_open(session: Session) -> Iterator[None]:
    """Within the block the session refuses to end its transaction: by its methods, and by a statement that says so.

    Raises:
        RuntimeError: within the block, where it was tried; the message names the remedy.
    """
    connection = session.connection()
    methods = vars(session)
    methods.update(_REFUSING)
    info = connection.info
    is_engines = _LISTENING in info
    if not is_engines:  # an engine of somebody else's tests
        _listen(connection)
    info[_KEPT_OPEN] = True
    try:
        yield
    finally:
        info.pop(_KEPT_OPEN, None)
        if not is_engines:
            event.remove(connection, "commit", _refuse_commit)
            event.remove(connection, "before_cursor_execute", _check_statement)
        for name in _METHODS:
            methods.pop(name, None)


def _check_statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
    if _KEPT_OPEN not in connection.info:
        return
    words = tuple(statement.lstrip(" \t\r\n;")[:80].lower().replace(";", " ").split()[:3])
    is_to_savepoint = words[:1] == ("rollback",) and "to" in words[1:]
    message = _STATEMENTS.get(words[:1]) or _STATEMENTS.get(words[:2])
    if message is not None and not is_to_savepoint:
        raise RuntimeError(message)


def _refuse_commit(connection: Connection) -> None:
    if _KEPT_OPEN in connection.info:
        raise RuntimeError(COMMIT)


def _refusing(message: str) -> Callable[[], None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(message)

    return refuse


_REFUSING = {name: _refusing(message) for name, message in _METHODS.items()}
