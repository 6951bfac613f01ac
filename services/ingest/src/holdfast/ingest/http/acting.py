"""On whose behalf a request changes something: the one place that makes an :class:`Actor` of a request."""

from flask import g, request

from holdfast.ingest.http.auth import require
from holdfast.ingest.http.origin import origin_of
from holdfast.ingest.http.parts import parts
from holdfast.storage.audit import Actor
from holdfast.storage.keys import KeyHolder

__all__ = ["acting", "actor_named", "actor_of", "sender"]


def acting(scope: str) -> Actor:
    """Who acts, with a key that must have ``scope``.

    Raises:
        Problem: 401 or 403.
    """
    return actor_of(require(scope))


def actor_of(holder: KeyHolder) -> Actor:
    """Who acts in the current request, if it is this holder's."""
    return actor_named(holder.tenant, holder.key_id, holder.name)


def actor_named(tenant: str, actor_id: str, name: str | None) -> Actor:
    """Who acts in the current request, if it is that of whom these name."""
    return Actor(tenant, actor_id, name, sender(), g.request_id)


def sender() -> str:
    """The address that sent the current request: behind proxies that are trusted, the one they name."""
    return origin_of(
        request.environ.get("REMOTE_ADDR", ""),
        request.environ.get("HTTP_X_FORWARDED_FOR"),
        parts().settings.trusted_proxies,
    )
