"""The versions of events already yielded, so that nothing is yielded twice, or after something newer."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Versions", "id_of", "version_of"]

REMEMBERED_EVENTS = 10_000
"""Bounds the memory of a watch. An old update of a dropped event would be yielded again."""


class Versions:
    """The highest ``(version, step)`` of each of the 10,000 events that changed last."""

    def __init__(self) -> None:
        self._highest: dict[str, tuple[int, int]] = {}

    def is_news(self, event: Mapping[str, Any]) -> bool:
        """Whether this is newer than all that was passed in before for the same event. Remembers it."""
        event_id, version = id_of(event), version_of(event)
        if version <= self._highest.get(event_id, (0, -1)):
            return False
        # Reinserted at the end, so that the event that changed longest ago is dropped first.
        self._highest.pop(event_id, None)
        self._highest[event_id] = version
        if len(self._highest) > REMEMBERED_EVENTS:
            del self._highest[next(iter(self._highest))]
        return True


def id_of(event: Mapping[str, Any]) -> str:
    """The id of an update's event (``id``), or of one that the API lists (``event_id``)."""
    return str(event["id"] if "id" in event else event["event_id"])


def version_of(event: Mapping[str, Any]) -> tuple[int, int]:
    """``(version, step)`` of an update; step 0 for an event that the API lists, which has none."""
    return event["version"], event.get("step", 0)
