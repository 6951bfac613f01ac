"""What became of an event that was sent again: the one that is there, or what is known of one that is gone."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from holdfast.domain.data import Data, is_same_data
from holdfast.domain.errors import TransactionConflict
from holdfast.domain.event import NewEvent, canonical_json, digest
from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.storage.event_columns import SealedData, opened, recordset
from holdfast.storage.identities import IDENTITY
from holdfast.storage.recorded import Recorded
from holdfast.storage.statements import statement

__all__ = ["IS_FORGOTTEN", "REQUESTED", "record_all", "resolve"]

REQUESTED = """requested AS (
    SELECT *, coalesce(convert_to(data_json, 'UTF8'), decode(data_base64, 'base64')) AS content
    FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS r(
        id uuid, tenant text, source text, ce_id text, type text, subject text, time timestamptz, audience text,
        datacontenttype text, dataschema text, extensions jsonb, data_json text, data_base64 text, traceparent text,
        replay_of uuid, parent_id uuid, request_id text, trace_id uuid, span_id text, is_json boolean, data_key_id uuid)
)"""
"""Events as a table. Parameter: events, JSON array of objects with the columns of "r"."""

_IS_KNOWN = "i.identity = {identity} AND i.until > statement_timestamp()".format(identity=IDENTITY.format(alias="r"))

_IS_ANY = "(SELECT true FROM event_identity LIMIT 1) IS NOT NULL"
"""Asked once a statement: while nothing has gone, which is most often so, no hash is computed."""

IS_FORGOTTEN = f"({_IS_ANY} AND EXISTS (SELECT FROM event_identity i WHERE {_IS_KNOWN}))"
"""Whether the event "r" is one that is gone: a probe of an index."""

_RESOLVE = statement("""
-- The rows that were there before, a concurrent transaction's included: a new statement has a new snapshot.
-- Parameters: events, as above. is_same is NULL where only a look at the data can tell.
WITH {requested}
SELECT r.id AS requested_id, e.id, e.type, e.audience, e.received_at, e.data_digest, s.state, s.version, s.attempt,
       CASE WHEN e.type <> r.type THEN false
            WHEN e.data_key_id IS NULL AND r.data_key_id IS NULL AND e.data_digest IS NULL
                 AND e.is_json = (r.data_json IS NOT NULL)
                 AND e.data_bytes IS NOT DISTINCT FROM r.content THEN true END AS is_same
FROM requested r
JOIN event e USING (tenant, source, ce_id)
JOIN processing_state s ON s.event_id = e.id
""", requested=REQUESTED)  # fmt: skip

_RECALL = statement("""
-- Those of events that are gone. Parameters: events, as above.
WITH {requested}
SELECT r.id AS requested_id, i.event_id, i.state, i.version, i.made_at FROM requested r JOIN event_identity i ON {known}
""", requested=REQUESTED, known=_IS_KNOWN)  # fmt: skip

_DATA = statement("""
-- Parameters: event_id.
SELECT e.id, e.tenant, e.data_bytes, e.is_json, e.datacontenttype, e.data_key_id FROM event e WHERE e.id = :event_id
""")

MOST_LOOKS = 5
"""At an event that goes at the very moment in which it is sent again: it is there, then gone, and the next time new."""


def record_all(
    events: Sequence[NewEvent], record: Callable[[Sequence[NewEvent]], Mapping[UUID, Recorded]]
) -> dict[UUID, Recorded]:
    """What ``record`` says of each event, by id: asked again for those whose originals went just now.

    Raises:
        TransactionConflict: events go as fast as they are sent again; done again it succeeds.
    """
    known: dict[UUID, Recorded] = {}
    for _ in range(MOST_LOOKS):
        known |= record([event for event in events if event.id not in known])
        if len(known) == len(events):
            return known
    raise TransactionConflict("an event went while it was sent again; do it again")


def resolve(session: Session, events: Sequence[NewEvent], sealed: SealedData) -> dict[UUID, Recorded]:
    """The originals of events that were not new, by the id of each; without those that are gone and no longer known."""
    by_id = {event.id: event for event in events}
    rows = session.execute(_RESOLVE, {"events": recordset(events, sealed)}).all()
    known = {row.requested_id: _met_again(session, by_id[row.requested_id], row) for row in rows}
    if others := [event for event in events if event.id not in known]:
        recalled = session.execute(_RECALL, {"events": recordset(others, sealed)}).all()
        known |= {row.requested_id: _forgotten(by_id[row.requested_id], row) for row in recalled}
    return known


def _forgotten(event: NewEvent, row: Row[Any]) -> Recorded:
    update = Update(
        event_id=row.event_id, tenant=event.tenant, type=event.type, audience=event.audience, state=State(row.state),
        version=row.version, attempt=0, at=row.made_at,
    )  # fmt: skip
    return Recorded(update, is_duplicate=True, is_forgotten=True)


def _met_again(session: Session, event: NewEvent, row: Row[Any]) -> Recorded:
    update = Update(
        event_id=row.id,
        tenant=event.tenant,
        type=row.type,
        audience=row.audience,
        state=State(row.state),
        version=row.version,
        attempt=row.attempt,
        at=row.received_at,
    )
    is_same = _is_same(session, event, row) if row.is_same is None else row.is_same
    return Recorded(update, is_duplicate=is_same, is_conflict=not is_same)


def _is_same(session: Session, event: NewEvent, row: Row[Any]) -> bool:
    """Whether the event of this row has the same data; they have the same type."""
    if row.data_digest is not None:  # a release before revision 0008 recorded it
        text = None if event.data_json is None else canonical_json(json.loads(event.data_json))
        return bytes(row.data_digest) == digest(event.type, text, event.data_bytes)
    # One at a time: each may be as large as an event can be.
    stored = session.execute(_DATA, {"event_id": row.id}).one()
    content = None if stored.data_bytes is None else opened(session, stored, bytes(stored.data_bytes))
    return is_same_data(
        Data(content, stored.is_json, stored.datacontenttype),
        Data(event.content, event.data_json is not None, event.datacontenttype),
    )
