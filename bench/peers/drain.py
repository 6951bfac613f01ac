"""One drain: the queue is filled, the worker started, and the time taken from the first to the last message done."""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.limits import SEED
from bench.peers.environment import ROOT
from holdfast.local.process import Guarded
from holdfast.local.services import environment
from holdfast.local.stack import Stack
from holdfast.storage.migrate import upgrade

__all__ = ["Peer", "TableClock", "ValkeyClock", "drain"]

DATABASE = "bench_peers"
BROKER = 5
"""The number of the Valkey database; Holdfast has 0 and 1."""

PATIENCE_SECONDS = 120
"""For filling the queue, and again for draining it."""


@dataclass(frozen=True, slots=True)
class ValkeyClock:
    """A message is done when it has left these: ``(command, key)`` that say how many there are."""

    keys: tuple[tuple[str, str], ...]

    def rate(self, stack: Stack, messages: int, check: Callable[[str], None]) -> float:
        """Messages a second, from when some were seen done to when all were. ``check`` raises when waiting is over."""
        begun, left_then = 0.0, messages
        with redis.Redis.from_url(stack.redis.url(BROKER), socket_timeout=10) as client:
            while left := self._left(client):
                check(f"{messages - left} of {messages} messages done")
                if left < messages and left_then == messages:
                    begun, left_then = time.monotonic(), left
                time.sleep(0.01)
        if left_then == messages:
            raise RuntimeError("the messages were done between two looks: measure with more --seconds")
        return left_then / (time.monotonic() - begun)

    def _left(self, client: "redis.Redis") -> int:
        with client.pipeline(transaction=True) as pipeline:
            for command, key in self.keys:
                pipeline.execute_command(command, key)  # type: ignore[no-untyped-call]
            return sum(pipeline.execute())


@dataclass(frozen=True, slots=True)
class TableClock:
    """A message is done when its row says so: SQL for how many are, and for how many seconds it took."""

    done: str
    took: str

    def rate(self, stack: Stack, messages: int, check: Callable[[str], None]) -> float:
        """Messages a second, from the first begun to the last done. ``check`` raises when waiting is over."""
        while (done := int(stack.postgres.execute(self.done, database=DATABASE))) < messages:
            check(f"{done} of {messages} messages done")
            time.sleep(0.1)
        return messages / float(stack.postgres.execute(self.took, database=DATABASE))


@dataclass(frozen=True, slots=True)
class Peer:
    """A job system with a task: its program, the arguments of its worker, and how its messages are counted."""

    name: str
    title: str
    module: str
    task: str
    worker: tuple[str, ...]
    clock: ValkeyClock | TableClock
    messages_per_second: int
    """How many messages are made for each second of the wished length."""


def drain(stack: Stack, peer: Peer, python: Path, *, seconds: float) -> float:
    """Messages a second.

    Raises:
        RuntimeError: it could not be filled, or not all were done in time; with the end of the log.
    """
    messages = int(peer.messages_per_second * seconds)
    _empty(stack)
    _make_database(stack, events=0 if peer.task == "noop" else messages)
    variables = _variables(stack)
    _fill(python, peer, messages, variables)
    stack.postgres.execute("VACUUM ANALYZE", database=DATABASE)
    worker = Guarded(peer.name, log=stack.logs / f"{peer.name}.log")
    worker.start([str(python), *peer.worker], variables)
    try:
        return peer.clock.rate(stack, messages, _checker(worker))
    finally:
        worker.stop()
        _empty(stack)


def _checker(worker: Guarded) -> Callable[[str], None]:
    deadline = time.monotonic() + PATIENCE_SECONDS

    def check(progress: str) -> None:
        if not worker.is_running:
            raise RuntimeError(f"{worker.name} ended with {progress}; the end of {worker.log}:\n{worker.tail()}")
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{worker.name}: {progress} in {PATIENCE_SECONDS} s; the end of {worker.log}:\n{worker.tail()}"
            )

    return check


def _fill(python: Path, peer: Peer, messages: int, variables: Mapping[str, str]) -> None:
    command = [str(python), "-m", peer.module, "enqueue", peer.task, str(messages)]
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise RuntimeError(
            f"{peer.name}: {messages} messages were not made in {PATIENCE_SECONDS} s; ask for fewer"
        ) from exc
    if done.returncode != 0:
        raise RuntimeError(f"{peer.name}: the queue was not filled:\n{done.stderr[-4000:].strip()}")


def _variables(stack: Stack) -> dict[str, str]:
    return environment({}) | {
        "BENCH_BROKER_URL": stack.redis.url(BROKER),
        "BENCH_DATABASE_URL": stack.postgres.url(DATABASE),
        "PYTHONPATH": str(ROOT),
    }


def _make_database(stack: Stack, *, events: int) -> None:
    """A new one with Holdfast's own tables, and events that are queued."""
    stack.postgres.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    stack.postgres.execute(f"CREATE DATABASE {DATABASE}")
    if events:
        upgrade(stack.postgres.url(DATABASE))
        stack.postgres.execute("CREATE TABLE bench_effect (event_id uuid)", database=DATABASE)
        stack.postgres.execute(SEED.format(events=events), database=DATABASE)


def _empty(stack: Stack) -> None:
    with redis.Redis.from_url(stack.redis.url(BROKER), socket_timeout=10) as client:
        client.flushdb()
