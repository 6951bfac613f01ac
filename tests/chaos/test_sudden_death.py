"""A process killed at an exact place: its connections lead through a proxy that stops there, then comes SIGKILL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.chaos.distant import Distant, wake
from tests.chaos.producers import Producers, event
from tests.chaos.proxy import REPLY, REQUEST, Proxy, Step
from tests.chaos.stacks import LEASE_SECONDS, Replica, Rows, fill, held_lock, ring, through

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

Launch = Callable[..., Replica]

RING = b"dramatiq:events.bell"
"""In the call that enqueues a doorbell."""

COMMIT = b"COMMIT\0"
"""The statement and, on the way back, what PostgreSQL calls its success."""

INSERTED = b"INSERT 0 1\0"

LOCK = 5


def test_r01_ingest_killed_between_commit_and_enqueue_loses_nothing(
    stack: Stack,
    producers: Producers,
    rows: Rows,
    launch: Launch,
    proxy: Callable[[int], Proxy],
    eventually: Eventually,
    assert_invariant: Callable[[], None],
) -> None:
    broker = proxy(stack.redis.port)
    url = through(stack.redis.url(0), broker.port)
    # Longer than it takes to kill: ingest is to die while it waits for Redis.
    ingest = launch("ingest", BROKER_URL=url, REDIS_TIMEOUT_SECONDS="5")
    ringing = broker.stall_at(Step(REQUEST, RING))
    sent = event("chaos.plain")

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Producers(ingest.url, stack.api_key).post, sent)
        eventually(lambda: ringing.is_sprung, message="ingest rings")
        ingest.kill()

    assert answer.result().status == 0, "the producer was told nothing"
    [(event_id,)] = rows.query("SELECT id::text FROM event WHERE ce_id = %s", sent["id"])
    eventually(lambda: rows.state(event_id) == "processed", timeout_seconds=20, message="it is found")
    again = producers.post(sent)
    assert (again.event_id, again.body["duplicate"]) == (event_id, True)
    assert rows.effects([event_id]) == 1
    assert_invariant()


def test_r05_a_processor_killed_at_five_places_leaves_one_set_of_effects_each(
    stack: Stack, rows: Rows, distant: Distant, eventually: Eventually, assert_invariant: Callable[[], None]
) -> None:
    database = distant.database
    claimed, inside, before_commit, after_commit = fill(stack.database_url, 4, "chaos.plain")
    [before_ack] = fill(stack.database_url, 1, "chaos.blocked", {"lock": LOCK})
    traps = [
        database.stall_at(Step(REPLY, claimed.encode()), Step(REPLY, COMMIT)),
        database.stall_at(effect_of(inside), Step(REPLY, INSERTED)),
        database.stall_at(effect_of(before_commit), Step(REQUEST, COMMIT)),
        database.stall_at(effect_of(after_commit), Step(REPLY, COMMIT)),
    ]
    everything = [claimed, inside, before_commit, after_commit, before_ack]

    with held_lock(stack, LOCK):
        ring(stack, everything)
        eventually(lambda: all(trap.is_sprung for trap in traps), message="four events have come to their places")
        eventually(lambda: rows.waiting(LOCK) == 1, message="the fifth waits in its handler")
        distant.broker.half_open(REQUEST)  # from here on no acknowledgement reaches Redis
    eventually(lambda: rows.state(before_ack) == "processed", message="the fifth is processed")
    reached = {name: rows.state(name) for name in everything}
    distant.processor.kill()
    ring(stack, everything)  # what Redis does, much later, with messages that were not acknowledged
    wake(stack.services["processor"])

    eventually(lambda: rows.count("processed", everything) == 5, message="all are processed in the end")
    unfinished = [claimed, inside, before_commit]
    assert [rows.effects([name]) for name in everything] == [1] * 5
    assert [reached[name] for name in everything] == ["processing"] * 3 + ["processed"] * 2
    assert [rows.standing(name) for name in unfinished] == [("processed", 2, 1)] * 3
    assert max(seconds_to_recovery(rows, name) for name in unfinished) < LEASE_SECONDS + 5
    assert [rows.standing(name) for name in (after_commit, before_ack)] == [("processed", 1, 0)] * 2
    assert_invariant()


def effect_of(event_id: str) -> Step:
    """The handler's statement."""
    return Step(REQUEST, f"INSERT INTO effect VALUES ('{event_id}'".encode())  # noqa: S608 (nobody runs it)


def seconds_to_recovery(rows: Rows, event_id: str) -> float:
    """From the claim to its being taken away."""
    (_, _), (first, claimed_at), (second, recovered_at), *_ = rows.history(event_id)
    assert (first, second) == ("processing", "queued")
    return recovered_at - claimed_at
