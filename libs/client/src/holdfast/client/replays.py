"""What operators look at: groups of dead letters, and how far a replay or discard of many events is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of

__all__ = ["DeadLetterGroup", "DeadLetterSample", "DiscardProgress", "ReplayProgress"]


@dataclass(frozen=True, slots=True)
class DeadLetterSample:
    """One event of a group of dead letters."""

    event_id: str
    type: str
    """Event type."""
    message: str | None = field(repr=False)
    """Of its last error; ``None`` if there is none, or if the API key may not read it."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["event_id"], body["type"], body.get("message"))


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters with one cause."""

    handler: str | None
    """``None`` when no handler ran; ``type`` is set then."""
    error_type: str | None
    fingerprint: str | None
    """Equal for errors that were raised at the same place in the code; ``None`` when no handler ran."""
    type: str | None
    """Event type, of a group for which no handler ran; otherwise ``None``."""
    count: int
    """Number of events."""
    count_last_hour: int | None
    """Of them, those that died within the last hour; ``None`` where the service is older than this client."""
    first_at: datetime
    """When the first of them died, with a time zone."""
    last_at: datetime
    """When the last of them died, with a time zone."""
    sample: DeadLetterSample
    filter: Mapping[str, Any] = field(hash=False)
    """Matches the events of this group; for :meth:`Client.count_replay` and :meth:`Client.start_replay`."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The group as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            handler=body["handler"],
            error_type=body["error_type"],
            fingerprint=body["fingerprint"],
            type=body.get("type"),
            count=body["count"],
            count_last_hour=body.get("count_last_hour"),
            first_at=time_of(body["first_at"]),
            last_at=time_of(body["last_at"]),
            sample=DeadLetterSample.read(body["sample"]),
            filter=body["filter"],
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """A replay of many events, and how far it is."""

    replay_id: str
    state: str
    """``running``, ``done`` or ``cancelled``."""
    filter: Mapping[str, Any] = field(hash=False)
    rate_per_s: float
    """Events replayed per second, at most."""
    total: int
    """Fixed when the replay began."""
    replayed: int
    skipped: int
    """Events that changed after the replay began, and were left alone."""
    remaining: int
    failures: int
    """How many times in a row the replay itself has failed; it is retried until it succeeds."""
    last_error: str | None
    """Type of the error of the latest of these failures."""
    created_by: str
    """Id of the API key that began it."""
    created_at: datetime
    """With a time zone, as is ``finished_at``."""
    finished_at: datetime | None
    """``None`` while it runs."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            replay_id=body["replay_id"],
            state=body["state"],
            filter=body["filter"],
            rate_per_s=body["rate_per_s"],
            total=body["total"],
            replayed=body["replayed"],
            skipped=body["skipped"],
            remaining=body["remaining"],
            failures=body["failures"],
            last_error=body["last_error"],
            created_by=body["created_by"],
            created_at=time_of(body["created_at"]),
            finished_at=optional_time(body["finished_at"]),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class DiscardProgress:
    """A discard of many events, and how far it is."""

    discard_id: str
    state: str
    """``running``, ``done`` or ``cancelled``."""
    filter: Mapping[str, Any] = field(hash=False)
    total: int
    """Fixed when the discard began."""
    discarded: int
    """Of events that ran: how many are to be cancelled. Their own state says how each ended."""
    skipped: int
    """Events that changed after the discard began, and were left alone."""
    remaining: int
    created_by: str
    """Id of the API key that began it."""
    created_by_name: str | None
    """The key's name at the time."""
    created_at: datetime
    """With a time zone, as is ``finished_at``."""
    finished_at: datetime | None
    """``None`` while it runs."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            discard_id=body["discard_id"],
            state=body["state"],
            filter=body["filter"],
            total=body["total"],
            discarded=body["discarded"],
            skipped=body["skipped"],
            remaining=body["remaining"],
            created_by=body["created_by"],
            created_by_name=body["created_by_name"],
            created_at=time_of(body["created_at"]),
            finished_at=optional_time(body["finished_at"]),
            raw=body,
        )
