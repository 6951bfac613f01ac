"""The frames of ``live.v1`` and its limits.

The models are the protocol's single definition: inbound frames are validated by them, outbound ones made from them, and the
contract tests hold what is sent and understood against :data:`CLIENT_FRAMES` and :data:`SERVER_FRAMES`. The one exception is
``update``, the hot path: its bytes are put together around a body that is never parsed (``codec``), and a test holds them
against :class:`Update`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.domain.position import GapReason
from holdfast.messaging.contracts import UpdateV1

__all__ = [
    "CLIENT_FRAMES",
    "Close",
    "LIMITS",
    "SERVER_FRAMES",
    "SSE_FRAMES",
    "VERSION",
    "ClientFrame",
    "ClientPing",
    "Error",
    "Gap",
    "Hello",
    "Limits",
    "Ping",
    "Pong",
    "Reconnect",
    "RequestId",
    "ServerFrame",
    "ServerPong",
    "Status",
    "Subscribe",
    "Subscribed",
    "Token",
    "TopicSince",
    "Unsubscribe",
    "Update",
    "Welcome",
    "WelcomeLimits",
]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The protocol's limits. Constants; only tests that cannot wait make others."""

    frame_bytes: int = 8 * 1024
    """Longest inbound frame: a ``subscribe`` of 128 topics at a usual length, or a ``hello`` with their positions. Above
    ``contracts.MAX_TOKEN_BYTES`` by 2 KiB, so that whatever is minted fits into a ``hello``."""
    topics: int = 128
    """Topics of one connection."""
    sse_topics: int = 16
    """Topics of one event stream, whose every event has an id with all their positions."""
    commands_per_s: int = 20
    """Inbound messages a second, and as many in one burst."""
    wire_frames_per_s: int = 100
    """WebSocket frames of any kind a second, and as many in one burst: pings, pongs and parts of a message among them."""
    fragments: int = 64
    """Frames that one message may come in."""
    joins_per_s: int = 64
    """Topics joined a second by one connection, and four times as many in one burst: each costs Redis a reading."""
    head_s: float = 10.0
    """From the connection, or from the answer before, to the end of a request's head."""
    body_s: float = 10.0
    """From the end of a request's head to the end of its body."""
    replay: int = 500
    """Most updates replayed in one topic; beyond it reading the current state is cheaper for both sides."""
    queue_bytes: int = 1024 * 1024
    """Outbound bytes waiting for one connection. Times the number of connections, this is the gateway's worst memory."""
    queue_frames: int = 1000
    hello_s: float = 5.0
    ping_s: float = 25.0
    """Below the 30 s after which the first proxies and phone networks forget a silent connection."""
    pong_s: float = 8.0
    sse_ping_s: float = 15.0
    token_grace_s: float = 25.0
    """From a token's expiry to the close, for a client that refreshes when it is told."""
    session_ttl_s: int = 600
    """How long a session outlives its last connection; as long as the window by default."""
    session_refresh_s: float = 20.0
    """Between two writes of an open connection's session."""
    gap_jitter_ms: int = 2000
    """Clients of one topic learn of a gap in the same instant; they spread their refetches over this long."""


LIMITS = Limits()

RequestId = Annotated[int, Field(ge=0, le=2**53 - 1)] | Annotated[str, Field(min_length=1, max_length=64)]
"""Chosen by the client and returned in the answer; JavaScript's safe integers, or a short text."""
PositionText = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}:(0|[1-9][0-9]{0,15})$")]
TopicText = Annotated[str, Field(min_length=1, max_length=1024)]
"""Checked by ``domain.topics``, whose refusal is an ``error`` frame and not the end of the connection."""


class _Frame(BaseModel):
    # Unknown fields are ignored: a newer peer may say more than this version knows.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ClientFrame(_Frame):
    """A frame that clients send."""


class ServerFrame(_Frame):
    """A frame that the gateway sends."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out when they are ``None``; any other ``None`` travels as ``null``."""

    @property
    def kind(self) -> str:
        """The frame's ``type``."""
        return str(type(self).model_fields["type"].default)

    def encode(self) -> bytes:
        """Compact JSON."""
        absent = {name for name in self.OPTIONAL if getattr(self, name) is None}
        return self.model_dump_json(exclude=absent).encode()


