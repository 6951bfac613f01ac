"""What the pages change, through the functions that the API changes it with; each call is one transaction."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.parts import parts
from holdfast.storage import Session, key_changes, nodes, replays
from holdfast.storage.audit import Actor
from holdfast.storage.key_changes import Made, Refused
from holdfast.storage.keys import KeyEntry
from holdfast.storage.nodes import NodeView
from holdfast.storage.replays import Action, Replay

__all__ = ["cancel_replay", "issue_key", "revoke_key", "rotate_key", "set_draining"]

Value = TypeVar("Value")


def cancel_replay(actor: Actor, replay_id: UUID, action: Action) -> Replay | None:
    """Stop a replay or discard; ``None``: there is none such."""
    return _do(lambda session: replays.cancel(session, actor, replay_id, action=action))


def set_draining(actor: Actor, node_id: str, *, is_draining: bool) -> NodeView | None:
    """Let a processor take nothing new, or take events again; ``None``: there is no such node.

    Raises:
        NotDrainable: the node is no processor.
    """
    return _do(lambda session: nodes.set_draining(session, actor, node_id, is_draining=is_draining))


def issue_key(
    actor: Actor, *, name: str, scopes: Sequence[str], life: timedelta | None, idempotency_key: str
) -> Made | Refused:
    """Make a key of the actor's tenant."""
    return _do(
        lambda session: key_changes.issue_key(
            session, actor, name=name, scopes=scopes, life=life, idempotency_key=idempotency_key
        )
    )


def rotate_key(actor: Actor, key_id: str, *, overlap: timedelta, idempotency_key: str) -> Made | Refused:
    """Make a key like another one, which then ends after the overlap."""
    return _do(
        lambda session: key_changes.rotate_key(
            session, actor, key_id, overlap=overlap, idempotency_key=idempotency_key
        )
    )  # fmt: skip


def revoke_key(actor: Actor, key_id: str, *, force: bool) -> KeyEntry | Refused:
    """End a key; with ``force`` also the last one that could make others."""
    return _do(lambda session: key_changes.revoke_own_key(session, actor, key_id, force=force))


def _do(work: Callable[[Session], Value]) -> Value:
    return reconnecting(lambda: parts().database.call(work))
