"""What happened lately, and how it stands: answers of ``GET /v1/stats`` and ``GET /v1/handlers``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from holdfast.client.answers import optional_time, time_of

__all__ = ["DeclaredHandler", "HandlerStatistics", "Handlers", "Statistics", "StatisticsPoint", "Times", "UnservedType"]


@dataclass(frozen=True, slots=True)
class StatisticsPoint:
    """What happened within one step, which begins ``at``."""

    at: datetime
    accepted: int
    processed: int
    failed: int
    """Attempts, those that made a dead letter included."""
    dead: int

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(time_of(body["at"]), body["accepted"], body["processed"], body["failed"], body["dead"])


@dataclass(frozen=True, slots=True)
class Statistics:
    """How the tenant's events stand, and a series of what happened."""

    counted_at: datetime
    """Up to then everything is in the counters."""
    lag_seconds: float
    """For how long something has been waiting to be counted; more than 15 means that maintenance is away."""
    per_second: Mapping[str, float] = field(hash=False)
    """``accepted``, ``processed``, ``failed``, over the last minute."""
    last_hour: Mapping[str, int] = field(hash=False)
    events: Mapping[str, int] = field(hash=False)
    """State → how many events are in it: the open ones, and ``dead``."""
    oldest_due_seconds: float
    is_at_most: bool
    """The oldest due event has waited for ``oldest_due_seconds`` at most: those of other tenants are older."""
    step_seconds: int
    """Of ``series``."""
    series: tuple[StatisticsPoint, ...]
    """Oldest first; the last step is under way."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            counted_at=time_of(body["counted_at"]),
            lag_seconds=body["lag_seconds"],
            per_second=body["per_second"],
            last_hour=body["last_hour"],
            events=body["events"],
            oldest_due_seconds=body["oldest_due"]["seconds"],
            is_at_most=body["oldest_due"]["is_at_most"],
            step_seconds=body["window"]["step_seconds"],
            series=tuple(map(StatisticsPoint.read, body["window"]["series"])),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds that half and 95 % of the times did not exceed; ``None`` where nothing was measured."""

    p50_ms: float | None
    p95_ms: float | None

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["p50_ms"], body["p95_ms"])


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """Attempts of one handler, of one event type where no handler ran, or of all others together."""

    kind: str
    """``handler``, ``type`` or ``other``."""
    name: str | None
    """Of the handler or type; ``None`` for the others."""
    processed: int
    failed: int
    """Attempts that another one follows."""
    dead: int
    lost: int
    """Attempts whose worker was lost."""
    per_second: float
    """Attempts, over the window."""
    run: Times
    """How long the handler ran."""
    wait: Times
    """From when the event was due to its claim."""
    end_to_end: Times
    """From when the event was accepted until it was processed."""
    last_seen_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """As the API sent it."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            kind=body["kind"],
            name=body["name"],
            processed=body["processed"],
            failed=body["failed"],
            dead=body["dead"],
            lost=body["lost"],
            per_second=body["per_second"],
            run=Times.read(body["run"]),
            wait=Times.read(body["wait"]),
            end_to_end=Times.read(body["end_to_end"]),
            last_seen_at=optional_time(body["last_seen_at"]),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class UnservedType:
    """A type for which events wait, since no processor that met them serves it."""

    type: str
    events: int
    is_at_least: bool
    """There may be more than ``events``."""
    oldest_seconds: float
    is_served: bool
    """A processor has said within the last minute that it serves the type."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(body["type"], body["events"], body["is_at_least"], body["oldest_seconds"], body["is_served"])


@dataclass(frozen=True, slots=True)
class DeclaredHandler:
    """A handler as the processors that run declare it."""

    name: str
    priority: int
    pool: str
    limit: Mapping[str, Any] | None = field(hash=False)
    """``count`` and ``key``."""
    rate: Mapping[str, Any] | None = field(hash=False)
    """``count``, ``per`` (seconds) and ``key``."""
    running: int | None
    """Events that run under its limit, of all tenants; ``None`` without one."""
    waiting: int | None
    """Events in its lines, of all tenants; at least so many if ``is_at_least``."""
    is_at_least: bool
    is_paused: bool
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """As the API sent it, with the pause."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            body["name"], body["priority"], body["pool"], body["limit"], body["rate"], body["running"], body["waiting"],
            body["is_at_least"], body["pause"] is not None, body,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Handlers:
    """Handlers, the busiest first, and the types that nobody serves.

    ``declared``: by name; empty for keys without the scope operate, and of a service of an earlier release.
    """

    items: tuple[HandlerStatistics, ...]
    unserved: tuple[UnservedType, ...]
    declared: tuple[DeclaredHandler, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            tuple(map(HandlerStatistics.read, body["items"])),
            tuple(map(UnservedType.read, body["unserved"])),
            tuple(map(DeclaredHandler.read, body.get("declared", ()))),
            body,
        )
