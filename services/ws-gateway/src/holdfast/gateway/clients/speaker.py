"""A client after its ``hello``: told what it says and when it is gone, by whatever carries its connection."""

from collections.abc import Callable

from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.clients.conversation import Conversation
from holdfast.gateway.clients.gate import Gate
from holdfast.gateway.clients.session import Session
from holdfast.gateway.clients.timers import Allowance
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing, parse_client_frame
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Speaker"]

log = logging.get(__name__)


class Speaker:
    """Acts on what a client says; whatever goes wrong becomes the close code of its connection. It never waits."""

    __slots__ = ("_allowance", "_connection", "_conversation", "_gate", "_session")

    def __init__(self, gate: Gate, connection: Connection, session: Session, conversation: Conversation) -> None:
        self._gate = gate
        self._connection = connection
        self._session = session
        self._conversation = conversation
        self._allowance = Allowance(gate.limits.commands_per_s)

    def on_text(self, text: str | None) -> None:
        """One frame."""
        if self._connection.close_code is None:
            self.act(lambda: self._hear(text))

    def on_gone(self) -> None:
        """Leave everything, whichever side ended it."""
        self._conversation.stop()
        self._gate.sessions.close(self._session)
        self._gate.clients.leave(self._connection)

    def act(self, step: Callable[[], None]) -> None:
        """Do something for this client."""
        try:
            step()
        except Closing as closing:
            self._connection.close(closing.code, closing.reason)
        except Exception:
            log.exception(Log.CLIENT_FAILED)
            self._connection.close(CloseCode.INTERNAL, "internal error; connect again")

    def _hear(self, text: str | None) -> None:
        limits = self._gate.limits
        if not self._allowance.take():
            raise Closing(CloseCode.RATE, f"more than {limits.commands_per_s} frames a second")
        self._conversation.handle(parse_client_frame(text, limit_bytes=limits.frame_bytes))
