"""Events that a handler makes: checked where it makes them, recorded in the transaction in which its event is processed."""

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from holdfast.domain.attributes import DELIVER_AT, KNOWN, attribute_faults, extensions_of
from holdfast.domain.data import json_text
from holdfast.domain.event import NewEvent, NewGroup, StoredEvent
from holdfast.domain.moment import moment_text
from holdfast.runtime.ids import uuid7

__all__ = ["MAX_EMITTED", "MAX_EMITTED_BYTES", "Emitter"]

MAX_EMITTED = 1000
"""Events of one attempt. More belong into several: emit one that emits the rest."""

MAX_EMITTED_BYTES = 4 * 1024 * 1024
"""Data of all events of one attempt: they are recorded by one statement."""


class Emitter:
    """Collects the events that one attempt makes, from any number of threads.

    Each belongs to the tenant of its parent, and to its trace. Its source is ``/handlers/<name of the handler>``; its id is
    the key, or else the parent's id with the number of the event in its attempt: the same in each attempt.
    """

    def __init__(self, parent: StoredEvent, handler: str) -> None:
        self._parent = parent
        self._source = f"/handlers/{handler}"
        self._emitted: list[NewEvent] = []
        self._groups: list[NewGroup] = []
        self._bytes = 0
        self._is_over = False
        self._lock = threading.Lock()

    def emit(
        self, type_: str, data: Any, *, subject: str | None, audience: str | None, deliver_at: datetime | None,
        key: str | None, extensions: Mapping[str, Any], group_id: UUID | None = None,
    ) -> None:  # fmt: skip
        """See :meth:`Context.emit`."""
        text = json_text(data)
        with self._lock:
            if self._is_over:
                raise RuntimeError(
                    "the attempt is over, so nothing can be emitted any more: emit before the handler returns"
                )
            if len(self._emitted) == MAX_EMITTED:
                raise ValueError(
                    f"an attempt emits at most {MAX_EMITTED} events; emit one whose handler emits the rest"
                )
            self._bytes += len(text.encode()) if text is not None else 0
            if self._bytes > MAX_EMITTED_BYTES:
                raise ValueError(f"an attempt emits at most {MAX_EMITTED_BYTES} bytes of data; emit references to it")
            ce_id = f"{self._parent.id}:{len(self._emitted)}" if key is None else key
            attributes = self._attributes(type_, ce_id, subject, audience, deliver_at, extensions)
            self._emitted.append(self._event(attributes, text, deliver_at, group_id))

    def emit_group(
        self, members: Iterable[Mapping[str, Any]], then: tuple[str, Any], *, subject: str | None, audience: str | None
    ) -> None:
        """See :meth:`Context.emit_group`."""
        type_, data = then
        group_id, text = uuid7(), json_text(data)
        made = self._attributes(type_, str(group_id), subject, audience, None, {})
        for member in members:
            if "key" in member:
                raise TypeError(
                    "a member of a group has no key: it may be there already, in no group or in another one"
                )
            self.emit(group_id=group_id, **_arguments(member))
        parent = self._parent
        with self._lock:
            self._groups.append(
                NewGroup(
                    id=group_id, tenant=parent.tenant, parent_id=parent.id, type=made["type"], subject=subject,
                    audience=audience, data_json=text,
                )
            )  # fmt: skip

    def close(self) -> tuple[tuple[NewEvent, ...], tuple[NewGroup, ...]]:
        """What was emitted, and the groups of it; nothing more can be."""
        with self._lock:
            self._is_over = True
            return tuple(self._emitted), tuple(self._groups)

    def _attributes(
        self, type_: str, ce_id: str, subject: str | None, audience: str | None, deliver_at: datetime | None,
        extensions: Mapping[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        attributes = {
            "specversion": "1.0", "id": ce_id, "source": self._source, "type": type_, "subject": subject,
            "audience": audience, DELIVER_AT: moment_text(deliver_at), **extensions,
        }  # fmt: skip
        if taken := sorted(extensions.keys() & (KNOWN | {DELIVER_AT})):
            raise TypeError(f"ctx.emit() has no argument {taken[0]!r}: Holdfast sets that attribute itself")
        present = {name: value for name, value in attributes.items() if value is not None}
        if faults := [detail for _, _, detail in attribute_faults(present)]:
            raise ValueError(f"ctx.emit({type_!r}, …): {'; '.join(faults)}")
        return present

    def _event(
        self, attributes: dict[str, Any], text: str | None, deliver_at: datetime | None, group_id: UUID | None
    ) -> NewEvent:
        parent = self._parent
        return NewEvent(
            id=uuid7(),
            tenant=parent.tenant,
            source=attributes["source"],
            ce_id=attributes["id"],
            type=attributes["type"],
            subject=attributes.get("subject"),
            audience=attributes.get("audience"),
            datacontenttype=None if text is None else "application/json",
            extensions=extensions_of(attributes),
            data_json=text,
            parent_id=parent.id,
            deliver_at=deliver_at,
            group_id=group_id,
            origin=parent.origin._replace(request_id=None),  # found by its trace, and no request of its own
        )


def _arguments(member: Mapping[str, Any]) -> dict[str, Any]:
    """What ``emit`` takes, from a member of a group."""
    given = dict(member)
    if "type" not in given:
        raise TypeError("a member of a group is a mapping with 'type', and with what else ctx.emit() takes")
    known: dict[str, Any] = {"type_": given.pop("type"), "data": given.pop("data", None), "key": None}
    for name in ("subject", "audience", "deliver_at"):
        known[name] = given.pop(name, None)
    return known | {"extensions": given}