class Hello(ClientFrame):
    """The first frame: who is there, and where it stopped. Positions count for the topics named beside them."""

    type: Literal["hello"] = "hello"
    v: Literal[1]
    token: str
    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Of an earlier ``welcome``: its topics come back by themselves, and its other connection is closed (4503)."""
    attempt: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """Rises with each connection of the session. A ``hello`` that was held up on its way while its client has connected again
    has a lower one: it is closed (4503), and not the newer connection.
    """
    topics: list[TopicText] = Field(default_factory=list)
    positions: dict[TopicText, PositionText] = Field(default_factory=dict)


class TopicSince(_Frame):
    """A topic, and the position after which its updates are wanted; without one, from now on."""

    topic: TopicText
    since: PositionText | None = None


class Subscribe(ClientFrame):
    """Answered by one ``subscribed`` or ``error`` for each topic."""

    type: Literal["subscribe"] = "subscribe"
    id: RequestId
    topics: list[TopicSince] = Field(min_length=1)


class Unsubscribe(ClientFrame):
    """No answer; updates under way may still arrive."""

    type: Literal["unsubscribe"] = "unsubscribe"
    id: RequestId
    topics: list[TopicText] = Field(min_length=1)


class Token(ClientFrame):
    """A fresh token for the same subject. Topics that it does not grant any more end with an ``error``."""

    type: Literal["token"] = "token"
    id: RequestId
    token: str


class Pong(ClientFrame):
    """The answer to ``ping``."""

    type: Literal["pong"] = "pong"


class ClientPing(ClientFrame):
    """Is this connection still good? Answered by ``pong`` at once. Only where ``welcome`` says ``answers_ping``."""

    type: Literal["ping"] = "ping"


class WelcomeLimits(_Frame):
    """What the client has to keep to."""

    topics: int
    frame_bytes: int
    commands_per_s: int
    replay: int


class Welcome(ServerFrame):
    """The ``hello`` was accepted."""

    type: Literal["welcome"] = "welcome"
    session: str
    """Another one than was asked for: that one has expired, and only what the ``hello`` named is subscribed."""
    ttl_s: int
    ping_s: float
    """A client that hears nothing for this long and the time to answer may take the connection for dead."""
    node: str
    limits: WelcomeLimits
    answers_ping: bool = True
    """Clients may send ``ping``. A gateway that does not say so takes it for an unknown frame."""


class Update(ServerFrame):
    """One update of one topic. ``pos`` is where the client stands once it has taken it in."""

    type: Literal["update"] = "update"
    topic: str
    pos: PositionText
    event: UpdateV1


class Subscribed(ServerFrame):
    """The topic is live; whatever was replayed came before this frame."""

    OPTIONAL = frozenset({"id"})

    type: Literal["subscribed"] = "subscribed"
    id: RequestId | None = None
    """Absent when the topic came with the ``hello``."""
    topic: str
    pos: PositionText
    recovered: bool | None
    """True: nothing was missed. False: a ``gap`` came before. Null: there was no position to resume from."""


class Gap(ServerFrame):
    """Updates before ``pos`` were missed and cannot be given. Nothing of them is replayed, never a part."""

    type: Literal["gap"] = "gap"
    topic: str
    reason: GapReason
    pos: PositionText
    refetch: bool = True
    """Read the current state again."""
    jitter_ms: int
    """…after a random time up to this."""


class Ping(ServerFrame):
    """To be answered by ``pong``."""

    type: Literal["ping"] = "ping"


class ServerPong(ServerFrame):
    """The answer to a client's ``ping``."""

    type: Literal["pong"] = "pong"


class Status(ServerFrame):
    """``degraded``: updates are late, the connection stays and nothing is lost. ``ok``: caught up again."""

    type: Literal["status"] = "status"
    state: Literal["ok", "degraded"]


class Reconnect(ServerFrame):
    """The connection is about to be closed (4001). Connect again this long after the close."""

    type: Literal["reconnect"] = "reconnect"
    after_ms: int


class Error(ServerFrame):
    """A command, or a part of one, was refused. The connection and everything else on it goes on."""

    OPTIONAL = frozenset({"id"})

    type: Literal["error"] = "error"
    id: RequestId | None = None
    code: Literal["forbidden", "invalid_topic", "too_many_topics", "token_expired"]
    message: str
    temporary: bool
    """Whether the same command may succeed later."""
    retry_ms: int | None = None


class Close(ServerFrame):
    """Server-Sent Events only, where it stands for a WebSocket's close frame: the stream ends after it."""

    type: Literal["close"] = "close"
    code: int
    reason: str
    reconnect: bool
    """Whether to come back; for programs that do not know the codes."""


CLIENT_FRAMES: dict[str, type[ClientFrame]] = {
    "hello": Hello,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "token": Token,
    "pong": Pong,
    "ping": ClientPing,
}
SERVER_FRAMES: dict[str, type[ServerFrame]] = {
    "welcome": Welcome,
    "update": Update,
    "subscribed": Subscribed,
    "gap": Gap,
    "ping": Ping,
    "pong": ServerPong,
    "status": Status,
    "reconnect": Reconnect,
    "error": Error,
}
SSE_FRAMES: dict[str, type[ServerFrame]] = {name: frame for name, frame in SERVER_FRAMES.items() if name != "pong"} | {
    "close": Close
}
"""What Server-Sent Events carry; of these a ``ping`` is a comment."""
