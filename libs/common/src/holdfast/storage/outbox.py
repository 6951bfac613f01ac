"""The outbox: which updates the relay has not made sure of yet.

Nothing is written when an update was published. Every row of ``event_update`` names the transaction that wrote it, and the
one row of ``outbox_cursor`` holds two snapshots (ADR 0031):

``confirmed``  what it sees has been published, the relay has made sure.
``until``      taken some seconds ago. What it sees and ``confirmed`` does not is the window: the relay looks at that now.

A snapshot never sees a transaction that has not ended, so one that commits late falls into a later window however old its id
is, and each update is in exactly one window. Both snapshots are read from the table, never from memory: PostgreSQL may lose
its last transactions in a crash and give their ids again, but never ids older than those of a row that it kept.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage.snapshot import parse_snapshot
from holdfast.storage.updates import UpdateKey

__all__ = ["IS_WINDOW_DUE", "NOT_CONFIRMED", "Page", "confirm", "next_page"]

log = logging.get(__name__)

NOT_CONFIRMED = """
coalesce((SELECT max(u.transaction_id) FROM event_update u) >= CAST(split_part({snapshot}, ':', 2) AS bigint), false)
OR EXISTS (
    SELECT FROM unnest(CAST(string_to_array(nullif(split_part({snapshot}, ':', 3), ''), ',') AS bigint[])) AS running(id)
    WHERE (SELECT min(u.transaction_id) FROM event_update u WHERE u.transaction_id BETWEEN running.id AND running.id)
        IS NOT NULL
)
""".strip()
"""Whether there are updates that a snapshot does not see, as SQL.

The largest and the smallest are always read from the index. Of an EXISTS over a range whose end it does not know the planner
expects a third of all updates, and reads the table from its beginning: all of it, when there is none.
"""

_IS_RIPE = """
c.until_at NOT BETWEEN statement_timestamp() - make_interval(secs => :after_seconds) AND statement_timestamp()
""".strip()
"""Parameter: after_seconds, how long a snapshot has to rest. One from the future does not: the clock was set back."""

_LOOK = text(f"""
-- Parameter: after_seconds.
SELECT c.confirmed, c.until, CAST(pg_current_snapshot() AS text) AS now, {_IS_RIPE} AS is_ripe,
       {NOT_CONFIRMED.format(snapshot="c.confirmed")} AS has_updates
FROM outbox_cursor c
""")  # noqa: S608

IS_WINDOW_DUE = f"""
SELECT {_IS_RIPE} AND ({NOT_CONFIRMED.format(snapshot="c.confirmed")})
    OR CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)
       < greatest(CAST(split_part(c.confirmed, ':', 2) AS bigint), CAST(split_part(c.until, ':', 2) AS bigint))
FROM outbox_cursor c
""".strip()  # noqa: S608
"""Whether :func:`next_page` would find a page, or start over, as SQL. Parameter: after_seconds."""

_PAGE = text("""
-- Parameters: ended, transactions that have ended between the two snapshots; first, "end" of the earlier one; end and
-- running of the later one; limit. A transaction is never cut in two.
SELECT event_id, version, transaction_id FROM (
    SELECT event_id, version, at, transaction_id FROM event_update
    WHERE transaction_id = ANY (CAST(:ended AS bigint[])) AND at >= (SELECT since FROM outbox_cursor)
    UNION ALL (
    SELECT event_id, version, at, transaction_id FROM event_update
    WHERE transaction_id >= :first AND transaction_id < :end AND transaction_id <> ALL (CAST(:running AS bigint[]))
      AND at >= (SELECT since FROM outbox_cursor)
    ORDER BY transaction_id FETCH FIRST (:limit) ROWS WITH TIES)
) u ORDER BY at, version
""")

_CONFIRM = text("""
-- Parameters: confirmed, until, the cursor as it was read; next, what is confirmed from now on.
UPDATE outbox_cursor SET confirmed = :next WHERE confirmed = :confirmed AND until = :until
""")

_TURN_OVER = text("""
-- Parameters: confirmed, until, the cursor as it was read.
UPDATE outbox_cursor SET confirmed = until, until = CAST(pg_current_snapshot() AS text), until_at = statement_timestamp()
WHERE confirmed = :confirmed AND until = :until
""")

_START_OVER = text("""
-- Parameters: as _TURN_OVER.
UPDATE outbox_cursor SET
    confirmed = CAST(pg_current_snapshot() AS text), until = CAST(pg_current_snapshot() AS text),
    until_at = statement_timestamp(), since = statement_timestamp() - interval '1 day'
WHERE confirmed = :confirmed AND until = :until
""")


@dataclass(frozen=True, slots=True)
class Page:
    """Updates to make sure of, oldest first.

    Attributes:
        confirmed, until: the cursor as it was read.
        next: what is confirmed once these are; ``None`` at the end of the window.
    """

    keys: list[UpdateKey]
    confirmed: str
    until: str
    next: str | None


def next_page(session: Session, *, after_seconds: float, limit: int) -> Page | None:
    """About ``limit`` updates of the window, or ``None`` when there is nothing to do yet.

    More than ``limit`` where one transaction wrote more, or where many ended that had begun before the window. A page may be
    empty: then the window is over, and :func:`confirm` opens the next one.
    """
    row = session.execute(_LOOK, {"after_seconds": after_seconds}).one()
    confirmed, until = parse_snapshot(row.confirmed), parse_snapshot(row.until)
    if parse_snapshot(row.now).end < max(confirmed.end, until.end):
        _start_over(session, row)
        return None
    if not (row.is_ripe and row.has_updates):
        return None
    found = session.execute(_PAGE, {
        "ended": [each for each in confirmed.running if until.sees(each)], "first": confirmed.end, "end": until.end,
        "running": list(until.running), "limit": limit,
    }).all()  # fmt: skip
    in_order = [each.transaction_id for each in found if each.transaction_id >= confirmed.end]
    is_last = len(in_order) < limit
    keys: list[tuple[UUID, int]] = [(each.event_id, each.version) for each in found]
    return Page(keys, row.confirmed, row.until, None if is_last else str(until.up_to(max(in_order))))


def confirm(session: Session, page: Page) -> None:
    """Note that a page's updates are published. Does nothing if another process was faster: both made sure of the same."""
    cursor = {"confirmed": page.confirmed, "until": page.until}
    if page.next is None:
        session.execute(_TURN_OVER, cursor)
    else:
        session.execute(_CONFIRM, cursor | {"next": page.next})


def _start_over(session: Session, row: Any) -> None:
    """The database was restored into a server whose transactions have lower ids than those in its rows.

    From here on only updates count that are not older than a day before: ids of the old server will be given again.
    """
    session.execute(_START_OVER, {"confirmed": row.confirmed, "until": row.until})
    log.warning(Log.OUTBOX_STARTED_OVER)
