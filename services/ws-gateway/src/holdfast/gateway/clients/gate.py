"""What every way in shares, whichever protocol comes through it."""

from dataclasses import dataclass

from holdfast.gateway.clients.clients import Clients
from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.conversation import Conversation
from holdfast.gateway.clients.origins import Origins
from holdfast.gateway.clients.session import Session, Sessions
from holdfast.gateway.clients.timers import LifeSign
from holdfast.gateway.clients.tokens import TokenVerifier
from holdfast.gateway.protocol.frames import Limits, Welcome, WelcomeLimits
from holdfast.gateway.topics.hub import Hub

__all__ = ["Gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The parts of this process that a client meets. ``node`` is told in ``welcome``."""

    hub: Hub
    clients: Clients
    sessions: Sessions
    verifier: TokenVerifier
    limits: Limits
    node: str
    origins: Origins

    @property
    def is_open(self) -> bool:
        """Whether new clients are taken: not while Redis is away, nor once the process is to end."""
        return not self.clients.is_draining and self.hub.is_reachable

    def welcome(self, session: Session) -> Welcome:
        """The frame that a client gets first."""
        limits = self.limits
        return Welcome(
            session=session.id,
            ttl_s=limits.session_ttl_s,
            ping_s=limits.ping_s,
            node=self.node,
            limits=WelcomeLimits(
                topics=limits.topics,
                frame_bytes=limits.frame_bytes,
                commands_per_s=limits.commands_per_s,
                replay=limits.replay,
            ),
        )

    def conversation(self, connection: Connection, session: Session, heart: LifeSign) -> Conversation:
        """What is then said."""
        return Conversation(
            connection,
            session,
            hub=self.hub,
            sessions=self.sessions,
            verifier=self.verifier,
            limits=self.limits,
            heart=heart,
        )
