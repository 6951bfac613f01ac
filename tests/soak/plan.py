"""The plan of a run: which fault strikes what and when. Drawn from a seed, so that a run can be repeated."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["KILLS", "Fault", "Kind", "Mix", "RANDOM", "draw_plan", "load_plan", "save_plan"]


class Kind(StrEnum):
    """What a fault does. ``seconds`` of a fault is how long it lasts, where it lasts."""

    KILL = "kill"
    """SIGKILL one process of a service: the first one, or any of its workers."""
    TERMINATE = "terminate"
    """SIGTERM a service, as a deployment does. Some of its handlers take longer than its grace and are interrupted."""
    TERMINATE_WORKER = "terminate-worker"
    """SIGTERM one worker process, also while handlers of it wait in pools that they have forked."""
    PAUSE = "pause"
    """SIGSTOP one process of a service, SIGCONT after ``seconds``: longer than a lease, so that a zombie comes back."""
    KILL_BACKEND = "kill-backend"
    """SIGKILL one process of PostgreSQL: it ends all sessions and recovers by itself."""
    CRASH_POSTGRES = "crash-postgres"
    """PostgreSQL stops without a checkpoint and is away for ``seconds``."""
    KILL_REDIS = "kill-redis"
    """SIGKILL Redis; it comes back with its data after ``seconds``."""
    EMPTY_REDIS = "empty-redis"
    """The same, but it comes back with nothing."""
    HANG_REDIS = "hang-redis"
    """SIGSTOP Redis for ``seconds``: connections stay and nobody answers."""
    FLUSH_REDIS = "flush-redis"
    """FLUSHALL."""
    REQUEUE = "requeue"
    """Processed events are put back in the queue behind Holdfast's back, as a wrong UPDATE of an operator does. Only the
    processed-event log knows then that their effects are there."""
    ODD_DEFAULTS = "odd-defaults"
    """For ``seconds`` the database has defaults of isolation, timeouts and durability that nobody would expect, and the
    services' connections are ended when they come: new ones meet them."""
    PAUSE_TYPE = "pause-type"
    """An operator pauses a type of one tenant, and resumes it after ``seconds``."""
    HOSTILE_FRAMES = "hostile-frames"
    """For ``seconds`` strangers hold up the gateway with floods of frames, endless messages and silence."""
    HOSTILE_REQUESTS = "hostile-requests"
    """For ``seconds`` strangers hold up ingest with heads and bodies that they do not finish."""


KILLS = frozenset({Kind.KILL, Kind.KILL_BACKEND, Kind.CRASH_POSTGRES, Kind.KILL_REDIS, Kind.EMPTY_REDIS})
"""What counts as a kill."""

_SERVERS = {
    Kind.KILL_BACKEND: "postgres", Kind.CRASH_POSTGRES: "postgres", Kind.REQUEUE: "postgres", Kind.KILL_REDIS: "redis",
    Kind.EMPTY_REDIS: "redis", Kind.HANG_REDIS: "redis", Kind.FLUSH_REDIS: "redis", Kind.ODD_DEFAULTS: "defaults",
    Kind.PAUSE_TYPE: "types",
}  # fmt: skip
"""What one fault at a time may strike. Defaults are apart from PostgreSQL, which may crash while they are changed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One strike.

    Attributes:
        at: seconds after the start of the faults.
        target: a service, ``postgres``, ``redis``, ``defaults`` of the database, or ``types`` of events.
        choice: from 0 to 1; which of the target's processes.
    """

    at: float
    kind: Kind
    target: str
    choice: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Mix:
    """What is drawn, and how often.

    Attributes:
        per_second: strikes a second, on average.
        weights: how often each pair of kind and target is drawn, relative to the others.
        lasting: shortest and longest duration of each kind that lasts, in seconds.
    """

    per_second: float
    weights: dict[tuple[Kind, str], float]
    lasting: dict[Kind, tuple[float, float]]


