"""What a handler's limits would count an event as, and how it would be queued."""

import json
from dataclasses import dataclass
from typing import Any

from holdfast.domain.limits import Concurrency, Rate
from holdfast.processor.handlers.flow import DEFAULT_POOL
from holdfast.processor.testing.sample import sample_lease
from holdfast.processor.testing.trial import Subject, resolved

__all__ = ["Queued", "limit_key", "queued", "rate_key"]


@dataclass(frozen=True, slots=True)
class Queued:
    """How an event is queued: its ``priority``, and the ``pool`` of processors that take it."""

    priority: int
    pool: str


def limit_key(handler: Subject, payload: Any, *, name: str | None = None, **attributes: Any) -> str | None:
    """What the event counts as under the handler's ``limit``; ``None`` without one.

    Events with equal keys count together. Takes a handler, a payload and the event's attributes (``subject``, ``tenant``, …)
    as :func:`~holdfast.processor.testing.run` does; the tenant is ``test`` unless given.

    Raises:
        ConfigurationError: as :func:`~holdfast.processor.testing.run`.
    """
    return _key(resolved(handler, name).limit, handler, payload, name, attributes)


def rate_key(handler: Subject, payload: Any, *, name: str | None = None, **attributes: Any) -> str | None:
    """As :func:`limit_key`, of the handler's ``rate``."""
    return _key(resolved(handler, name).rate, handler, payload, name, attributes)


def queued(handler: Subject, *, name: str | None = None) -> Queued:
    """How an event for the handler is queued that names no priority itself."""
    flow = resolved(handler, name).flow
    return Queued(flow.priority, flow.pool or DEFAULT_POOL)


def _key(
    limit: Concurrency | Rate | None, subject: Subject, payload: Any, name: str | None, attributes: dict[str, Any]
) -> str | None:
    if limit is None:
        return None
    handler = resolved(subject, name)
    event = sample_lease(handler, payload, None, attributes, 1).event
    # As a claim reads it: from what a producer would have sent, not from the object that the test has made.
    sent = json.loads(event.content) if event.is_json and event.content is not None else None
    return limit.line(handler.name, event.tenant, event.subject, sent)
