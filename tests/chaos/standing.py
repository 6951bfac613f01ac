"""Where events stand, what was done for them, and how they got there; and waiting until all are settled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.stacks import Rows

from holdfast.local.fixtures import Eventually

__all__ = ["Moment", "Standing", "history", "settle", "standing"]

_STANDING = """
SELECT s.event_id::text, s.state, s.version, s.attempt, s.crashes, s.lease_owner, s.lease_token::text,
       s.last_error ->> 'type', l.lease_token::text, l.result, extract(epoch FROM l.processed_at)::float8,
       (SELECT count(*) FROM effect f WHERE f.event_id = s.event_id)
FROM processing_state s LEFT JOIN processed_event_log l USING (event_id)
WHERE s.event_id = ANY (%s::uuid[])
"""

_OPEN = """
SELECT count(*), min(event_id::text) FROM processing_state
WHERE event_id = ANY (%s::uuid[]) AND state IN ('queued', 'processing', 'failed')
"""

_HISTORY = """
SELECT state, attempt, extract(epoch FROM at)::float8, detail FROM event_update WHERE event_id = %s ORDER BY version
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """An event's ``processing_state``, its row in the processed-event log if there is one, and its number of effects."""

    event_id: str
    state: str
    version: int
    attempt: int
    crashes: int
    lease_owner: str | None
    lease_token: str | None
    error: str | None
    settled_by: str | None
    """The lease token under which it was processed."""
    result: Any
    processed_at: float | None
    """Seconds since 1970 on PostgreSQL's clock."""
    effects: int

    @property
    def worker(self) -> int:
        """Process id of the worker that has leased it."""
        return int(str(self.lease_owner).rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Moment:
    """One transition of an event; ``at`` in seconds since 1970 on PostgreSQL's clock."""

    state: str
    attempt: int
    at: float
    detail: dict[str, Any]


def standing(rows: Rows, event_ids: Sequence[str]) -> list[Standing]:
    """In no particular order."""
    return [Standing(*row) for row in rows.query(_STANDING, list(event_ids))]


def history(rows: Rows, event_id: str) -> list[Moment]:
    """Every transition, oldest first."""
    return [Moment(*row) for row in rows.query(_HISTORY, event_id)]


def settle(rows: Rows, event_ids: Sequence[str], eventually: Eventually, *, seconds: float = 60) -> list[Standing]:
    """Wait until all these events are settled; where they stand then."""

    def are_settled() -> bool:
        [(count, example)] = rows.query(_OPEN, list(event_ids))
        assert count == 0, f"{count} of {len(event_ids)} events are open, such as {standing(rows, [example])}"
        return True

    eventually(are_settled, timeout_seconds=seconds)
    settled = standing(rows, event_ids)
    assert len(settled) == len(event_ids), "every accepted event is there"
    return settled
