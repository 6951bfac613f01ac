"""Doing something once a session's transaction has committed, for sessions that are not ours."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["after_commit"]

_PENDING = "holdfast.after_commit"
"""Where a session keeps what it is to do."""


class _Item(NamedTuple):
    do: Callable[[Sequence[Any]], object]
    argument: object
    within: tuple[SessionTransaction, ...]
    """The savepoints around it: where one is rolled back, what was done in it has not happened."""


def after_commit(session: Session, do: Callable[[Sequence[Any]], object], argument: object) -> None:
    """Call ``do`` with all its arguments once the session's transaction has committed; never, where it has not.

    Nor where a savepoint is rolled back in which this was asked for. ``do`` must not raise: the transaction is over.
    """
    if _PENDING not in session.info:
        session.info[_PENDING] = []
        event.listen(session, "after_soft_rollback", _forget)
        event.listen(session, "after_commit", _do)
    session.info[_PENDING].append(_Item(do, argument, _savepoints(session)))


def _savepoints(session: Session) -> tuple[SessionTransaction, ...]:
    found = []
    each = session.get_nested_transaction()
    while each is not None and each.nested:
        found.append(each)
        each = each.parent
    return tuple(found)


def _forget(session: Session, previous: SessionTransaction) -> None:
    pending: list[_Item] = session.info[_PENDING]
    pending[:] = [each for each in pending if previous.nested and previous not in each.within]


def _do(session: Session) -> None:
    if session.in_nested_transaction():  # a savepoint was released; the transaction goes on
        return
    pending: list[_Item] = session.info[_PENDING]
    items, pending[:] = list(pending), []
    for do in dict.fromkeys(each.do for each in items):
        do([each.argument for each in items if each.do == do])
