"""Python client: send events over HTTP, watch them live over WebSocket.

::

    ClientError
    ├── ApiProblem        the API answered with an error (RFC 9457)
    ├── Unreachable       nobody answers at that address, or nobody ever could
    ├── WaitTimedOut      an event was not settled in time
    └── LiveClosed        the gateway closed the connection for good (close codes from 4500 on)
"""

from importlib.metadata import version

from holdfast.client.errors import ApiProblem, ClientError, LiveClosed, Unreachable, WaitTimedOut
from holdfast.client.follow import follow
from holdfast.client.frames import Gap, Status, Subscribed, UpdateReceived
from holdfast.client.http import Client, LiveToken, Sent
from holdfast.client.live import watch

__all__ = [
    "ApiProblem",
    "Client",
    "ClientError",
    "Gap",
    "LiveClosed",
    "LiveToken",
    "Sent",
    "Status",
    "Subscribed",
    "Unreachable",
    "UpdateReceived",
    "WaitTimedOut",
    "follow",
    "watch",
]

VERSION = version("holdfast-client")
"""As ``holdfast --version`` prints it."""
