"""Topics: the names under which updates are published, and who may subscribe to them.

``event:<uuid>``, ``audience:<value>`` and ``tenant:<id>``. Topics are scoped by tenant: ``audience:user-42`` of one
tenant and of another are two topics, told apart by the tenant that travels in the live token.
"""

from collections.abc import Iterable
from uuid import UUID

from holdfast.domain.errors import InvalidName, InvalidTopic
from holdfast.domain.names import check_name

__all__ = ["check_grant", "check_topic", "is_granted", "topics_of"]

_KINDS = ("event:", "audience:", "tenant:")


def topics_of(*, event_id: UUID, tenant: str, audience: str | None) -> list[str]:
    """Topics that an update of this event is published to, most specific first."""
    topics = [f"event:{event_id}"]
    if audience is not None:
        topics.append(f"audience:{audience}")
    return [*topics, f"tenant:{tenant}"]


def check_topic(text: str) -> str:
    """Return ``text`` if it names a topic. After its kind it is a name (``domain.names``) without ``*``.

    Raises:
        InvalidTopic: another kind, a value that is no name, or a wildcard.
    """
    kind, value = _split(text)
    if "*" in value:
        # In a grant a final '*' is a wildcard: an audience of that name would be a grant for other audiences too.
        raise InvalidTopic("a topic is one exact name without '*', which is the wildcard of grants")
    return f"event:{_uuid(value)}" if kind == "event:" else text


def check_grant(text: str) -> str:
    """Return ``text`` if it is a topic, or the start of one followed by a final ``*`` (``event:*``, ``audience:user-*``).

    Raises:
        InvalidTopic: neither.
    """
    if not text.endswith("*"):
        return check_topic(text)
    _, value = _split(text)
    if "*" in value[:-1]:
        raise InvalidTopic("a grant is a topic, or 'event:', 'audience:' or 'tenant:' with one final '*'")
    return text


def is_granted(topic: str, *, grants: Iterable[str], tenant: str) -> bool:
    """Whether a token of ``tenant`` with these grants may see ``topic``. Another tenant's ``tenant:`` topic never is."""
    if topic.startswith("tenant:") and topic != f"tenant:{tenant}":
        return False
    return any(topic.startswith(grant[:-1]) if grant.endswith("*") else topic == grant for grant in grants)


def _split(text: str) -> tuple[str, str]:
    """Kind (with its colon) and value, which is a name."""
    kind, colon, value = text.partition(":")
    if kind + colon not in _KINDS:
        raise InvalidTopic("a topic is 'event:<uuid>', 'audience:<value>' or 'tenant:<id>'")
    try:
        return kind + colon, check_name(value)
    except InvalidName as exc:
        raise InvalidTopic(f"the value after {kind}: is no name: {exc}") from exc


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise InvalidTopic("the topic 'event:<uuid>' takes the event's UUID") from exc
