"""Python client: send events over HTTP, watch them live over WebSocket.

::

    ClientError
    ├── ApiProblem        the API answered with an error (RFC 9457)
    ├── Unreachable       no answer from that address, or the address or key is malformed
    ├── WaitTimedOut      an event was not processed, dead or discarded in time
    └── LiveClosed        the gateway closed the connection for good (close codes from 4500)
"""

from importlib.metadata import version

from holdfast.client.audit import AuditEntry
from holdfast.client.errors import ApiProblem, ClientError, LiveClosed, Unreachable, WaitTimedOut
from holdfast.client.events import Accepted, Attempt, AttemptError, LastError, StoredEvent, TimelineEntry
from holdfast.client.follow import follow
from holdfast.client.frames import Gap, Status, Subscribed, UpdateReceived
from holdfast.client.http import Client, LiveToken, Sent
from holdfast.client.keys import ApiKey, NewApiKey
from holdfast.client.live import watch
from holdfast.client.made import EventGroup, Step
from holdfast.client.nodes import Node, NodeRun, NodeWorker, Waiting
from holdfast.client.pauses import Pause, Tenant
from holdfast.client.replays import DeadLetterGroup, DeadLetterSample, DiscardProgress, ReplayProgress
from holdfast.client.schedules import Schedule
from holdfast.client.statistics import (
    DeclaredHandler,
    Handlers,
    HandlerStatistics,
    Statistics,
    StatisticsPoint,
    Times,
    UnservedType,
)

__all__ = [
    "VERSION",
    "Accepted",
    "ApiKey",
    "ApiProblem",
    "Attempt",
    "AttemptError",
    "AuditEntry",
    "Client",
    "ClientError",
    "DeadLetterGroup",
    "DeadLetterSample",
    "DeclaredHandler",
    "DiscardProgress",
    "EventGroup",
    "Gap",
    "HandlerStatistics",
    "Handlers",
    "LastError",
    "LiveClosed",
    "LiveToken",
    "NewApiKey",
    "Node",
    "NodeRun",
    "NodeWorker",
    "Pause",
    "ReplayProgress",
    "Schedule",
    "Sent",
    "Statistics",
    "StatisticsPoint",
    "Status",
    "Step",
    "StoredEvent",
    "Subscribed",
    "Tenant",
    "TimelineEntry",
    "Times",
    "Unreachable",
    "UnservedType",
    "UpdateReceived",
    "WaitTimedOut",
    "Waiting",
    "follow",
    "watch",
]

VERSION = version("holdfast-client")
"""As ``holdfast --version`` prints it."""
