"""A process killed at an exact place: its connections lead through a proxy that stops there, then comes SIGKILL."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.chaos.distant import Distant, wake
from tests.chaos.producers import Producers, event
from tests.chaos.proxy import REPLY, REQUEST, Direction, Proxy, Step
from tests.chaos.stacks import LEASE_SECONDS, Replica, Rows, fill, held_lock, ring, through

from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("chaos")

Launch = Callable[..., Replica]

RING = b"dramatiq:events.bell"
"""In the call that enqueues a doorbell."""

COMMIT = "COMMIT\0"
COMMIT_OF_EFFECTS = "COMMIT; CLOSE ALL"
"""In one query with what renews the session that a handler has used."""
"""The statement and, on the way back, what PostgreSQL calls its success."""

INSERTED = "INSERT 0 1\0"

LOCK = 5

EFFECT = "INSERT INTO effect VALUES ('{event_id}'"

Place = Sequence[tuple[Direction, str]]
"""Steps that lead there, with ``{event_id}`` where it belongs."""

AFTER_THE_CLAIM: Place = [(REPLY, "{event_id}"), (REPLY, COMMIT)]
INSIDE_THE_HANDLER: Place = [(REQUEST, EFFECT), (REPLY, INSERTED)]
BEFORE_THE_COMMIT: Place = [(REQUEST, EFFECT), (REQUEST, COMMIT_OF_EFFECTS)]
AFTER_THE_COMMIT: Place = [(REQUEST, EFFECT), (REPLY, COMMIT)]


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
    with held_lock(stack, LOCK):
        [before_ack] = fill(stack.database_url, 1, "chaos.blocked", {"lock": LOCK})
        ring(stack, [before_ack])
        eventually(lambda: rows.waiting(LOCK) == 1, message="one event waits in its handler")
        inside = stop_at(INSIDE_THE_HANDLER, stack, distant, eventually)
        before_commit = stop_at(BEFORE_THE_COMMIT, stack, distant, eventually)
        after_commit = stop_at(AFTER_THE_COMMIT, stack, distant, eventually)
        claimed = stop_at(AFTER_THE_CLAIM, stack, distant, eventually)
        distant.broker.half_open(REQUEST)  # from here on no acknowledgement reaches Redis
    eventually(lambda: rows.state(before_ack) == "processed", message="that event is processed")
    unfinished, finished = [claimed, inside, before_commit], [after_commit, before_ack]
    everything = unfinished + finished
    reached = [rows.state(each) for each in everything]

    distant.processor.kill()
    ring(stack, everything)  # what Redis does, much later, with messages that were not acknowledged
    wake(stack.services["processor"])

    eventually(lambda: rows.count("processed", everything) == 5, message="all are processed in the end")
    assert [rows.effects([each]) for each in everything] == [1] * 5
    assert reached == ["processing"] * 3 + ["processed"] * 2
    assert max(seconds_to_recovery(rows, each) for each in unfinished) < LEASE_SECONDS + 5
    assert [rows.standing(each) for each in finished] == [("processed", 1, 0)] * 2
    assert_invariant()


def stop_at(place: Place, stack: Stack, distant: Distant, eventually: Eventually) -> str:
    """Send an event and stop its worker at a place. One at a time: events that are due together may be claimed together."""
    [event_id] = fill(stack.database_url, 1, "chaos.plain")
    steps = [Step(direction, pattern.format(event_id=event_id).encode()) for direction, pattern in place]
    trap = distant.database.stall_at(*steps)
    ring(stack, [event_id])
    eventually(lambda: trap.is_sprung, message="an event has come to its place")
    return event_id


def seconds_to_recovery(rows: Rows, event_id: str) -> float:
    """From the claim to its being taken away."""
    (_, _), (first, claimed_at), (second, recovered_at), *_ = rows.history(event_id)
    assert (first, second) == ("processing", "queued")
    return recovered_at - claimed_at
