"""Revoked live tokens. What gateways ask is a copy in Redis, which is brought up to date from here by ``seq``."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from holdfast.domain.revocation import KEPT_SECONDS, Revocation, RevocationKind
from holdfast.storage.audit import Actor, note
from holdfast.storage.tables import TokenRevocation

__all__ = ["delete_revocations", "expired_revocations", "newest_seq", "record_revocation", "revocations_after"]

_SECOND = func.floor(func.extract("epoch", TokenRevocation.revoked_at)).label("second")


def record_revocation(session: Session, actor: Actor, kind: RevocationKind, name: str) -> Revocation:
    """Revoke one token of the actor's tenant (``name`` is its ``jti``), or all that a subject has by now (its ``sub``).

    Revoking again moves the moment forward. An entry in the audit log goes with it.
    """
    _lock(session)
    # The moment after the lock, and not that of the transaction's begin: a token may have been minted in between.
    new = insert(TokenRevocation).values(
        tenant=actor.tenant, kind=kind, name=name, revoked_at=func.clock_timestamp()
    )  # fmt: skip
    changes = {"seq": new.excluded.seq, "revoked_at": new.excluded.revoked_at}
    upsert = new.on_conflict_do_update(index_elements=["tenant", "kind", "name"], set_=changes)
    seq, second = session.execute(upsert.returning(TokenRevocation.seq, _SECOND)).one()
    note(session, actor, f"revoke_{kind}", detail={"jti" if kind is RevocationKind.TOKEN else "sub": name})
    return Revocation(seq=seq, tenant=actor.tenant, kind=kind, name=name, second=int(second))


def newest_seq(session: Session) -> int:
    """The ``seq`` of the newest revocation; 0 when there was none yet."""
    return int(session.scalar(select(func.max(TokenRevocation.seq))) or 0)


def revocations_after(session: Session, seq: int, *, limit: int) -> list[Revocation]:
    """The next revocations after this one, oldest first."""
    return _read(session, TokenRevocation.seq > seq, limit)


def expired_revocations(session: Session, *, limit: int) -> list[Revocation]:
    """The oldest that have been kept for long enough; nothing is revoked until the transaction ends.

    Never the newest of all, which :func:`newest_seq` goes by.
    """
    _lock(session)
    is_old = TokenRevocation.revoked_at < func.now() - text(f"interval '{KEPT_SECONDS} s'")
    is_not_newest = TokenRevocation.seq < select(func.max(TokenRevocation.seq)).scalar_subquery()
    return _read(session, is_old & is_not_newest, limit)


def delete_revocations(session: Session, revocations: Sequence[Revocation]) -> None:
    """Forget these."""
    seqs = [revocation.seq for revocation in revocations]
    session.execute(delete(TokenRevocation).where(TokenRevocation.seq.in_(seqs)))


def _lock(session: Session) -> None:
    """One change after the other, so that they commit in the order of seq: who has read one has read all before it."""
    session.execute(text("LOCK TABLE token_revocation IN SHARE ROW EXCLUSIVE MODE"))


def _read(session: Session, condition: ColumnElement[bool], limit: int) -> list[Revocation]:
    columns = (TokenRevocation.seq, TokenRevocation.tenant, TokenRevocation.kind, TokenRevocation.name, _SECOND)
    rows = session.execute(select(*columns).where(condition).order_by(TokenRevocation.seq).limit(limit))
    return [
        Revocation(seq=row.seq, tenant=row.tenant, kind=RevocationKind(row.kind), name=row.name, second=int(row.second))
        for row in rows
    ]
