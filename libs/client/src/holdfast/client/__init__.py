"""Python client: send events over HTTP, watch them live over WebSocket.

::

    ClientError
    ├── ApiProblem        the API answered with an error (RFC 9457)
    ├── Unreachable       no answer from that address, or the address or key is malformed
    ├── WaitTimedOut      an event was not processed, dead or discarded in time
    └── LiveClosed        the gateway closed the connection for good (close codes from 4500)
"""

from importlib.metadata import version

from holdfast.client.errors import ApiProblem, ClientError, LiveClosed, Unreachable, WaitTimedOut
from holdfast.client.events import Accepted, Attempt, AttemptError, LastError, StoredEvent, TimelineEntry
from holdfast.client.follow import follow
from holdfast.client.frames import Gap, Status, Subscribed, UpdateReceived
from holdfast.client.http import Client, LiveToken, Sent
from holdfast.client.live import watch
from holdfast.client.replays import DeadLetterGroup, DeadLetterSample, ReplayProgress

__all__ = [
    "VERSION",
    "Accepted",
    "ApiProblem",
    "Attempt",
    "AttemptError",
    "Client",
    "ClientError",
    "DeadLetterGroup",
    "DeadLetterSample",
    "Gap",
    "LastError",
    "LiveClosed",
    "LiveToken",
    "ReplayProgress",
    "Sent",
    "Status",
    "StoredEvent",
    "Subscribed",
    "TimelineEntry",
    "Unreachable",
    "UpdateReceived",
    "WaitTimedOut",
    "follow",
    "watch",
]

VERSION = version("holdfast-client")
"""As ``holdfast --version`` prints it."""
