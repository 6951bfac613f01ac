"""Events that a handler makes: checked where it makes them, recorded in the transaction in which its event is processed."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from holdfast.domain.attributes import DELIVER_AT, HANDLER, KNOWN, attribute_faults, extensions_of
from holdfast.domain.data import json_text
from holdfast.domain.event import NewEvent, NewGroup, StoredEvent
from holdfast.domain.moment import moment_text
from holdfast.domain.window import UNIQUE_SECONDS, window_of
from holdfast.domain.window_options import Debounce, Unique, window_attributes
from holdfast.runtime.ids import uuid7

__all__ = ["MAX_EMITTED", "MAX_EMITTED_BYTES", "Emitter"]

MAX_EMITTED = 1000
"""Events of one attempt. More belong into several: emit one that emits the rest."""

MAX_EMITTED_BYTES = 4 * 1024 * 1024
"""Data of all events of one attempt: they are recorded by one statement."""


class _Wanted(NamedTuple):
    """An event that was checked. Its number, and with it its id, is known once it is taken."""

    attributes: Mapping[str, Any]
    text: str | None
    key: str | None
    deliver_at: datetime | None


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
        key: str | None, debounce: Debounce | None, unique: Unique | None, extensions: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """See :meth:`Context.emit`."""
        given = {**extensions, **window_attributes(debounce, unique, extensions)}
        self._add([self._wanted(type_, data, key, subject, audience, deliver_at, given)])

    def emit_group(
        self, members: Iterable[Mapping[str, Any]], then: tuple[str, Any], *, subject: str | None, audience: str | None
    ) -> None:
        """See :meth:`Context.emit_group`. A member that is none leaves nothing of the group."""
        if not isinstance(then, tuple | list) or len(then) != 2:
            raise TypeError(f"then is the type and the data of the event that follows, as a pair; not {then!r}")
        follows = self._wanted(*then, None, subject, audience, None, {})
        parent = self._parent
        group = NewGroup(
            id=uuid7(), tenant=parent.tenant, parent_id=parent.id, type=follows.attributes["type"], subject=subject,
            audience=audience, data_json=follows.text,
        )  # fmt: skip
        self._add([self._member(each) for each in members], group)

    def close(self) -> tuple[tuple[NewEvent, ...], tuple[NewGroup, ...]]:
        """What was emitted, and the groups of it; nothing more can be."""
        with self._lock:
            self._is_over = True
            return tuple(self._emitted), tuple(self._groups)

    def _add(self, wanted: Sequence[_Wanted], group: NewGroup | None = None) -> None:
        """Take all of them, or none."""
        size = sum(len(each.text.encode()) for each in wanted if each.text is not None)
        with self._lock:
            if self._is_over:
                raise RuntimeError(
                    "the attempt is over, so nothing can be emitted any more: emit before the handler returns"
                )
            if len(self._emitted) + len(wanted) > MAX_EMITTED:
                raise ValueError(
                    f"an attempt emits at most {MAX_EMITTED} events; emit one whose handler emits the rest"
                )
            if self._bytes + size > MAX_EMITTED_BYTES:
                raise ValueError(f"an attempt emits at most {MAX_EMITTED_BYTES} bytes of data; emit references to it")
            self._bytes += size
            for each in wanted:
                self._emitted.append(self._event(each, len(self._emitted), group))
            if group is not None:
                self._groups.append(group)

    def _member(self, member: Mapping[str, Any]) -> _Wanted:
        if not isinstance(member, Mapping) or "type" not in member:
            raise TypeError("a member of a group is a mapping with 'type', and with what else ctx.emit() takes")
        if "key" in member:
            raise TypeError("a member of a group has no key: it may be there already, in no group or in another one")
        if refused := [name for name in ("unique", UNIQUE_SECONDS) if member.get(name) is not None]:
            raise TypeError(f"a member of a group has no {refused[0]}: one that is not made would never end")
        given = {name: value for name, value in member.items() if name != "unique"}
        type_, data, subject, audience, deliver_at, debounce = (
            given.pop(name, None) for name in ("type", "data", "subject", "audience", "deliver_at", "debounce")
        )
        given |= window_attributes(debounce, None, given)
        return self._wanted(type_, data, None, subject, audience, deliver_at, given)

    def _wanted(
        self, type_: Any, data: Any, key: str | None, subject: str | None, audience: str | None,
        deliver_at: datetime | None, extensions: Mapping[str, Any],
    ) -> _Wanted:  # fmt: skip
        """An event that may be emitted.

        Raises:
            ValueError, TypeError: it may not; the message says why.
        """
        if taken := sorted(extensions.keys() & (KNOWN | {DELIVER_AT, HANDLER})):
            raise TypeError(f"ctx.emit() has no argument {taken[0]!r}: Holdfast sets that attribute itself")
        attributes = {
            "specversion": "1.0", "id": "made later" if key is None else key, "source": self._source, "type": type_,
            "subject": subject, "audience": audience,
            DELIVER_AT: None if deliver_at is None else moment_text(deliver_at), **extensions,
        }  # fmt: skip
        present = {name: value for name, value in attributes.items() if value is not None}
        if faults := [detail for _, _, detail in attribute_faults(present)]:
            raise ValueError(f"ctx.emit({type_!r}, …): {'; '.join(faults)}")
        return _Wanted(present, json_text(data), key, deliver_at)

    def _event(self, wanted: _Wanted, number: int, group: NewGroup | None) -> NewEvent:
        parent, attributes = self._parent, wanted.attributes
        return NewEvent(
            id=uuid7(),
            tenant=parent.tenant,
            source=self._source,
            ce_id=f"{parent.id}:{number}" if wanted.key is None else wanted.key,
            type=attributes["type"],
            subject=attributes.get("subject"),
            audience=attributes.get("audience"),
            datacontenttype=None if wanted.text is None else "application/json",
            extensions=extensions_of(attributes),
            data_json=wanted.text,
            parent_id=parent.id,
            deliver_at=wanted.deliver_at,
            group_id=group.id if group is not None else None,
            window=window_of(attributes),
            origin=parent.origin._replace(request_id=None),  # found by its trace, and no request of its own
        )
