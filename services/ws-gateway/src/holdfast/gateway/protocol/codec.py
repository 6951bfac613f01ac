"""Between bytes and frames: inbound text is validated, and an outbound update is framed once, not once per client."""

import json
from typing import Any

from pydantic import ValidationError

from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import CLIENT_FRAMES, VERSION, ClientFrame, ServerFrame

__all__ = ["Closing", "Frame", "parse_client_frame", "update_frame", "update_prefix"]

_FIN_TEXT = 0x81


class Closing(Exception):
    """Why a connection has to end. ``reason`` goes to the client and names the remedy."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame:
    """An outbound frame, encoded once however many clients get it.

    ``payload`` is its JSON; ``websocket`` is that with a WebSocket header (RFC 6455 section 5.2: one unmasked, final text
    frame), so that handing it to a connection is no more than a write, and ``size`` its length. ``kind`` is its type;
    ``topic`` and ``pos`` are empty where a frame has none.
    """

    __slots__ = ("kind", "payload", "pos", "size", "topic", "websocket")

    def __init__(self, payload: bytes, *, kind: str = "update", topic: str = "", pos: str = "") -> None:
        self.payload = payload
        self.websocket = _header(len(payload)) + payload
        self.size = len(self.websocket)
        self.kind = kind
        self.topic = topic
        self.pos = pos

    @classmethod
    def of(cls, frame: ServerFrame) -> "Frame":
        """Encode a model."""
        topic, pos = str(getattr(frame, "topic", "")), str(getattr(frame, "pos", ""))
        return cls(frame.encode(), kind=frame.kind, topic=topic, pos=pos)


def parse_client_frame(text: str | None, *, limit_bytes: int) -> ClientFrame:
    """Read one inbound frame; ``None`` is a binary one.

    Raises:
        Closing: it cannot be understood, and neither could what follows it.
    """
    if text is None:
        raise Closing(CloseCode.PROTOCOL, "frames are JSON in text, not binary")
    if len(text) > limit_bytes or (len(text) * 4 > limit_bytes and len(text.encode()) > limit_bytes):
        raise Closing(CloseCode.PROTOCOL, f"a frame has at most {limit_bytes} bytes; split it into several")
    frame = _json_object(text)
    kind = frame.get("type")
    if kind == "hello":
        _check_hello(frame)
    model = CLIENT_FRAMES.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise Closing(CloseCode.PROTOCOL, "unknown frame type; this is live.v1")
    try:
        # The text and not the dict: in strict mode JSON's own types are the ones to hold it against.
        return model.model_validate_json(text)
    except ValidationError as exc:
        raise Closing(CloseCode.PROTOCOL, _first_problem(kind, exc)) from None


def update_prefix(topic: str) -> bytes:
    """Everything of an ``update`` frame up to its position: the same for all updates of a topic."""
    return b'{"type":"update","topic":' + json.dumps(topic, ensure_ascii=False).encode() + b',"pos":"'


def update_frame(prefix: bytes, epoch: str, offset: int, body: bytes, *, topic: str = "") -> Frame:
    """An ``update`` around a body that stays unparsed: its publisher is one of ours and held to its contract."""
    pos = f"{epoch}:{offset}"
    return Frame(b'%b%b","event":%b}' % (prefix, pos.encode(), body), topic=topic, pos=pos)


def _json_object(text: str) -> dict[str, Any]:
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        raise Closing(CloseCode.PROTOCOL, "a frame is one JSON object") from None
    if not isinstance(frame, dict):
        raise Closing(CloseCode.PROTOCOL, "a frame is one JSON object")
    return frame


def _check_hello(frame: dict[str, Any]) -> None:
    # Before the model: a later version's hello may look different, and its sender must be told of the version, not the shape.
    version = frame.get("v")
    if version != VERSION or not isinstance(version, int) or isinstance(version, bool):
        raise Closing(CloseCode.VERSION, f"this gateway speaks version {VERSION}")
    if not isinstance(frame.get("token"), str):
        raise Closing(CloseCode.BAD_TOKEN, "a hello carries a live token; get one from POST /v1/tokens")


def _first_problem(kind: object, exc: ValidationError) -> str:
    problem = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    # A close reason has at most 123 bytes, and must not repeat what was sent.
    where = ".".join(str(part) for part in problem["loc"][:1])
    return f"{kind}.{where}: {problem['type']}"[:120]


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((_FIN_TEXT, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
