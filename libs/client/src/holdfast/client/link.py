"""One WebSocket connection to a gateway, from the handshake to its close."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from holdfast.client.errors import TEMPORARY, LiveClosed, Unreachable
from holdfast.client.retry import MAX_RETRY_AFTER_SECONDS, retry_after_seconds

__all__ = ["Link", "Lost"]

TERMINAL = 4500
"""Close codes from this one on mean: do not reconnect."""

MAX_FRAME_BYTES = 256 * 1024
QUEUED_FRAMES = 256
"""Frames read ahead of a busy caller. When this many wait, reading stops, and the gateway sees a slow client."""

WELCOME_SECONDS = 20.0
"""Longest silence before the gateway's welcome, which has its ping interval."""
PONG_SECONDS = 15.0
"""Silence beyond the ping interval after which the connection counts as dead."""

NOT_A_GATEWAY = "the server there does not speak live.v1; is it the gateway's address, ws://…/v1/live?"


class Lost(Exception):
    """The connection was lost or could not be opened. Another one may succeed, at the earliest after ``delay_seconds``."""

    def __init__(self, reason: str, *, delay_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.delay_seconds = min(delay_seconds, MAX_RETRY_AFTER_SECONDS)


class Link:
    """A connection on which the hello has been sent. Its own task reads it, so pings are answered while the caller is busy.

    Create it with :meth:`open`; leaving the ``async with`` block closes it.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._silence_seconds = WELCOME_SECONDS
        self._delay_seconds = 0.0
        self._frames: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue(QUEUED_FRAMES)
        self._reader = asyncio.create_task(self._read(), name="live reader")

    @classmethod
    async def open(cls, live_url: str, opening: Iterable[str]) -> Self:
        """Connect and send the opening frames: the hello, then any subscribes.

        Raises:
            Lost: the gateway cannot be reached now.
            Unreachable: the address, its certificate, or the server there is wrong.
        """
        try:
            socket = await connect(
                live_url, max_size=MAX_FRAME_BYTES, compression=None, ping_interval=None, close_timeout=2, proxy=None
            )
            for frame in opening:
                await socket.send(frame)
        except (ssl.SSLCertVerificationError, InvalidURI) as exc:
            raise Unreachable(f"{live_url} cannot be used: {exc}") from exc
        except InvalidStatus as exc:
            raise _refused(live_url, exc) from exc
        except (OSError, InvalidHandshake, ConnectionClosed) as exc:
            raise Lost(f"no connection to {live_url} ({exc or type(exc).__name__})") from exc
        return cls(socket)

    async def next(self) -> dict[str, Any]:
        """The next frame, except those that concern the connection only (ping, reconnect).

        Raises:
            Lost: closed by the gateway or by the network; connect again.
            LiveClosed: closed by the gateway for good.
            Unreachable: the server does not speak ``live.v1``.
        """
        frame = await self._frames.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(self._silence_seconds):
                    text = await self._socket.recv()
                await self._take(_parse(text))
        except ConnectionClosed as exc:
            await self._frames.put(self._ended(exc))
        except (KeyError, TypeError):
            await self._frames.put(Unreachable(NOT_A_GATEWAY))
        except TimeoutError:
            await self._frames.put(Lost(f"no frame for {self._silence_seconds:g} s"))
        except Exception as exc:  # noqa: BLE001 (next() raises it; without this it would wait forever)
            await self._frames.put(exc)

    async def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "ping":
            with contextlib.suppress(ConnectionClosed):  # frames received before the close must still be read
                await self._socket.send('{"type":"pong"}')
        elif frame["type"] == "reconnect":
            self._delay_seconds = frame["after_ms"] / 1000
        else:
            if frame["type"] == "welcome":
                self._silence_seconds = frame["ping_s"] + PONG_SECONDS
            await self._frames.put(frame)

    def _ended(self, exc: ConnectionClosed) -> Exception:
        code, reason = (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "connection lost")
        if code >= TERMINAL:
            return LiveClosed(code, reason)
        return Lost(f"{reason} ({code})", delay_seconds=self._delay_seconds)


def _refused(live_url: str, exc: InvalidStatus) -> Lost | Unreachable:
    status = exc.response.status_code
    if status in TEMPORARY or status >= 500:
        reason = f"{live_url} answers with HTTP {status}"
        return Lost(reason, delay_seconds=retry_after_seconds(exc.response.headers))
    return Unreachable(f"{live_url} answers with HTTP {status}; is it the gateway's address, ws://…/v1/live?")


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        frame = json.loads(text)
    except ValueError:
        frame = None
    if not isinstance(frame, dict) or "type" not in frame:
        raise Unreachable(NOT_A_GATEWAY)
    return frame
