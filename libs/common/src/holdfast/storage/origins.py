"""The traces of events, for work that is done for many of them at once."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.domain.trace import TraceContext

__all__ = ["kept_contexts"]

_KEPT = text("""
-- Parameters: event_ids, limit.
SELECT trace_id, span_id FROM event
WHERE id = ANY (CAST(:event_ids AS uuid[])) AND trace_id IS NOT NULL AND span_id IS NOT NULL
LIMIT :limit
""")


def kept_contexts(session: Session, event_ids: Sequence[UUID], *, limit: int) -> list[TraceContext]:
    """The spans that up to ``limit`` of these events go on from, of those whose traces are kept."""
    rows = session.execute(_KEPT, {"event_ids": [str(each) for each in event_ids], "limit": limit})
    return [TraceContext(row.trace_id.hex, row.span_id, is_sampled=True) for row in rows]
