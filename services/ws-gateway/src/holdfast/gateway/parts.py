"""What a gateway process is made of."""

from dataclasses import dataclass

from holdfast.gateway.clients.clients import Clients
from holdfast.gateway.clients.gate import Gate
from holdfast.gateway.clients.origins import Origins
from holdfast.gateway.clients.session import Sessions
from holdfast.gateway.clients.tokens import TokenVerifier
from holdfast.gateway.protocol.frames import Limits
from holdfast.gateway.redis.revocation import RevocationWatch
from holdfast.gateway.redis.session_store import SessionStore
from holdfast.gateway.redis.source import Source
from holdfast.gateway.redis.tickets import Tickets
from holdfast.gateway.topics.hub import Hub
from holdfast.gateway.transports.sse import SseEndpoint
from holdfast.gateway.transports.websocket import LiveEndpoint
from holdfast.runtime.settings import GatewaySettings

__all__ = ["Parts", "parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The connection to Redis, what is kept of it here, and the ways in for clients."""

    source: Source
    hub: Hub
    sessions: Sessions
    revocations: RevocationWatch
    clients: Clients
    origins: Origins
    websocket: LiveEndpoint
    sse: SseEndpoint


def parts(settings: GatewaySettings, *, limits: Limits, linger_seconds: float) -> Parts:
    """Put them together; nothing connects or runs yet."""
    window_seconds = settings.live_window_seconds
    clients = Clients()
    source = Source(settings.redis_url.get_secret_value(), window_seconds=window_seconds)
    hub = Hub(
        source, limits, window_seconds=window_seconds, on_state=clients.announce, linger_seconds=linger_seconds
    )  # fmt: skip
    store = SessionStore(
        source.client, node=source.node, limits=limits, connections_per_subject=settings.connections_per_subject
    )
    sessions = Sessions(store, refresh_seconds=limits.session_refresh_s)
    origins = Origins(settings.allowed_origins)
    gate = Gate(
        hub=hub, clients=clients, sessions=sessions, limits=limits, node=settings.node_name, origins=origins,
        verifier=TokenVerifier(settings.live_token_secret.get_secret_value(), settings.live_token_keys),
    )  # fmt: skip
    return Parts(
        source, hub, sessions, RevocationWatch(source.client), clients, origins, LiveEndpoint(gate),
        SseEndpoint(gate, Tickets(source.client)),
    )  # fmt: skip
