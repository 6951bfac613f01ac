"""What has been told of each event, so that nothing is told twice and nothing older after something newer."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Versions", "id_of", "told_by"]

REMEMBERED_EVENTS = 10_000


class Versions:
    """The highest ``(version, step)`` of each of the events that moved last."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}

    def is_news(self, event: Mapping[str, Any]) -> bool:
        """Whether this tells more about the event than has been told before; from now on it has been."""
        event_id, tells = id_of(event), told_by(event)
        if tells <= self._told.get(event_id, (0, -1)):
            return False
        self._told.pop(event_id, None)  # so that the order is that of the last moves
        self._told[event_id] = tells
        if len(self._told) > REMEMBERED_EVENTS:
            del self._told[next(iter(self._told))]
        return True


def id_of(event: Mapping[str, Any]) -> str:
    """The id of an update's event (``id``), or of one that the API lists (``event_id``)."""
    return str(event["id"] if "id" in event else event["event_id"])


def told_by(event: Mapping[str, Any]) -> tuple[int, int]:
    """How far along the event is; what is stored has no step."""
    return event["version"], event.get("step", 0)
