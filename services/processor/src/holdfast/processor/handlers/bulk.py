"""What a handler of whole lists is given: ``def book(orders: list[Order], ctx: BatchContext)``."""

from collections.abc import Mapping, Sequence

from holdfast.processor.handlers.context import Context
from holdfast.runtime.logging import Logger
from holdfast.storage import Session

__all__ = ["BatchContext"]


class BatchContext:
    """One attempt at several events, whose effects commit together.

    Attributes:
        items: the context of each event, in the order of the payloads: its ``event``, ``attempt``, ``idempotency_key`` and
            ``progress``.
    """

    def __init__(self, items: Sequence[Context]) -> None:
        self.items = items
        self._failures: dict[int, Exception] = {}

    @property
    def session(self) -> Session:
        """See :attr:`Context.session`; one for all events."""
        return self.items[0].session

    @property
    def log(self) -> Logger:
        """A structured logger that knows the first event."""
        return self.items[0].log

    @property
    def cancelled(self) -> bool:
        """Whether to stop, as :attr:`Context.cancelled`."""
        return self.items[0].cancelled

    @property
    def failures(self) -> Mapping[int, Exception]:
        """What :meth:`fail` was told."""
        return self._failures

    def fail(self, index: int, error: Exception) -> None:
        """Let one event fail with this error (``Reject``, ``Retry`` or any other) and the others go on.

        What was written for it is not undone: write for the others only. To undo everything raise instead: each event is then
        tried alone.

        Raises:
            IndexError: there is no such payload.
            TypeError: it is no exception.
        """
        if not 0 <= index < len(self.items):
            raise IndexError(f"there are {len(self.items)} events, from 0 on; not {index}")
        if not isinstance(error, Exception):
            raise TypeError(f'an event fails with an exception, such as Reject("reason"); not {error!r}')
        self._failures[index] = error
