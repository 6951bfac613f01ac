"""Which peers are measured, and with which settings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import live
from bench.peers.drain import Peer, TableClock, ValkeyClock, drain
from bench.peers.environment import for_oban, for_peers
from bench.peers.node import for_node, node_server
from bench.rounds import Case
from holdfast.local.stack import Stack

__all__ = ["cases"]

WORKERS = "bench.peers.workers"

CELERY = f"{WORKERS}.celery_tasks"
CELERY_WORKER = (
    "-m", "celery", "-A", CELERY, "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING",
    "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip
CELERY_KEYS = ValkeyClock((("LLEN", "celery"), ("HLEN", "unacked")))

DRAMATIQ = f"{WORKERS}.dramatiq_tasks"
DRAMATIQ_WORKER = ("-m", "dramatiq", DRAMATIQ, "--processes", "2", "--threads", "8")
DRAMATIQ_KEYS = ValkeyClock((("HLEN", "dramatiq:default.msgs"),))

PROCRASTINATE = f"{WORKERS}.procrastinate_tasks"
PROCRASTINATE_WORKER = (
    "-m", "procrastinate", "--app", f"{PROCRASTINATE}.app", "--log-level", "warning", "worker", "--concurrency", "50",
)  # fmt: skip
PROCRASTINATE_JOBS = TableClock(
    done="SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
    took="SELECT extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded') - min(at) FILTER (WHERE type = 'started'))"
    " FROM procrastinate_events",
)

OBAN = f"{WORKERS}.oban_tasks"
OBAN_JOBS = TableClock(
    done="SELECT count(*) FROM oban_jobs WHERE state = 'completed'",
    took="SELECT extract(epoch FROM max(completed_at) - min(attempted_at)) FROM oban_jobs",
)

EVENTS = TableClock(
    done="SELECT count(*) FROM processing_state WHERE state = 'processed'",
    took="SELECT extract(epoch FROM max(at) FILTER (WHERE state = 'processed') - min(at) FILTER (WHERE state = 'processing'))"
    " FROM event_update",
)
"""The clock of ``bench.processing``, so that the same is measured."""

PEERS = (
    Peer("celery-commits", "Celery, Holdfast's two commits; 2 processes", CELERY, "commits", CELERY_WORKER, EVENTS, 450),
    Peer(
        "celery-insert", "Celery, the same with a row written", CELERY, "insert", CELERY_WORKER, EVENTS, 400,
    ),
    Peer("celery-noop", "Celery, empty task; 2 processes", CELERY, "noop", CELERY_WORKER, CELERY_KEYS, 700),
    Peer(
        "dramatiq-commits", "Dramatiq, Holdfast's two commits; 2 processes of 8 threads", DRAMATIQ, "commits",
        DRAMATIQ_WORKER, EVENTS, 700,
    ),
    Peer(
        "dramatiq-noop", "Dramatiq, empty actor; 2 processes of 8 threads", DRAMATIQ, "noop", DRAMATIQ_WORKER,
        DRAMATIQ_KEYS, 4000,
    ),
    Peer(
        "procrastinate-noop", "Procrastinate, empty task; 1 process, 50 at a time", PROCRASTINATE, "noop",
        PROCRASTINATE_WORKER, PROCRASTINATE_JOBS, 300,
    ),
)  # fmt: skip
OBAN_PEER = Peer(
    "oban-noop",
    "Oban for Python, empty job; 1 process, 50 at a time",
    OBAN,
    "noop",
    ("-m", OBAN, "work"),
    OBAN_JOBS,
    1500,
)


def cases(stack: Stack, *, seconds: float, say: Callable[[str], object]) -> list[Case]:
    """A case for each peer; makes their environments where they are not there. Oban is left out without Python 3.12.

    Raises:
        RuntimeError: an environment could not be made.
    """
    python, oban = for_peers(say=say), for_oban(say=say)
    chosen = [(peer, python) for peer in PEERS] + ([(OBAN_PEER, oban)] if oban else [])
    drains = [
        Case(peer.name, peer.title, partial(drain, stack, peer, interpreter, seconds=seconds))
        for peer, interpreter in chosen
    ]
    node = for_node(say=say)
    return drains + (_live_cases(stack, node, seconds=seconds) if node else [])


def _live_cases(stack: Stack, node: Path, *, seconds: float) -> list[Case]:
    def delivered(burst: int) -> float:
        with node_server(stack, node) as server:
            return live.deliveries(server, seconds=seconds, burst=burst)

    def memory() -> float:
        with node_server(stack, node) as server:
            return live.memory(server)

    return [
        Case("node-ws", f"Node's ws: {live.CLIENTS} clients of one topic, {live.BURST} updates at once",
             partial(delivered, live.BURST), live.DELIVERIES),
        Case("node-ws-single", "the same, one update at a time", partial(delivered, 1), live.DELIVERIES),
        Case("node-ws-memory", f"Node's ws: memory of each of {live.IDLE} idle connections", memory, "KiB"),
    ]  # fmt: skip
