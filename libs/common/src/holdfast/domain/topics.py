"""Topics: the names under which updates are published, and who may subscribe to them.

``event:<uuid>``, ``audience:<value>`` and ``tenant:<id>``. Topics are scoped by tenant: ``audience:user-42`` of one
tenant and of another are two topics, told apart by the tenant that travels in the live token.
"""

from collections.abc import Iterable
from uuid import UUID

from holdfast.domain.errors import InvalidTopic

__all__ = ["MAX_TOPIC_LENGTH", "check_topic", "check_grant", "is_granted", "topics_of"]

MAX_TOPIC_LENGTH = 200
"""Characters. Bounds the Redis key and channel names that a client can cause."""

_KINDS = ("event:", "audience:", "tenant:")


def topics_of(*, event_id: UUID, tenant: str, audience: str | None) -> list[str]:
    """Topics that an update of this event is published to, most specific first."""
    topics = [f"event:{event_id}"]
    if audience is not None:
        topics.append(f"audience:{audience}")
    return [*topics, f"tenant:{tenant}"]


def check_topic(text: str) -> str:
    """Return ``text`` if it names a topic.

    Raises:
        InvalidTopic: another kind, an empty or over-long name, control characters, or a wildcard.
    """
    kind, _, value = text.partition(":")
    if f"{kind}:" not in _KINDS or not value:
        raise InvalidTopic("a topic is 'event:<uuid>', 'audience:<value>' or 'tenant:<id>'")
    if len(text) > MAX_TOPIC_LENGTH:
        raise InvalidTopic(f"a topic has at most {MAX_TOPIC_LENGTH} characters")
    if "*" in value or not text.isprintable():
        raise InvalidTopic("a topic is one exact name: no '*' and no control characters")
    return f"event:{_uuid(value)}" if kind == "event" else text


def check_grant(text: str) -> str:
    """Return ``text`` if it is a topic, or the start of one followed by a final ``*`` (``event:*``, ``audience:user-*``).

    Raises:
        InvalidTopic: neither.
    """
    if not text.endswith("*"):
        return check_topic(text)
    stem = text[:-1]
    if not stem.startswith(_KINDS) or len(text) > MAX_TOPIC_LENGTH or "*" in stem or not stem.isprintable():
        raise InvalidTopic("a grant is a topic, or 'event:', 'audience:' or 'tenant:' with a final '*'")
    return text


def is_granted(topic: str, *, grants: Iterable[str], tenant: str) -> bool:
    """Whether a token of ``tenant`` with these grants may see ``topic``. Another tenant's ``tenant:`` topic never is."""
    if topic.startswith("tenant:") and topic != f"tenant:{tenant}":
        return False
    return any(topic.startswith(grant[:-1]) if grant.endswith("*") else topic == grant for grant in grants)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise InvalidTopic("the topic 'event:<uuid>' takes the event's UUID") from exc
