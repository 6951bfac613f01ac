"""What runs where, as the API shows it; and why an open event waits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of

__all__ = ["Node", "NodeRun", "NodeWorker", "Waiting"]


@dataclass(frozen=True, slots=True)
class NodeRun:
    """An event that a handler has now."""

    event_id: str
    handler: str
    attempt: int
    since: datetime
    """When it was claimed, with a time zone."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["event_id"], body["handler"], body["attempt"], time_of(body["since"]))


@dataclass(frozen=True, slots=True)
class NodeWorker:
    """One worker process of a node, as it said last."""

    name: str
    pid: int
    last_beat_at: datetime
    """With a time zone, as are the other times."""
    last_poll_at: datetime | None
    """When it looked for due events; ``None`` for one that never does."""
    is_stale: bool
    """It has said nothing for half a minute."""
    slots: int
    """How many events it runs at once."""
    busy: int
    running: tuple[NodeRun, ...]
    """What its handlers run of this key's tenant, the oldest first; of events that run together the first one."""
    running_for_others: int

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            body["name"], body["pid"], time_of(body["last_beat_at"]), optional_time(body["last_poll_at"]),
            body["is_stale"], body["slots"], body["busy"], tuple(map(NodeRun.read, body["running"])),
            body["running_for_others"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """One running service on one host, with its workers."""

    node_id: str
    service: str
    """``processor`` or ``maintenance``."""
    host: str
    state: str
    """``active``, ``draining``, ``drained`` or ``stale``."""
    version: str
    started_at: datetime
    """With a time zone, as are the other times."""
    last_beat_at: datetime | None
    last_poll_at: datetime | None
    drain_since: datetime | None
    types: tuple[str, ...]
    """Types and patterns that its handlers serve."""
    slots: int
    """How many events it runs at once."""
    busy: int
    workers: tuple[NodeWorker, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The node as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            node_id=body["node_id"], service=body["service"], host=body["host"], state=body["state"],
            version=body["version"], started_at=time_of(body["started_at"]),
            last_beat_at=optional_time(body["last_beat_at"]), last_poll_at=optional_time(body["last_poll_at"]),
            drain_since=optional_time(body["drain_since"]), types=tuple(body["types"]), slots=body["slots"],
            busy=body["busy"], workers=tuple(map(NodeWorker.read, body["workers"])), raw=body,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why an open event has not been processed yet."""

    reason: str
    """Such as ``turn`` or ``no_handler``; docs/http-api.md lists them."""
    summary: str
    """One sentence."""
    facts: Mapping[str, Any] = field(hash=False)
    """The figures and times behind it, as JSON values."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        facts = {name: value for name, value in body.items() if name not in ("reason", "summary")}
        return cls(body["reason"], body["summary"], facts)
