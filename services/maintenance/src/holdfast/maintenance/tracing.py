"""What maintenance does for events of kept traces, as spans that are linked to those."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from holdfast.domain.errors import DatabaseUnavailable, StatementTooSlow, TransactionConflict
from holdfast.runtime import tracing
from holdfast.storage.database import Database
from holdfast.storage.origins import kept_contexts

__all__ = ["MOST_LINKS", "trace_batch"]

MOST_LINKS = 32
"""Of one span: an operator follows one of them, and a batch may have hundreds."""


def trace_batch(database: Database, duty: str, event_ids: Sequence[UUID], *, began_ns: int) -> None:
    """Export a span of a batch that is done, if it has an event whose trace is kept.

    Args:
        began_ns: when the batch began, in nanoseconds since 1970.
    """
    if not event_ids or not tracing.is_on():
        return
    # The batch is committed: that nobody can say which traces it belongs to must not fail the duty.
    with suppress(DatabaseUnavailable, StatementTooSlow, TransactionConflict):
        if links := database.call(kept_contexts, event_ids, limit=MOST_LINKS):
            count = {"messaging.batch.message_count": len(event_ids)}
            tracing.begin(duty, links=links, attributes=count, began_ns=began_ns).end()
