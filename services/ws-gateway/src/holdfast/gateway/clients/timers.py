"""The clocks of one connection: is the client still there, is its token still good, is it asking too much."""

import asyncio
import random
import time
from typing import Protocol

from holdfast.gateway.clients.connection import Connection
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Frame
from holdfast.gateway.protocol.frames import Error, Limits, Ping

__all__ = ["Allowance", "Heart", "LifeSign", "Pulse", "TokenClock"]

_PING = Frame.of(Ping())


class LifeSign(Protocol):
    """Keeps the connection from looking dead: :class:`Heart`, :class:`Pulse`."""

    def start(self) -> None:
        """Begin."""

    def pong(self) -> None:
        """The client answered."""

    def stop(self) -> None:
        """No more signs."""


class Heart:
    """Pings the client, and ends the connection (4003) when it does not answer.

    Frames of the protocol and not WebSocket's own pings: browsers answer those by themselves, even while the page's script
    hangs, and no script can see one to notice that the gateway is gone.
    """

    __slots__ = ("_connection", "_limits", "_timer")

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the first ping comes somewhere within the interval, so that a herd of clients is not pinged at once."""
        self._schedule(self._limits.ping_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)

    def pong(self) -> None:
        """The client answered."""
        self._schedule(self._limits.ping_s)

    def stop(self) -> None:
        """No more pings."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, delay_seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._ping)

    def _ping(self) -> None:
        self._connection.enqueue(_PING)
        self._timer = asyncio.get_running_loop().call_later(self._limits.pong_s, self._give_up)

    def _give_up(self) -> None:
        self._connection.close(CloseCode.NO_PONG, f"no pong within {self._limits.pong_s:g} s of a ping")


class Pulse:
    """Sends a sign of life at intervals to a client that cannot answer: one that is gone fails to be written to."""

    __slots__ = ("_connection", "_interval_seconds", "_timer")

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._interval_seconds = limits.sse_ping_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._timer = asyncio.get_running_loop().call_later(self._interval_seconds, self._beat)

    def pong(self) -> None:
        """Never comes."""

    def stop(self) -> None:
        """No more signs."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._connection.enqueue(_PING)
        self.start()


class TokenClock:
    """Tells the client that its token has expired, and ends the connection (4004) when no fresh one comes."""

    __slots__ = ("_connection", "_limits", "_timer", "is_expired")

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self.is_expired = False

    def set(self, exp: float) -> None:
        """A token that expires at ``exp`` (seconds since 1970) has been accepted."""
        self.stop()
        self.is_expired = False
        self._timer = asyncio.get_running_loop().call_later(max(0.0, exp - time.time()), self._expire)

    def stop(self) -> None:
        """Forget the token."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.is_expired = True
        grace = self._limits.token_grace_s
        message = f"the token has expired; send a new one in a token frame within {grace:g} s"
        self._connection.send(Error(code="token_expired", message=message, temporary=True, retry_ms=0))
        self._timer = asyncio.get_running_loop().call_later(grace, self._give_up)

    def _give_up(self) -> None:
        self._connection.close(CloseCode.TOKEN_EXPIRED, "the token has expired; connect again with a new one")


class Allowance:
    """A token bucket: ``rate`` a second, and ``burst`` at once (as many unless said otherwise) after a quiet while."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: int, *, burst: int | None = None) -> None:
        self._rate = rate
        self._burst = float(rate if burst is None else burst)
        self._left = self._burst
        self._at = time.monotonic()

    def take(self) -> bool:
        """Use one; ``False`` when none is left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
