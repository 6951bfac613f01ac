"""How long events are kept, and erasing what has a subject, or everything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from holdfast.client.answers import optional_time, read, time_of
from holdfast.client.requests import JSON, Requests

__all__ = ["Erasure", "Keeping", "Retention"]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events that ended in a state are kept."""

    state: str
    has_rule: bool
    """Whether the tenant has a rule of its own; otherwise it goes by the deployment's default."""
    rule_days: int | None
    """What the rule says; ``None``: for ever, or there is no rule."""
    days_in_force: int | None
    """What maintenance went by at its last turn; ``None``: nothing goes."""
    dropped: int
    """Events that went until now."""
    last_walk_at: datetime | None
    """When maintenance last was through with all of them."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        rule = body["rule"]
        return cls(
            state=body["state"],
            has_rule=rule is not None,
            rule_days=None if rule is None else rule["days"],
            days_in_force=body["days_in_force"],
            dropped=body["dropped"],
            last_walk_at=optional_time(body["last_walk_at"]),
            raw=body,
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure, and how far it is."""

    id: str
    state: str
    """``running`` or ``done``."""
    erased: int
    waiting: int
    """Events that could not go yet: their identity settles, or a worker has them."""
    remains: Mapping[str, Any] | None
    """At the end: ``newer_events``, and ``schedules`` that make more of them."""
    is_everything: bool
    """Whether it is of all that the tenant has."""
    subject_sha256: str | None
    """``None`` where it is of everything."""
    created_at: datetime
    finished_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            id=body["erasure_id"],
            state=body["state"],
            erased=body["erased"],
            waiting=body["waiting"],
            remains=body["remains"],
            is_everything=body.get("everything", False),
            subject_sha256=body["subject_sha256"],
            created_at=time_of(body["created_at"]),
            finished_at=optional_time(body["finished_at"]),
            raw=body,
        )


class Keeping(Requests):
    """The part of :class:`~holdfast.client.Client` that says how long events are kept. Needs the scope ``admin``; looking at
    retention needs ``operate``.

    All methods raise ``ApiProblem`` and ``Unreachable``.
    """

    def retention(self) -> list[Retention]:
        """How long events are kept, for each state in which they end."""
        return read(self._request("GET", "/v1/retention"), _retention)

    def put_retention(self, state: str, days: int | None) -> list[Retention]:
        """Keep events that ended in a state for so many days, or for ever; returns what is in force then."""
        answer = self._request("PUT", _rule(state), body={"days": days}, content_type=JSON)
        return read(answer, _retention)

    def delete_retention(self, state: str) -> list[Retention]:
        """Go by the deployment's default again; returns what is in force then."""
        return read(self._request("DELETE", _rule(state)), _retention)

    def erase(self, subject: str) -> Erasure:
        """Begin to erase what the tenant has of a subject; once, however often the request is sent."""
        return read(self._act("/v1/erasures", {"subject": subject}), Erasure.read)

    def erase_everything(self) -> Erasure:
        """Begin to erase all events that the tenant has; once, however often the request is sent."""
        return read(self._act("/v1/erasures", {"everything": True}), Erasure.read)

    def erasure(self, erasure_id: str) -> Erasure:
        """How far an erasure is."""
        return read(self._request("GET", f"/v1/erasures/{quote(erasure_id, safe='')}"), Erasure.read)

    def erasures(self, *, limit: int | None = None) -> Iterator[Erasure]:
        """Erasures, newest first, at most ``limit``; each page is requested when the iterator reaches it."""
        return self._pages("/v1/erasures", {}, Erasure.read, limit)


def _retention(body: Any) -> list[Retention]:
    return list(map(Retention.read, body["items"]))


def _rule(state: str) -> str:
    return f"/v1/retention/{quote(state, safe='')}"