RANDOM = Mix(
    per_second=1.0,
    weights={
        (Kind.KILL, "ingest"): 12,
        (Kind.KILL, "processor"): 14,
        (Kind.KILL, "maintenance"): 7,
        (Kind.KILL, "scheduler"): 3,
        (Kind.KILL, "ws-gateway"): 8,
        (Kind.TERMINATE, "ingest"): 1,
        (Kind.TERMINATE, "processor"): 3,
        (Kind.TERMINATE_WORKER, "processor"): 3,
        (Kind.TERMINATE, "maintenance"): 1,
        (Kind.TERMINATE, "ws-gateway"): 1,
        (Kind.PAUSE, "processor"): 4,
        (Kind.PAUSE, "maintenance"): 2,
        (Kind.PAUSE, "ws-gateway"): 1,
        (Kind.KILL_BACKEND, "postgres"): 7,
        (Kind.CRASH_POSTGRES, "postgres"): 5,
        (Kind.KILL_REDIS, "redis"): 5,
        (Kind.EMPTY_REDIS, "redis"): 3,
        (Kind.HANG_REDIS, "redis"): 2,
        (Kind.FLUSH_REDIS, "redis"): 2,
        (Kind.REQUEUE, "postgres"): 2,
        (Kind.ODD_DEFAULTS, "defaults"): 3,
        (Kind.PAUSE_TYPE, "types"): 4,
        (Kind.HOSTILE_FRAMES, "ws-gateway"): 3,
        (Kind.HOSTILE_REQUESTS, "ingest"): 3,
    },
    lasting={
        Kind.PAUSE: (4.0, 8.0),
        Kind.CRASH_POSTGRES: (0.2, 2.0),
        Kind.KILL_REDIS: (0.1, 3.0),
        Kind.EMPTY_REDIS: (0.1, 3.0),
        Kind.HANG_REDIS: (1.0, 5.0),
        Kind.ODD_DEFAULTS: (3.0, 10.0),
        Kind.PAUSE_TYPE: (2.0, 6.0),
        Kind.HOSTILE_FRAMES: (3.0, 12.0),  # longer than the deadlines for a head and a body
        Kind.HOSTILE_REQUESTS: (3.0, 12.0),
    },
)
"""The mix of the real run: about two of three strikes are kills."""


def draw_plan(seed: int, seconds: float, mix: Mix = RANDOM) -> list[Fault]:
    """Faults for that many seconds, in order; equal for equal arguments.

    Two faults of PostgreSQL, or of Redis, do not overlap, and all are over when the time is.
    """
    draw = random.Random(seed)
    choices, weights = list(mix.weights), list(mix.weights.values())
    busy_until: dict[str, float] = {}
    plan = []
    at = draw.expovariate(mix.per_second)
    while at < seconds:
        kind, target = draw.choices(choices, weights)[0]
        lasts = draw.uniform(*mix.lasting[kind]) if kind in mix.lasting else 0.0
        fault = Fault(round(at, 3), kind, target, round(draw.random(), 6), round(lasts, 3))
        if at + lasts < seconds and at >= busy_until.get(_SERVERS.get(kind, ""), 0.0):
            plan.append(fault)
            if kind in _SERVERS:
                busy_until[_SERVERS[kind]] = at + lasts + RECOVERY_SECONDS
        at += draw.expovariate(mix.per_second)
    return plan


RECOVERY_SECONDS = 2.0
"""After a server's fault before its next one: time to start."""


def save_plan(file: Path, plan: Sequence[Fault]) -> None:
    """Write a plan as JSON."""
    file.write_text(json.dumps([asdict(fault) for fault in plan], indent=1) + "\n")


def load_plan(file: Path) -> list[Fault]:
    """Read what :func:`save_plan` wrote."""
    return [Fault(**{**each, "kind": Kind(each["kind"])}) for each in json.loads(file.read_text())]
