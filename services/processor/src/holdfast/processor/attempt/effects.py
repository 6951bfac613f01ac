"""Keeping the settling transaction in Holdfast's hands while a handler writes in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from holdfast.storage import Session

__all__ = ["guarded"]

_REFUSED = {
    "commit": "a handler does not commit: return, and Holdfast commits its effects together with 'processed'",
    "rollback": "a handler does not roll back: raise an exception, or use ctx.session.begin_nested()",
    "close": "a handler does not close its session: Holdfast does, after the commit",
}


@contextmanager
def guarded(session: Session) -> Iterator[None]:
    """Within the block the session can not end its transaction; what is pending in it is written when the block ends.

    A handler that commits by itself would keep its effects when it fails afterwards, and apply them again in the next
    attempt. ``begin_nested()`` (a savepoint) stays, for work that may fail in part.

    The methods are shadowed on this one session. A second session on its connection would, when a flush fails, roll the
    transaction back behind the first one's back.
    """
    methods = vars(session)
    methods.update({name: _refusing(message) for name, message in _REFUSED.items()})
    try:
        yield
        session.flush()
    finally:
        for name in _REFUSED:
            del methods[name]


def _refusing(message: str) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise RuntimeError(message)

    return refuse
