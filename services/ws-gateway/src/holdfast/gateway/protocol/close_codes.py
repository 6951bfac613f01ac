"""Every code with which the gateway closes a WebSocket, and who comes back.

One rule for clients: **below 4500 reconnect, from 4500 do not**; the cause of a terminal close lies with the client (its
frames, its token, its place taken), and trying again with the same would only end the same way.
"""

from enum import IntEnum

__all__ = ["CloseCode"]

FIRST_TERMINAL = 4500


class CloseCode(IntEnum):
    """A close code; its docstring is what happened and what the client does."""

    # The client reconnects, with its positions.
    INTERNAL = 4000
    """A bug in the gateway; it is in the log with its traceback."""
    DRAIN = 4001
    """This gateway is shutting down; another one answers after the ``reconnect`` frame's ``after_ms``."""
    SLOW_CONSUMER = 4002
    """The client read too slowly and its queue overflowed. It resumes from its positions; nothing is lost."""
    NO_PONG = 4003
    """A ``ping`` was not answered in time; most often a network that went away."""
    TOKEN_EXPIRED = 4004
    """The token has expired and was not refreshed in time, or does not count yet. The client gets a new one first."""
    RESYNC = 4005
    """The gateway found that it could not continue a topic without a hole. The client resumes from its positions."""
    RATE = 4006
    """Too many commands a second."""
    NO_HELLO = 4007
    """No ``hello`` in time."""
    UNAVAILABLE = 4008
    """Redis is away, so nothing could be promised; or nobody knows yet which tokens are revoked."""

    # The client stays away until something about it has changed.
    PROTOCOL = 4500
    """A frame that is no JSON, of unknown type or shape, or too long."""
    BAD_TOKEN = 4501
    """No token, or one that will never be valid here."""
    FORBIDDEN = 4502
    """A valid token in the wrong place: another browser origin, or a refresh for another subject."""
    TAKEN_OVER = 4503
    """The session was resumed on another connection."""
    TOO_MANY_CONNECTIONS = 4504
    """The subject has as many connections as it may."""
    VERSION = 4505
    """A protocol version that this gateway does not speak."""
    REVOKED = 4506
    """The token, or every token of its subject, was revoked."""

    @property
    def is_terminal(self) -> bool:
        """Whether a client must not come back by itself."""
        return self >= FIRST_TERMINAL
